"""The machine: executes decoded programs one instruction after another, and checks everything they do.

docs/isa.md says what each instruction does; docs/arithmetic.md defines the bits of its results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hyperdex_ir.errors import MachineFault
from hyperdex_ir.interpreter import (  # noqa: F401  they register
    machine_mem,
    machine_net,
    machine_routing,
    machine_sxe,
    machine_vxe,
)
from hyperdex_ir.interpreter.arithmetic import quiet
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.link import Link
from hyperdex_ir.interpreter.state import HANDLERS, Handler, State, executes
from hyperdex_ir.interpreter.step import BUDGET, MachineBase, NumericFault, Stop, operand_values
from hyperdex_ir.isa.faults import Fault, Forbidden
from hyperdex_ir.isa.instructions import Group
from hyperdex_ir.isa.program import Instruction, Origin, Program
from hyperdex_ir.isa.structure import MAX_DEPTH


@dataclass
class _Repeat:
    """A running repeat: its body is start..stop-1."""

    start: int
    stop: int
    remaining: int


@dataclass(frozen=True)
class _Call:
    """A running call."""

    back: int


#: Observer of instructions: called with an instruction's number and operands.
Hook = Callable[[int, Mapping[str, Any]], None]


class Machine(MachineBase):
    """One LPU: program, HBM, LMU of `lmu_words` words, registers; `chunk` is the most tokens in flight.

    device, link: its number on the ring, and its link to the devices before and after it.

    on_instruction: when set, called after each instruction that is not a control instruction; `state.result` has what
    the instruction wrote.
    """

    def __init__(
        self,
        program: Program,
        hbm: Hbm,
        *,
        chunk: int,
        lmu_words: int,
        origins: Sequence[Origin] = (),
        budget: int = BUDGET,
        device: int = 0,
        link: Link | None = None,
    ):
        super().__init__(program, chunk, device, origins)
        self.state = State(hbm, chunk, lmu_words, link)
        self.fault: NumericFault | None = None
        HANDLERS.check()
        self._code = [_decoded(index, item) for index, item in enumerate(program.instructions)]
        self._budget = budget
        self._passes = 0
        self.on_instruction: Hook | None = None
        self._reset(0)

    @property
    def registers(self) -> list[int | None]:
        """The registers by number; None for a register that has not been set."""
        return self.state.registers

    @property
    def hbm(self) -> Hbm:
        return self.state.hbm

    def read_hbm(self, address: int, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
        """A copy of an array in HBM. Raises MachineFault outside it, and where nothing has been written."""
        try:
            return self.hbm.read(address, shape, dtype).copy()
        except Forbidden as error:
            raise MachineFault(Fault.LEFT.text(fault=error)) from None

    def write_hbm(self, address: int, data: np.ndarray) -> None:
        """Writes to the run-time area of HBM. Raises MachineFault outside it."""
        try:
            self.hbm.write(address, data)
        except Forbidden as error:
            raise MachineFault(Fault.GIVEN.text(fault=error)) from None

    def clear(self) -> None:
        """Forgets the sticky flag, and counts steps from 0 again."""
        self.fault, self._passes = None, 0

    @property
    def executed(self) -> int:
        """Instructions that the running step, or the last one, has executed."""
        return self._executed

    def start(self, tokens: Sequence[int], position: int, first_row: int) -> None:
        """Begins a step over `tokens`, the first of them at `position`; `resume` then executes it.

        Raises MachineFault when the host does what the machine forbids: no tokens or more than the chunk, or a first
        row that is not one of them.
        """
        given = self._given(tokens, position, first_row)
        self._reset(len(tokens))
        self.write_hbm(self.hbm.map.tokens, np.array(tokens, np.int64))
        for register, value in given.items():
            self.state.set_register(register, value)

    def resume(self) -> Stop:
        """Executes the step up to the halt, or to a receive whose message has not arrived; then call `resume` again.

        Raises MachineFault when an instruction does what the machine forbids. NaN and infinity raise nothing: see
        `fault`.
        """
        with quiet():
            while not self._halted:
                self._step()
                if self.state.waits:
                    return "receive"
        self._passes += 1
        return "halt"

    def stop(self) -> None:
        """Ends the running step after its current instruction; called from another thread."""
        self._halted = True

    def _reset(self, tokens: int) -> None:
        state = self.state
        state.registers[:] = [None] * len(state.registers)
        state.registers[0] = 0
        if tokens:
            state.lmu.forget()
        self._next, self._index, self._executed, self._calls = 0, 0, 0, 0
        self._frames: list[_Repeat | _Call] = []
        self._halted = False
        state.sent = state.received = state.words_ahead = 0
        state.waits = False

    def _step(self) -> None:
        index = self._index = self._next
        try:
            if not 0 <= index < len(self.program.instructions):
                raise Forbidden(Fault.NO_HALT, instructions=len(self.program.instructions))
            if self._executed >= self._budget:
                raise Forbidden(Fault.BUDGET, instructions=self._executed)
            self._executed += 1
            self._execute(index)
            self._close_repeats()
        except Forbidden as error:
            raise self._fault(str(error)) from None

    def _execute(self, index: int) -> None:
        handler, is_control, operands = self._code[index]
        self._next = index + 1
        if is_control:
            handler(self, operands)
            return
        self.state.nonfinite, self.state.result, self.state.waits = False, None, False
        handler(self.state, operands)
        if self.state.waits:
            self._next, self._executed = index, self._executed - 1
            return
        if self.on_instruction is not None:
            self.on_instruction(index, operands)
        if self.state.nonfinite and self.fault is None:
            self.fault = self._numeric_fault(self._passes, self.layer, index, self._executed - 1)

    def _close_repeats(self) -> None:
        """At the end of a repeat's body, jumps back to its start, or goes on after the last trip."""
        while self._frames and isinstance(frame := self._frames[-1], _Repeat) and self._next == frame.stop:
            frame.remaining -= 1
            if frame.remaining:
                self._next = frame.start
                return
            self._frames.pop()

    # ------------------------------------------------------------------------------------------------ control

    @executes("halt")
    def _halt(self, v: Mapping[str, Any]) -> None:
        self._halted = True

    @executes("set")
    def _set(self, v: Mapping[str, Any]) -> None:
        self.state.set_register(v["dst"], v["value"])

    @executes("add")
    def _add(self, v: Mapping[str, Any]) -> None:
        state = self.state
        state.set_register(v["dst"], state.register(v["a"]) + state.register(v["b"]) + v["value"])

    @executes("lookup")
    def _lookup(self, v: Mapping[str, Any]) -> None:
        index = self.state.register(v["index"])
        if not 0 <= index < v["limit"]:
            raise Forbidden(Fault.LOOKUP, index=index, limit=v["limit"])
        (number,) = self.hbm.read(self.state.address(v["table"]) + 8 * index, (1,), np.int64)
        self.state.set_register(v["dst"], int(number))

    @executes("fetch")
    def _fetch(self, v: Mapping[str, Any]) -> None:
        state, src, limit = self.state, v["src"], v["limit"]
        word = state.lmu.word(src.address + state.register(src.register))
        if not 0 <= word < limit or word != int(word):
            raise Forbidden(Fault.NUMBER, limit=limit)
        state.set_register(v["dst"], int(word))

    @executes("skip_unless")
    def _skip_unless(self, v: Mapping[str, Any]) -> None:
        stop = self._body_end(Fault.EMPTY_SKIP, v["length"])
        if self.state.register(v["a"]) != v["value"]:
            self._next = stop

    def _body_end(self, empty: Fault, length: int) -> int:
        """The end of the body that starts here. Raises Forbidden when the body is empty or reaches beyond the body
        around it."""
        stop = self._next + length
        if length < 1:
            raise Forbidden(empty)
        if stop > len(self.program.instructions):
            raise Forbidden(Fault.BODY_PROGRAM, stop=stop, instructions=len(self.program.instructions))
        parent = self._frames[-1] if self._frames else None
        if isinstance(parent, _Repeat) and stop > parent.stop:
            raise Forbidden(Fault.BODY_REPEAT, stop=stop, parent=parent.stop)
        return stop

    @executes("multiply")
    def _multiply(self, v: Mapping[str, Any]) -> None:
        self.state.set_register(v["dst"], self.state.register(v["a"]) * v["value"])

    @executes("repeat")
    def _repeat(self, v: Mapping[str, Any]) -> None:
        start, stop = self._next, self._body_end(Fault.EMPTY_REPEAT, v["length"])
        if v["count"] == 0:
            self._next = stop
            return
        self._push(_Repeat(start, stop, v["count"]))

    @executes("repeat_rows")
    def _repeat_rows(self, v: Mapping[str, Any]) -> None:
        start, stop = self._next, self._body_end(Fault.EMPTY_REPEAT, v["length"])
        self._push(_Repeat(start, stop, self.state.rows(v["rows"])))

    @executes("call")
    def _call(self, v: Mapping[str, Any]) -> None:
        if v["target"] >= len(self.program.instructions):
            raise Forbidden(Fault.CALL_TARGET, target=v["target"], instructions=len(self.program.instructions))
        self._push(_Call(self._next))
        self._next = v["target"]
        self._calls += 1

    @executes("ret")
    def _ret(self, v: Mapping[str, Any]) -> None:
        if not self._frames:
            raise Forbidden(Fault.RET_ALONE)
        frame = self._frames.pop()
        if not isinstance(frame, _Call):
            raise Forbidden(Fault.RET_IN_REPEAT, first=frame.start, last=frame.stop - 1)
        self._next = frame.back

    def _push(self, frame: _Repeat | _Call) -> None:
        if len(self._frames) == MAX_DEPTH:
            raise Forbidden(Fault.NESTING, most=MAX_DEPTH)
        self._frames.append(frame)

    # ------------------------------------------------------------------------------------------------ messages

    @property
    def layer(self) -> int | None:
        """The number of the running call in this step: programs call a function a layer. None: in the main function."""
        return self._calls - 1 if any(isinstance(frame, _Call) for frame in self._frames) else None

    def _current(self) -> tuple[int, int | None]:
        return self._index, self.layer


def _decoded(index: int, item: Instruction) -> tuple[Handler, bool, Mapping[str, Any]]:
    """The meaning of an instruction, whether it is a control instruction, and its operands."""
    return HANDLERS[item.name], item.spec.group is Group.CTRL, operand_values(index, item)


HANDLERS.check()
