"""Modules that can be run and traced, at three levels: `lpu`, `isa`, compiled program."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
from xdsl.dialects.builtin import ModuleOp

from hyperdex_ir.dialects.isa_program import to_program
from hyperdex_ir.dialects.lpu import grid_of
from hyperdex_ir.dialects.module_facts import LMU_WORDS, ModuleFacts
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.lpu import LpuInterpreter
from hyperdex_ir.memory.collect import collect_layout
from hyperdex_ir.memory.map import plan_memory
from hyperdex_ir.runtime.device import InterpreterDevice, RingDevice
from hyperdex_ir.targets import load_target
from hyperdex_ir.verify.model import Parameters
from hyperdex_ir.verify.values import Run, Value, trace_lpu, trace_program

#: Tokens in flight and logit rows of an `isa` module for which they have not been chosen yet.
_ROWS = 16


class Level(Protocol):
    """A model at one level, which can be run. most: tokens of the largest step that returns logits of all its rows."""

    @property
    def most(self) -> int: ...

    def logits(self, runs: Sequence[Run]) -> np.ndarray:
        """Logits of the wanted rows of all runs, float32 [rows, vocab_size]. Raises any error of running them."""
        ...

    def trace(self, runs: Sequence[Run]) -> list[Value]:
        """The values of runs of at most `most` tokens."""
        ...


class LpuLevel:
    """An `lpu` module."""

    most = 1 << 30

    def __init__(self, module: ModuleOp, parameters: Parameters, max_length: int):
        self.module = module
        self._parameters, self._max_length = parameters, max_length

    def logits(self, runs: Sequence[Run]) -> np.ndarray:
        interpreter = LpuInterpreter(self.module, self._parameters, self._max_length)
        return np.concatenate([interpreter.forward(run.tokens, run.position, run.first_row) for run in runs])

    def trace(self, runs: Sequence[Run]) -> list[Value]:
        return trace_lpu(self.module, self._parameters, self._max_length, runs)


class DeviceLevel:
    """A program on a device, or on the devices of a ring."""

    def __init__(self, device: InterpreterDevice | RingDevice):
        self._device = device

    @property
    def most(self) -> int:
        return min(self._device.chunk, self._device.head_rows)

    def logits(self, runs: Sequence[Run]) -> np.ndarray:
        return np.concatenate([self._device.forward(run.tokens, run.position, run.first_row) for run in runs])

    def trace(self, runs: Sequence[Run]) -> list[Value]:
        return trace_program(self._device, runs)


class IsaLevel:
    """An `isa` module. lpu: the module that it was lowered from, which describes the contents of memory."""

    def __init__(self, module: ModuleOp, lpu: ModuleOp, parameters: Parameters, max_length: int):
        self.module, self.lpu = module, lpu
        self._parameters, self._max_length = parameters, max_length

    @cached_property
    def _level(self) -> DeviceLevel:
        chunk, head_rows = ModuleFacts(self.module).rows(_ROWS)
        layout = collect_layout(self.lpu)
        memory = plan_memory(layout, load_target(ModuleFacts(self.lpu).target), self._max_length)
        program = to_program(self.module, chunk=chunk, head_rows=head_rows)
        devices = range(grid_of(self.lpu))
        hbms = [Hbm.from_parameters(memory, layout, self._parameters, device) for device in devices]
        words = None if LMU_WORDS in self.module.attributes else _ENOUGH
        if len(hbms) > 1:
            return DeviceLevel(RingDevice.interpreting(program, hbms, memory, chunk, head_rows, words))
        return DeviceLevel(InterpreterDevice(program, hbms[0], memory, chunk, head_rows, words))

    @property
    def most(self) -> int:
        return self._level.most

    def logits(self, runs: Sequence[Run]) -> np.ndarray:
        return self._level.logits(runs)

    def trace(self, runs: Sequence[Run]) -> list[Value]:
        return self._level.trace(runs)


#: Words of LMU for buffers without addresses: as many as an address can reach.
_ENOUGH = 1 << 24


def is_isa(module: ModuleOp) -> bool:
    """Test for a module that holds machine instructions."""
    return any(op.name.startswith("isa.") for op in module.walk())
