"""What the machine forbids, by number, and the message of each: the interpreter's words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum, auto

from hyperdex_ir.isa.operands import MOST_AHEAD, MOST_POSITION
from hyperdex_ir.isa.settings import REFUSALS


class Fault(IntEnum):
    """Kinds of machine fault; the comment says which numbers compiled code gives with it."""

    NO_HALT = auto()  # instructions of the program
    BUDGET = auto()  # instructions executed
    REGISTER_UNSET = auto()  # register
    REGISTER_OVERFLOW = auto()  # register, low 64 bits of the value, high 64 bits
    ROWS = auto()  # register, its value, chunk
    LMU = auto()  # address, register's value, distance of the last word, words of the LMU
    HBM = auto()  # register's value, what is added to it, bytes, end of HBM
    HBM_ALIGNMENT = auto()  # address, element bytes
    HBM_STRADDLE = auto()  # address, bytes, end of the parameters
    HBM_PARAMETER = auto()  # address, end of the parameters
    HBM_STRIPE = auto()  # address, stripe bytes
    TABLE_ROW = auto()  # index, rows of the table
    LOOKUP = auto()  # index, numbers in the table
    CACHE_ROWS = auto()  # first position, rows, limit
    POSITION = auto()  # first position, rows
    CACHE_LIMIT = auto()  # last position, limit
    TURNED = auto()  # turned columns, columns
    SELECTED_ROWS = auto()  # first row, rows, chunk
    EMPTY_REPEAT = auto()
    EMPTY_SKIP = auto()
    BODY_PROGRAM = auto()  # end of the body, instructions of the program
    BODY_REPEAT = auto()  # end of the body, end of the repeat's around it
    CALL_TARGET = auto()  # target, instructions of the program
    RET_ALONE = auto()
    RET_IN_REPEAT = auto()  # the body's start and end
    NESTING = auto()  # most frames
    NO_COLUMNS = auto()
    SETTINGS = auto()  # number in isa.settings.REFUSALS
    SELECTED_COLUMNS = auto()  # number of the block, columns
    NO_LINKS = auto()
    DEVICE = auto()  # device, parts
    EARLY_RECEIVE = auto()  # number of the message
    MESSAGE = auto()  # number, part, rows and columns of the message expected, then of the one that came
    AHEAD = auto()  # messages, their words, words of the LMU
    CHOICE = auto()  # k, columns, groups to choose from, groups
    COLUMN_NUMBER = auto()  # rank, row, columns
    NUMBER = auto()  # what it must be below
    LMU_ELEMENTS = auto()  # elements of an operand, words of the LMU


def _overflow(register: int, low: int, high: int) -> str:
    value = (high << 64) + (low & (1 << 64) - 1)
    return f"register r{register} holds 64 bits, {value} does not fit"


def _lmu(address: int, register: int, distance: int, words: int) -> str:
    start = address + register
    return f"LMU words {start} to {start + distance}, it has {words}"


def _hbm(register: int, added: int, size: int, end: int) -> str:
    address = register + added
    return f"HBM bytes {address} to {address + size - 1}, the map ends at {end}"


def _message(number: int, part: int, rows: int, columns: int) -> str:
    return f"message {number} with {rows} x {columns} words of part {part}"


def _other_message(
    number: int, part: int, rows: int, columns: int, found: int, its_part: int, its_rows: int, its_columns: int
) -> str:
    other = _message(found, its_part, its_rows, its_columns)
    return f"{_message(number, part, rows, columns)} expected, the device before sent {other}"


_MESSAGES: dict[Fault, Callable[..., str]] = {
    Fault.NO_HALT: lambda count: f"the program has {count} instructions and no halt here",
    Fault.BUDGET: lambda count: f"{count} instructions and no halt: the program does not end",
    Fault.REGISTER_UNSET: lambda number: f"register r{number} is read, nothing has set it",
    Fault.REGISTER_OVERFLOW: _overflow,
    Fault.ROWS: lambda number, rows, chunk: f"register r{number} says {rows} rows, the machine takes 1 to {chunk}",
    Fault.LMU: _lmu,
    Fault.HBM: _hbm,
    Fault.HBM_ALIGNMENT: lambda address, item: f"HBM address {address} is not a multiple of {item}",
    Fault.HBM_STRADDLE: lambda address, size, end: (
        f"HBM bytes {address} to {address + size - 1} reach across the end of the parameters at {end}"
    ),
    Fault.HBM_PARAMETER: lambda address, end: f"HBM address {address} is a parameter's, they end at {end}",
    Fault.HBM_STRIPE: lambda address, size: f"HBM address {address} of a matrix is not a multiple of {size}",
    Fault.TABLE_ROW: lambda index, rows: f"row {index} of a table of {rows} rows",
    Fault.LOOKUP: lambda index, limit: f"number {index} of a table of {limit}",
    Fault.CACHE_ROWS: lambda first, rows, limit: f"positions {first} to {first + rows - 1}, the cache holds {limit}",
    Fault.POSITION: lambda first, rows: f"positions {first} to {first + rows - 1}, they go from 0 to {MOST_POSITION}",
    Fault.CACHE_LIMIT: lambda position, limit: f"position {position}, the cache holds {limit}",
    Fault.TURNED: lambda turned, columns: f"{turned} columns to turn, of {columns}: must be even and no more",
    Fault.SELECTED_ROWS: lambda first, rows, chunk: f"rows {first} to {first + rows - 1}, the machine has {chunk}",
    Fault.EMPTY_REPEAT: lambda: "a repeat of no instructions",
    Fault.EMPTY_SKIP: lambda: "a skip of no instructions",
    Fault.BODY_PROGRAM: lambda stop, count: f"the body ends at {stop}, the program at {count}",
    Fault.BODY_REPEAT: lambda stop, parent: f"the body ends at {stop}, that of the repeat around it at {parent}",
    Fault.CALL_TARGET: lambda target, count: f"call of {target}, the program has {count} instructions",
    Fault.RET_ALONE: lambda: "ret without a call",
    Fault.RET_IN_REPEAT: lambda start, stop: f"ret inside a repeat (body {start} to {stop - 1})",
    Fault.NESTING: lambda most: f"repeats and calls nested deeper than {most}",
    Fault.NO_COLUMNS: lambda: "no columns to choose from",
    Fault.SETTINGS: lambda number: f"the sampling settings have {REFUSALS[number]}",
    Fault.SELECTED_COLUMNS: lambda block, columns: f"columns from {block * columns} on",
    Fault.NO_LINKS: lambda: "this device has no links",
    Fault.DEVICE: lambda device, parts: f"device {device} of a program for {parts}",
    Fault.EARLY_RECEIVE: lambda number: f"receive number {number} of the pass, before send number {number}",
    Fault.MESSAGE: _other_message,
    Fault.AHEAD: lambda messages, words, most: (
        f"{messages} messages with {words} words sent and not received, the most are {MOST_AHEAD} with {most} words"
    ),
    Fault.CHOICE: lambda k, columns, top, groups: f"{k} of {columns} columns, from {top} of {groups} groups",
    Fault.COLUMN_NUMBER: lambda rank, row, limit: f"word {rank} of row {row} is no number below {limit}",
    Fault.NUMBER: lambda limit: f"the word is no number below {limit}",
    Fault.LMU_ELEMENTS: lambda count, words: f"an operand of {count} elements, the LMU has {words} words",
}


def message(code: int, numbers: Sequence[int]) -> str:
    """The message of a fault with the numbers that compiled code left (more than it needs are ignored)."""
    text = _MESSAGES[Fault(code)]
    return text(*numbers[: text.__code__.co_argcount])
