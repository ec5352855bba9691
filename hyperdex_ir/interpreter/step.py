"""Steps, runs of a program over some tokens: the protocol of executors, and the base class of their machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from hyperdex_ir.errors import MachineFault
from hyperdex_ir.isa.faults import Fault, place_of
from hyperdex_ir.isa.instructions import DEVICE, FIRST_ROW, HEAD_ROWS, POSITION, TOKENS
from hyperdex_ir.isa.program import Instruction, Origin, Program

#: Instructions that one step may execute, against programs that do not end.
BUDGET = 20_000_000


@dataclass(frozen=True)
class NumericFault:
    """The first instruction whose result held a NaN or an infinity.

    chunk: number of the step since `clear`; layer: number of the call in the step, None in the main function;
    step: instructions executed before it in the step; device: which one it is on.
    """

    chunk: int
    layer: int | None
    index: int
    name: str
    module_path: str
    step: int = field(default=0, compare=False)
    device: int = 0

    @property
    def order(self) -> tuple[int, int, int]:
        """Order of the faults of several devices: the least one counts."""
        return self.chunk, self.step, self.device


#: Reason why a step stopped: it is over, or it waits for a message.
Stop = Literal["halt", "receive"]


class StepRunner(Protocol):
    """Runner of whole steps: a single machine, or several that run together."""

    @property
    def registers(self) -> list[int | None]: ...
    @property
    def fault(self) -> NumericFault | None: ...
    def clear(self) -> None: ...
    def run(self, tokens: Sequence[int], position: int, first_row: int) -> None: ...
    def read_hbm(self, address: int, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray: ...
    def write_hbm(self, address: int, data: np.ndarray) -> None: ...


class StepMachine(StepRunner, Protocol):
    """A machine that can be stopped where it waits for a message; see `interpreter.machine.Machine`."""

    @property
    def executed(self) -> int: ...
    def start(self, tokens: Sequence[int], position: int, first_row: int) -> None: ...
    def resume(self) -> Stop: ...
    def stop(self) -> None: ...


class MachineBase:
    """Base of the machines of all executors. chunk: most tokens of a step; device: the machine's number on the ring."""

    def __init__(self, program: Program, chunk: int, device: int, origins: Sequence[Origin]):
        self.program, self.chunk, self.device = program, chunk, device
        self._origins = tuple(origins) or program.origins

    def start(self, tokens: Sequence[int], position: int, first_row: int) -> None:
        raise NotImplementedError

    def resume(self) -> Stop:
        raise NotImplementedError

    def _current(self) -> tuple[int, int | None]:
        """The running instruction, and the layer that it is in."""
        raise NotImplementedError

    def run(self, tokens: Sequence[int], position: int, first_row: int) -> None:
        """Runs one step over `tokens`, the first of them at `position`, up to the halt, on a single device.

        Raises what `start` and `resume` raise, and MachineFault when the step waits for a message.
        """
        self.start(tokens, position, first_row)
        if self.resume() != "halt":
            raise self._fault(Fault.NO_SENDER.text())

    def _given(self, tokens: Sequence[int], position: int, first_row: int) -> dict[int, int]:
        """The registers that the host sets before a step. Raises MachineFault for arguments that the machine forbids
        the host."""
        count = len(tokens)
        if not 1 <= count <= self.chunk:
            raise MachineFault(Fault.TOKENS.text(tokens=count, chunk=self.chunk))
        if not 0 <= first_row < count:
            raise MachineFault(Fault.FIRST_ROW.text(row=first_row, tokens=count))
        rows = {TOKENS: count, FIRST_ROW: first_row, HEAD_ROWS: count - first_row}
        return {**rows, POSITION: position, DEVICE: self.device}

    def _fault(self, text: str) -> MachineFault:
        """The fault of the running instruction."""
        index, layer = self._current()
        known = 0 <= index < len(self.program.instructions)
        name, path = self._names(index, layer) if known else ("none", "")
        return MachineFault(f"{place_of(index, name, path)}: {text}")

    def _numeric_fault(self, chunk: int, layer: int | None, index: int, step: int) -> NumericFault:
        return NumericFault(chunk, layer, index, *self._names(index, layer), step, self.device)

    def _names(self, index: int, layer: int | None) -> tuple[str, str]:
        """The name and the module path of an instruction."""
        path = self._origins[index].module_path if index < len(self._origins) else ""
        return self.program.instructions[index].name, path if layer is None else path.replace("*", str(layer))


def operand_values(index: int, item: Instruction) -> Mapping[str, Any]:
    """An instruction's operands with the defaults filled in. Raises MachineFault for a missing operand, or one that the
    instruction does not have."""
    spec = item.spec
    names = [operand.name for operand in spec.operands]
    unknown = [name for name in item.values if name not in names]
    if unknown:
        raise MachineFault(f"{place_of(index, item.name)}: {Fault.OPERAND_UNKNOWN.text(operand=unknown[0])}")
    result: dict[str, Any] = {}
    for operand in spec.operands:
        value = item.values.get(operand.name)
        value = getattr(operand, "default", None) if value is None else value
        if value is None and not operand.optional:
            raise MachineFault(f"{place_of(index, item.name)}: {Fault.OPERAND_MISSING.text(operand=operand.name)}")
        result[operand.name] = value
    return result
