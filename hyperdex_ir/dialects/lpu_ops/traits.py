"""Facts about operations of the `lpu` dialect that several passes ask for.

`has_trait(op, RowWise)` tests for a trait; an interface is a base class with further methods. Tests check that
operations have the traits that they declare.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TypeGuard

from xdsl.dialects.builtin import I64, IntegerAttr
from xdsl.ir import Block, Operation, SSAValue
from xdsl.irdl import prop_def, result_def, traits_def
from xdsl.traits import EffectInstance, MemoryEffect, MemoryEffectKind, OpTrait

from hyperdex_ir.dialects.lpu_ops.base import TENSOR, LpuOp


# ---------------------------------------------------------------------------------------------------- traits
@dataclass(frozen=True)
class RowWise(OpTrait):
    """A token's row of a result follows from its rows of the operands, and from operands without tokens."""


@dataclass(frozen=True)
class Elementwise(RowWise):
    """An element of the result follows from the elements at its place in the operands, broadcast to its shape."""


@dataclass(frozen=True)
class MovesData(OpTrait):
    """The result's elements are elements of the operands, the same on every device."""


@dataclass(frozen=True)
class IsView(MovesData):
    """The result is a view of the operand's elements with other strides."""


@dataclass(frozen=True)
class Source(OpTrait):
    """A parameter or a constant: takes no operands."""


def has_trait(op: Operation | Block, trait: type[OpTrait]) -> TypeGuard[LpuOp]:
    """Test that an operation of the dialect has a trait; False for operations of other dialects, of which nothing is
    known."""
    return isinstance(op, LpuOp) and op.has_trait(trait)


# ---------------------------------------------------------------------------------------------------- interfaces
class KeepsZeros(LpuOp, ABC):
    """An operation that can give zeros where parameters are zeros."""

    def zeros_from(self) -> tuple[SSAValue, ...] | None:
        """The operands that must be zeros, besides parameters, for the result to be zeros; None: that is not enough."""
        return ()


class HoldsParameter(LpuOp, ABC):
    """A source whose value lies in memory."""

    res = result_def(TENSOR)

    @property
    @abstractmethod
    def key_names(self) -> tuple[str, ...]:
        """The keys of the tensors that the value is made of; `*` stands for the number of the layer."""


class HoldsTable(LpuOp, ABC):
    """An operation that looks up whole numbers, which it carries and which lie in memory."""

    @property
    @abstractmethod
    def table(self) -> tuple[str, tuple[int, ...]] | None:
        """The key and the numbers; None: this one has no table."""


@dataclass(frozen=True)
class _State(MemoryEffect):
    """Memory effect of an operation that reads state of earlier steps and leaves state: it is neither dead nor merged
    with an equal one, and stays in order."""

    @classmethod
    def get_effects(cls, op: Operation) -> set[EffectInstance]:
        return {EffectInstance(MemoryEffectKind.READ), EffectInstance(MemoryEffectKind.WRITE)}


class StatefulOp(LpuOp, ABC):
    """An operation that keeps state from step to step, in a slot of its own.

    slot: absolute in a flat function, relative to the running layer in an outlined one.
    """

    slot = prop_def(IntegerAttr[I64])
    traits = traits_def(_State())

    @property
    def depends_on_device(self) -> bool:
        return True
