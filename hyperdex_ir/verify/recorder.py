"""Recorder of a machine: the values that each instruction read and wrote, and the instructions that made them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from hyperdex_ir.interpreter.lmu import Lmu
from hyperdex_ir.interpreter.machine import Machine
from hyperdex_ir.isa.operands import HbmRef
from hyperdex_ir.isa.program import Origin


@dataclass(frozen=True, eq=False)
class Executed:
    """One executed instruction, control instructions aside.

    number: of instructions executed before it. layer: the number of the running layer, None in the main function.
    operands: by name. path, operation: its module path, and the IR operation that it came from.
    input: its first operand in the LMU, float32 [rows, columns], None when it has none. result: the values that it
    wrote to the LMU, float32 [rows, columns]; None for scores and probabilities, and when it wrote nothing. weight:
    byte address of its weight in HBM. sources: numbers of the executed instructions that made the values it read.
    input_sources: numbers of those that made its input.
    """

    number: int
    index: int
    name: str
    layer: int | None
    operands: Mapping[str, Any]
    path: str
    operation: str
    input: np.ndarray | None
    result: np.ndarray | None
    weight: int | None
    sources: tuple[int, ...]
    input_sources: tuple[int, ...]


class _WatchedLmu(Lmu):
    """LMU that records for each word the executed instruction that wrote it last."""

    def __init__(self, size: int):
        super().__init__(size)
        self.number = 0  # of the running instruction
        self.input: np.ndarray | None = None
        self.sources: set[int] = set()
        self.input_sources: set[int] = set()
        self._writers = np.full(size, -1, np.int32)

    def begin(self, number: int) -> None:
        self.number, self.input = number, None
        self.sources, self.input_sources = set(), set()

    def read(
        self, start: int, shape: tuple[int, ...], strides: tuple[int, ...], used: np.ndarray | None = None
    ) -> np.ndarray:
        data = super().read(start, shape, strides, used)
        writers = self._writers_of(start, shape, strides)
        made_by = np.unique(writers if used is None else writers[used]).tolist()
        self.sources.update(made_by)
        if self.input is None:
            self.input = data.copy()
            self.input_sources.update(made_by)
        return data

    def word(self, address: int) -> float:
        """A word for a control instruction: a source of the next recorded instruction, but not its input."""
        value = super().word(address)
        self.sources.add(int(self._writers[address]))
        return value

    def write(self, start: int, strides: tuple[int, ...], data: np.ndarray, used: np.ndarray | None = None) -> None:
        super().write(start, strides, data, used)
        writers = self._writers_of(start, data.shape, strides)
        writers[... if used is None else used] = self.number

    def _writers_of(self, start: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
        item = self._writers.itemsize
        return np.ndarray(shape, np.int32, self._writers.data, start * item, tuple(item * s for s in strides))


class _Recorder:
    def __init__(self, machine: Machine, lmu: _WatchedLmu, on_instruction: Callable[[Executed], None]):
        self._machine, self._lmu, self._on_instruction = machine, lmu, on_instruction
        self._stores: list[tuple[range, int]] = []  # bytes of the KV cache, and the instruction that wrote them last

    def __call__(self, index: int, operands: Mapping[str, Any]) -> None:
        machine, lmu = self._machine, self._lmu
        spec = machine.program.instructions[index].spec
        name = spec.name
        sources = lmu.sources | self._cache_sources(spec.stores, operands)
        origin = machine.program.origins[index] if machine.program.origins else Origin("", "", name)
        layer, weight = machine.layer, operands.get("weight")
        executed = Executed(
            number=lmu.number,
            index=index,
            name=name,
            layer=layer,
            operands=operands,
            path=origin.module_path if layer is None else origin.module_path.replace("*", str(layer)),
            operation=origin.operation,
            input=None if lmu.input is None else _flat(lmu.input),
            result=None if machine.state.result is None else _flat(machine.state.result),
            weight=machine.state.address(weight) if isinstance(weight, HbmRef) else None,
            sources=tuple(sorted(sources)),
            input_sources=tuple(sorted(lmu.input_sources)),
        )
        self._on_instruction(executed)
        lmu.begin(lmu.number + 1)

    def _cache_sources(self, stores: bool, operands: Mapping[str, Any]) -> set[int]:
        """Sources of an instruction through the KV cache in HBM; a store is recorded."""
        cache = operands.get("cache")
        if not isinstance(cache, HbmRef):
            return set()
        address = self._machine.state.address(cache)
        if stores:
            stored = range(address, address + operands["heads"] * operands["pitch"])
            self._stores = [entry for entry in self._stores if entry[0] != stored]
            self._stores.append((stored, self._lmu.number))
            return set()
        return {number for stored, number in self._stores if address in stored}


def _flat(data: np.ndarray) -> np.ndarray:
    """A copy, float32 [rows, columns]."""
    return np.array(data, np.float32).reshape(len(data), -1)


@contextmanager
def record(machine: Machine, on_instruction: Callable[[Executed], None]) -> Iterator[None]:
    """Context in which `on_instruction` is called for every instruction that the machine executes, except control."""
    state = machine.state
    lmu, watched = state.lmu, _WatchedLmu(state.lmu.size)
    state.lmu, machine.on_instruction = watched, _Recorder(machine, watched, on_instruction)
    try:
        yield
    finally:
        state.lmu, machine.on_instruction = lmu, None
