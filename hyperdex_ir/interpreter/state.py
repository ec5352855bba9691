"""State that instructions read and change (registers, LMU, HBM, the flag), and the table of their meanings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.link import Link
from hyperdex_ir.interpreter.lmu import Lmu
from hyperdex_ir.isa.faults import Fault, Forbidden
from hyperdex_ir.isa.handlers import Handlers
from hyperdex_ir.isa.instructions import POSITION, ZERO
from hyperdex_ir.isa.operands import MOST_POSITION, REGISTERS, HbmRef, LmuRef, ViewRef

_WORD_LIMIT = 1 << 63  # registers hold 64-bit signed integers


class State:
    """The machine's state. `chunk`: most rows in flight. `nonfinite`: the running instruction made a NaN or inf.
    `result`: what it wrote to the LMU, except scores and probabilities; None when it wrote nothing. `sent`, `received`:
    messages of the step so far; `words_ahead`: words in the messages sent, less words in those received. `waits`: the
    running instruction has to wait for a message, and did nothing."""

    def __init__(self, hbm: Hbm, chunk: int, lmu_words: int, link: Link | None = None):
        self.hbm = hbm
        self.chunk = chunk
        self.link = link
        self.sent = self.received = self.words_ahead = 0
        self.waits = False
        self.lmu = Lmu(lmu_words)
        self.registers: list[int | None] = [None] * REGISTERS
        self.nonfinite = False
        self.result: np.ndarray | None = None

    def register(self, number: int) -> int:
        """A register's value. Raises Forbidden when no register has that number, or it has not been set."""
        value = 0 if number == ZERO else self._registers_at(number)
        if value is None:
            raise Forbidden(Fault.REGISTER_UNSET, register=number)
        return value

    def set_register(self, number: int, value: int) -> None:
        """Sets a register; r0 stays 0. Raises Forbidden for another number, or a value beyond 64 bits."""
        self._registers_at(number)
        if not -_WORD_LIMIT <= value < _WORD_LIMIT:
            raise Forbidden(Fault.REGISTER_OVERFLOW, register=number, value=value)
        if number != ZERO:
            self.registers[number] = value

    def _registers_at(self, number: int) -> int | None:
        if not 0 <= number < REGISTERS:
            raise Forbidden(Fault.REGISTER_NUMBER, register=number)
        return self.registers[number]

    def rows(self, number: int) -> int:
        """The row count in a register. Raises Forbidden unless it is from 1 to the chunk size."""
        rows = self.register(number)
        if not 1 <= rows <= self.chunk:
            raise Forbidden(Fault.ROWS, register=number, rows=rows, chunk=self.chunk)
        return rows

    def position(self, rows: int) -> int:
        """The position of the first row in flight. Raises Forbidden when a row's position is not from 0 to the last
        position."""
        position = self.register(POSITION)
        last = position + rows - 1
        if position < 0 or last > MOST_POSITION:
            raise Forbidden(Fault.POSITION, first=position, last=last)
        return position

    def address(self, ref: HbmRef) -> int:
        """A byte address in HBM."""
        return ref.offset + self.register(ref.register)

    def parameter(self, ref: HbmRef | None, columns: int) -> np.ndarray | None:
        """A row of float32 in HBM; None for an absent operand."""
        return None if ref is None else self.hbm.read(self.address(ref), (columns,), np.float32)

    def read_rows(self, ref: LmuRef, rows: int, columns: int, used: np.ndarray | None = None) -> np.ndarray:
        """float32 [rows, columns] of the LMU, sharing memory; all (or those `used`) must have been written."""
        return self.lmu.read(ref.address + self.register(ref.register), (rows, columns), (ref.stride, 1), used)

    def check_rows(self, ref: LmuRef, rows: int, columns: int) -> None:
        """Raises Forbidden when rows of the LMU reach beyond it."""
        self.lmu.check(ref.address + self.register(ref.register), (rows, columns), (ref.stride, 1))

    def write_rows(self, ref: LmuRef, data: np.ndarray, used: np.ndarray | None = None) -> None:
        """Writes float32 [rows, columns] (where `used`) to the LMU, and watches it."""
        self.watch(data if used is None else data[used])
        self.result = data
        self.lmu.write(ref.address + self.register(ref.register), (ref.stride, 1), data, used)

    def read_view(self, ref: ViewRef, rows: int, groups: int, columns: int) -> np.ndarray:
        """float32 [rows, groups, columns] of the LMU, sharing memory."""
        strides = (ref.stride, ref.group_stride, ref.column_stride)
        return self.lmu.read(ref.address + self.register(ref.register), (rows, groups, columns), strides)

    def write_view(self, ref: ViewRef, data: np.ndarray) -> None:
        """Writes float32 [rows, groups, columns] to the LMU, and watches it."""
        self.watch(data)
        self.result = data
        strides = (ref.stride, ref.group_stride, ref.column_stride)
        self.lmu.write(ref.address + self.register(ref.register), strides, data)

    def watch(self, data: np.ndarray) -> None:
        """Raises the flag of the running instruction when the data holds a NaN or an infinity."""
        if not np.isfinite(data).all():
            self.nonfinite = True


Handler = Callable[[Any, Mapping[str, Any]], None]
#: The meaning of each instruction: a function of the State, or in the group CTRL of the Machine, and of its operands.
HANDLERS: Handlers[Handler] = Handlers("handler of the interpreter")


def executes(*names: str) -> Callable[[Handler], Handler]:
    """Registers the meaning of instructions."""

    def register(handler: Handler) -> Handler:
        for name in names:
            HANDLERS.add(name, handler)
        return handler

    return register
