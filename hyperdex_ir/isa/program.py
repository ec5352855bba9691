"""A program: decoded instructions in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hyperdex_ir.isa.instructions import BY_NAME, Spec
from hyperdex_ir.isa.operands import Value


@dataclass(frozen=True)
class Instruction:
    """One instruction with the value of each operand, by operand name."""

    name: str
    values: Mapping[str, Value] = field(default_factory=dict)

    @property
    def spec(self) -> Spec:
        return BY_NAME[self.name]

    def __getitem__(self, operand: str) -> Value:
        return self.values[operand]


@dataclass(frozen=True)
class Origin:
    """Origin of an instruction: the `isa` function, the module path (`*` for the layer number) and the IR op."""

    function: str
    module_path: str
    operation: str


@dataclass(frozen=True)
class Program:
    """Instructions, the entry first. `origins` has one item for each instruction, or is empty when the origins are
    unknown."""

    instructions: tuple[Instruction, ...]
    origins: tuple[Origin, ...] = ()
