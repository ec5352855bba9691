"""What the fusing passes look for in common."""

from __future__ import annotations

from collections.abc import Iterator

from xdsl.ir import Operation, SSAValue

from hyperdex_ir.dialects import lpu

#: Operations that a linear can carry as its activation.
ACTIVATION_NAMES: dict[type[Operation], str] = {
    lpu.ReluOp: "relu",
    lpu.SiluOp: "silu",
    lpu.GeluOp: "gelu",
    lpu.GeluTanhOp: "gelu_tanh",
    lpu.SigmoidOp: "sigmoid",
    lpu.TanhOp: "tanh",
}


def constant_value(value: SSAValue) -> float | None:
    """The number, when the value is an `lpu.constant`."""
    return value.owner.value.value.data if isinstance(value.owner, lpu.ConstantOp) else None


def either_order(op: lpu.BinaryOp) -> Iterator[tuple[SSAValue, SSAValue]]:
    """The operands in both orders. Only for operations whose result does not depend on it."""
    yield op.lhs, op.rhs
    yield op.rhs, op.lhs


def without_reshape(value: SSAValue) -> SSAValue:
    """The value before any `lpu.reshape`."""
    while isinstance(value.owner, lpu.ReshapeOp):
        value = value.owner.x
    return value
