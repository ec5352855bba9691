"""Elementwise operators and reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node
from xdsl.ir import SSAValue

from hyperdex_ir.dialects import lpu
from hyperdex_ir.frontend.graph import arguments, dimension, is_float, shape_of_node, tensor_of
from hyperdex_ir.frontend.handlers.builder import Builder, Index, Value
from hyperdex_ir.frontend.handlers.registry import handles

aten = torch.ops.aten

_BINARY: dict[type[lpu.BinaryOp], tuple[Any, ...]] = {
    lpu.MulOp: (aten.mul.Tensor, aten.mul.Scalar),
    lpu.DivOp: (aten.div.Tensor, aten.div.Scalar),
    lpu.MaxOp: (aten.maximum.default, aten.max.other),
    lpu.MinOp: (aten.minimum.default, aten.min.other),
}
#: torch's one operator covers both.
_GELUS = (lpu.GeluOp, lpu.GeluTanhOp)


def _is_operand(given: Any) -> bool:
    return is_float(given) if isinstance(given, Node) else isinstance(given, int | float)


def check_operands(node: Node) -> str | None:
    """Checks that both operands are float32 tensors or plain numbers."""
    given = arguments(node)
    if not (_is_operand(given["self"]) and _is_operand(given["other"])):
        return "an operand that depends on the number of tokens, or is not float32"
    return None


def _check_sum(node: Node) -> str | None:
    given = arguments(node)
    if given["alpha"] != 1:
        return f"alpha={given['alpha']}"
    tensor = tensor_of(node)
    if tensor is not None and tensor.dtype == torch.int64:
        return None if isinstance(given["other"], int) else "integer arithmetic other than adding a number"
    return check_operands(node)


def _binary(op: type[lpu.BinaryOp]) -> Callable[[Builder, Node], Value]:
    def build(builder: Builder, node: Node) -> Value:
        given = arguments(node)
        return builder.emit(op(builder.operand(given["self"]), builder.operand(given["other"])))

    return build


def _unary(op: type[lpu.UnaryOp]) -> Callable[[Builder, Node], Value]:
    def build(builder: Builder, node: Node) -> Value:
        return builder.emit(op(builder.tensor(arguments(node)["self"])))

    return build


for _op, _targets in _BINARY.items():
    handles(*_targets, check=check_operands)(_binary(_op))
for _op in lpu.OPERATIONS:
    if issubclass(_op, lpu.UnaryOp) and _op not in _GELUS:
        handles(getattr(aten, _op.mnemonic()).default)(_unary(_op))


@handles(aten.add.Tensor, aten.add.Scalar, check=_check_sum, integers=True)
def _add(builder: Builder, node: Node) -> Value:
    given = arguments(node)
    value = builder.value(given["self"])
    if isinstance(value, Index):
        return value.shifted(given["other"])
    return _binary(lpu.AddOp)(builder, node)


@handles(aten.sub.Tensor, aten.sub.Scalar, check=_check_sum, integers=True)
def _sub(builder: Builder, node: Node) -> Value:
    given = arguments(node)
    value = builder.value(given["self"])
    if isinstance(value, Index):
        return value.shifted(-given["other"])
    return _binary(lpu.SubOp)(builder, node)


def _check_reverse(node: Node) -> str | None:
    alpha = arguments(node)["alpha"]
    return check_operands(node) if alpha == 1 else f"alpha={alpha}"


@handles(aten.rsub.Scalar, aten.rsub.Tensor, check=_check_reverse)
def _rsub(builder: Builder, node: Node) -> Value:
    given = arguments(node)
    return builder.emit(lpu.SubOp(builder.operand(given["other"]), builder.operand(given["self"])))


@handles(aten.reciprocal.default)
def _reciprocal(builder: Builder, node: Node) -> Value:
    x = builder.tensor(arguments(node)["self"])
    return builder.emit(lpu.DivOp(builder.constant(1.0), x))


def _check_power(node: Node) -> str | None:
    exponent = arguments(node)["exponent"]
    return None if exponent in (2, 3) else f"exponent {exponent}, supported are 2 and 3"


@handles(aten.pow.Tensor_Scalar, check=_check_power)
def _pow(builder: Builder, node: Node) -> Value:
    given = arguments(node)
    x = builder.tensor(given["self"])
    square = builder.emit(lpu.MulOp(x, x))
    return square if given["exponent"] == 2 else builder.emit(lpu.MulOp(square, x))


@handles(aten.square.default)
def _square(builder: Builder, node: Node) -> Value:
    x = builder.tensor(arguments(node)["self"])
    return builder.emit(lpu.MulOp(x, x))


def _check_gelu(node: Node) -> str | None:
    kind = arguments(node)["approximate"]
    return None if kind in ("none", "tanh") else f"approximate={kind}"


@handles(aten.gelu.default, check=_check_gelu)
def _gelu(builder: Builder, node: Node) -> Value:
    given = arguments(node)
    op = lpu.GeluTanhOp if given["approximate"] == "tanh" else lpu.GeluOp
    return builder.emit(op(builder.tensor(given["self"])))


def _check_reduction(node: Node) -> str | None:
    given = arguments(node)
    shape = shape_of_node(given["self"])
    if shape is None:
        return "a shape that is computed from the number of tokens"
    dims = given["dim"]
    if dims is None or [dimension(d, len(shape)) for d in dims] != [len(shape) - 1] or shape[-1] < 0:
        return f"dimensions {dims}, supported is the last one"
    return None if given["dtype"] in (None, torch.float32) else f"dtype={given['dtype']}"


def _reduce(op: type[lpu.ReduceOp]) -> Callable[[Builder, Node], Value]:
    def build(builder: Builder, node: Node) -> Value:
        reduced: SSAValue = builder.emit(op(builder.tensor(arguments(node)["self"])))
        return builder.reshape(reduced, builder.shape(node))

    return build


handles(aten.mean.dim, check=_check_reduction)(_reduce(lpu.MeanOp))
handles(aten.sum.dim_IntList, check=_check_reduction)(_reduce(lpu.SumOp))
