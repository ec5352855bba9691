"""Matching functions that the fusing passes share."""

from __future__ import annotations

from collections.abc import Iterator

from xdsl.ir import SSAValue

from hyperdex_ir.dialects import lpu


def constant_value(value: SSAValue) -> float | None:
    """The number, when the value is an `lpu.constant`."""
    return value.owner.value.value.data if isinstance(value.owner, lpu.ConstantOp) else None


def is_activation(op: lpu.UnaryOp) -> bool:
    """Test that a linear can carry the operation as its activation."""
    return op.function.activation is not None


def either_order(op: lpu.BinaryOp) -> Iterator[tuple[SSAValue, SSAValue]]:
    """The operands in both orders. Only for operations whose result does not depend on the order."""
    yield op.lhs, op.rhs
    yield op.rhs, op.lhs


def without_reshape(value: SSAValue) -> SSAValue:
    """The value before any `lpu.reshape`."""
    while isinstance(value.owner, lpu.ReshapeOp):
        value = value.owner.x
    return value
