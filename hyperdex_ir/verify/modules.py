"""The values of a compiled program by module path, if they are values of one of the model's modules."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hyperdex_ir.isa.fields import default_value
from hyperdex_ir.isa.instructions import BY_NAME
from hyperdex_ir.isa.operands import Hbm
from hyperdex_ir.runtime.device import InterpreterDevice
from hyperdex_ir.verify.recorder import Executed, record


@dataclass(frozen=True, eq=False)
class ModuleValue:
    """Rows that were computed last by instructions of the module `path`.

    of: the module of the model that has these rows as input, or the modules that have them, side by side, as outputs.
    rows: positions of their tokens. values: float32 [rows, columns].
    """

    path: str
    of: tuple[str, ...]
    is_input: bool
    rows: np.ndarray
    values: np.ndarray


def run_program(device: InterpreterDevice, tokens: Sequence[int], modules: Collection[str]) -> list[ModuleValue]:
    """Runs the tokens in two steps or more, so that the second reads the KV cache of the first.

    Returns the values of all steps, in program order within each.
    modules: paths of the model's innermost modules. Raises MachineFault when the program does a forbidden operation.
    """
    machine, values = device.machine, []
    merged = {address: name for name, address in device.map.addresses.items() if "+" in name}
    size = min(device.chunk, (len(tokens) + 1) // 2)
    for start in range(0, len(tokens), size):
        part = list(tokens[start : start + size])
        first_row = max(0, len(part) - device.head_rows)
        executed: list[Executed] = []
        with record(machine, executed.append):
            machine.run(part, start, first_row)
        positions = start + np.arange(len(part))
        values.extend(_Step([_named(one, merged) for one in executed], positions, modules).values())
    return values


def _named(executed: Executed, merged: Mapping[int, str]) -> _Named:
    """An executed instruction with the modules that it computes: several when their matrices are merged."""
    name = None if executed.weight is None else merged.get(executed.weight)
    if name is None:
        return _Named(executed, executed.path, (executed.path,))
    modules = tuple(key.rpartition(".")[0] for key in name.split("+"))
    parents = {module.rpartition(".")[0] for module in modules}
    last = "+".join(module.rpartition(".")[2] for module in modules)
    return _Named(executed, f"{parents.pop()}.{last}" if len(parents) == 1 else "+".join(modules), modules)


@dataclass(frozen=True, eq=False)
class _Named:
    """An executed instruction, its module path, and the modules that it computes."""

    executed: Executed
    path: str
    modules: tuple[str, ...]


class _Step:
    """The executed instructions of one step, grouped by module."""

    def __init__(self, executed: Sequence[_Named], positions: np.ndarray, modules: Collection[str]):
        self._executed, self._positions = executed, positions
        self._of: dict[str, list[_Named]] = {}
        for named in executed:
            if all(module in modules for module in named.modules):
                self._of.setdefault(named.path, []).append(named)

    def values(self) -> list[ModuleValue]:
        found: list[tuple[int, ModuleValue]] = []
        for group in self._of.values():
            last = group[-1]
            if self._is_output(last):
                found.append((last.executed.number, self._value(last, last.modules, False, last.executed.result)))
            found.extend(self._inputs(group[0]))
        found.sort(key=lambda entry: entry[0])
        return [value for _, value in found]

    def _is_output(self, named: _Named) -> bool:
        """Test for the last instruction of a module, if it computes that module's output and no more."""
        executed = named.executed
        if executed.result is None or named is not self._of.get(named.path, [None])[-1]:
            return False
        return all(
            executed.operands[operand.name] == default_value(operand)
            for operand in BY_NAME[executed.name].operands
            if operand.epilogue and not isinstance(operand, Hbm)  # a bias is the module's own
        )

    def _inputs(self, named: _Named) -> list[tuple[int, ModuleValue]]:
        """Input of the first instruction of a module.

        There is none when the input is the output of another module, or only a part because the instruction runs once
        for each row.
        """
        if sum(other.executed.index == named.executed.index for other in self._of[named.path]) > 1:
            return []
        maker, of = self._maker(named), named.modules[:1]
        if maker is None or self._is_output(maker):
            return []
        found = [(maker.executed.number, self._value(maker, of, True, named.executed.input))]
        if maker.executed.name == "select_rows" and (whole := self._maker(maker)) is not None:
            found.append((whole.executed.number, self._value(whole, of, True, maker.executed.input)))
        return found

    def _maker(self, named: _Named) -> _Named | None:
        """The instruction that wrote the last part of this one's input."""
        made_by = [number for number in named.executed.input_sources if number >= 0]
        return self._executed[max(made_by) - self._executed[0].executed.number] if made_by else None

    def _value(self, named: _Named, of: tuple[str, ...], is_input: bool, values: np.ndarray | None) -> ModuleValue:
        assert values is not None  # callers give only instructions with a result or an input
        return ModuleValue(named.path, of, is_input, self._positions[-len(values) :], values)
