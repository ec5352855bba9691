"""Machine faults, for all executors of programs: the kinds of fault and their texts."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from string import Formatter

from hyperdex_ir.isa.operands import MOST_AHEAD, MOST_POSITION, REGISTERS, Area, Hbm, Holds, Lmu, Operand, Reg, View
from hyperdex_ir.isa.shapes import Seen


class Fault(IntEnum):
    """Kinds of machine fault, each with its words: a format string that names the fault's numbers."""

    words: str

    def __new__(cls, words: str) -> Fault:
        kind = int.__new__(cls, len(cls.__members__) + 1)
        kind._value_ = int(kind)
        kind.words = words
        return kind

    # control flow
    NO_HALT = "the program has {instructions} instructions and no halt here"
    BUDGET = "{instructions} instructions and no halt: the program does not end"
    EMPTY_REPEAT = "a repeat of no instructions"
    EMPTY_SKIP = "a skip of no instructions"
    BODY_PROGRAM = "the body ends at {stop}, the program at {instructions}"
    BODY_REPEAT = "the body ends at {stop}, that of the repeat around it at {parent}"
    CALL_TARGET = "call of {target}, the program has {instructions} instructions"
    RET_ALONE = "ret without a call"
    RET_IN_REPEAT = "ret inside a repeat (body {first} to {last})"
    NESTING = "repeats and calls nested deeper than {most}"
    # registers
    REGISTER_UNSET = "register r{register} is read, nothing has set it"
    REGISTER_OVERFLOW = "register r{register} holds 64 bits, {value} does not fit"
    REGISTER_NUMBER = f"register r{{register}}, there are {REGISTERS}"
    ROWS = "register r{register} says {rows} rows, the machine takes 1 to {chunk}"
    POSITION = f"positions {{first}} to {{last}}, they go from 0 to {MOST_POSITION}"
    # the LMU
    LMU = "LMU words {first} to {last}, it has {words}"
    LMU_ELEMENTS = "an operand of {elements} elements, the LMU has {words} words"
    LMU_UNWRITTEN = "LMU word {word} is read, nothing has written it"
    # HBM
    HBM = "HBM bytes {first} to {last}, the map ends at {end}"
    HBM_ALIGNMENT = "HBM address {address} is not a multiple of {item}"
    HBM_STRADDLE = "HBM bytes {first} to {last} reach across the end of the parameters at {end}"
    HBM_PARAMETER = "HBM address {address} is a parameter's, they end at {end}"
    HBM_STRIPE = "HBM address {address} of a matrix is not a multiple of {stripe}"
    HBM_UNWRITTEN = "HBM bytes {first} to {last} hold words that nothing has written"
    # operands of single instructions
    TABLE_ROW = "row {row} of a table of {rows} rows"
    LOOKUP = "number {index} of a table of {limit}"
    NUMBER = "the word is no number below {limit}"
    CACHE_ROWS = "positions {first} to {last}, the cache holds {limit}"
    CACHE_LIMIT = "position {position}, the cache holds {limit}"
    CACHE_UNWRITTEN = "position {position} of the KV cache is read, nothing wrote it"
    TURNED = "{turned} columns to turn, of {columns}: must be even and no more"
    SELECTED_ROWS = "rows {first} to {last}, the machine has {chunk}"
    SELECTED_COLUMNS = "columns from {first} on"
    CHOICE = "{k} of {columns} columns, from {top_groups} of {groups} groups"
    COLUMN_NUMBER = "word {rank} of row {row} is no number below {limit}"
    NO_COLUMNS = "no columns to choose from"
    SETTINGS = "the sampling settings have {refusal}"
    LAYER_NUMBER = "layer {layer}, there are numbers for {layers}"
    # messages
    NO_LINKS = "this device has no links"
    NO_SENDER = "no other device is there to send a message"
    DEVICE = "device {device} of a program for {parts}"
    EARLY_RECEIVE = "receive number {number} of the step, before send number {number}"
    MESSAGE = (
        "message {number} with {rows} x {columns} words of part {part} expected,"
        " the device before sent message {its_number} with {its_rows} x {its_columns} words of part {its_part}"
    )
    AHEAD = (
        "{messages} messages with {words} words sent and not received,"
        f" the most are {MOST_AHEAD} with {{most}} words"
    )
    # the host
    TOKENS = "step of {tokens} tokens, the machine takes 1 to {chunk}"
    FIRST_ROW = "first row {row} of a step of {tokens} tokens"
    GIVEN = "what the program is given: {fault}"
    LEFT = "what the program leaves: {fault}"
    RUN_TIME_AREA = "HBM bytes {first} to {last}, the run-time area is {begin} to {end}"
    CLOSED = "the machine has been closed"
    OPERAND_UNKNOWN = "no operand {operand!r}"
    OPERAND_MISSING = "operand {operand} is missing"
    HBM_MEMORY = "an HBM of {bytes:,} bytes: more than this process can have"
    RUN_TIME_MEMORY = "a run-time area of {bytes:,} bytes: more than this process can have"
    SCRATCH_MEMORY = "{bytes} bytes of scratch memory: more than this process can have"

    def text(self, **numbers: object) -> str:
        """The words with their numbers."""
        return self.words.format(**numbers)

    @property
    def numbers(self) -> tuple[str, ...]:
        """The names of the words' numbers, in order."""
        return tuple(dict.fromkeys(name for _, name, _, _ in Formatter().parse(self.words) if name is not None))


#: Kinds that belong to no instruction: there is none, or there have been too many.
MACHINE_FAULTS = (Fault.NO_HALT, Fault.BUDGET)


def operand_faults(operand: Operand) -> Iterator[Fault]:
    """The kinds of fault that every instruction with such an operand can raise."""
    match operand:
        case Lmu() | View():
            yield from (Fault.REGISTER_UNSET, Fault.LMU, Fault.LMU_ELEMENTS)
            yield from () if operand.writes else (Fault.LMU_UNWRITTEN,)
            yield from (Fault.POSITION,) if isinstance(operand.columns, Seen) else ()
        case Hbm():
            yield from (Fault.REGISTER_UNSET, Fault.HBM, Fault.HBM_ALIGNMENT, Fault.HBM_STRADDLE)
            yield from _hbm_faults(operand)
        case Reg(writes=False):
            yield Fault.REGISTER_UNSET


def _hbm_faults(operand: Hbm) -> Iterator[Fault]:
    if operand.writes or Area.MEMORY not in operand.areas:
        yield Fault.HBM_PARAMETER
    if operand.areas == (Area.STATES,):
        yield Fault.POSITION
    if operand.holds in (Holds.EMBEDDING, Holds.MATRIX) or operand.areas in ((Area.KEYS,), (Area.VALUES,)):
        yield Fault.HBM_STRIPE  # a matrix in tile order
    elif not operand.writes:
        yield Fault.HBM_UNWRITTEN


def place_of(index: int, name: str, module_path: str = "") -> str:
    """The instruction that a fault is about."""
    return f"instruction {index} ({name})" + (f" of {module_path}" if module_path else "")


class Forbidden(Exception):
    """An instruction did what the machine forbids. The machine adds which one, and raises MachineFault."""

    def __init__(self, kind: Fault, **numbers: object):
        super().__init__(kind.text(**numbers))
