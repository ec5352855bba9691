"""Activations without a function of the machine, composed of functions that it has."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node
from xdsl.ir import SSAValue

from hyperdex_ir.dialects import lpu
from hyperdex_ir.frontend.graph import arguments, shape_of_node, tensor_of
from hyperdex_ir.frontend.handlers.builder import Builder, Value
from hyperdex_ir.frontend.handlers.registry import handles

aten = torch.ops.aten

#: From here on softplus(x) is x, and tanh(softplus(x)) is 1, in float32.
_MISH_MOST = 20.0
#: artanh(s) = s + s * z * (1/3 + z/5 + ...), z = s * s, to float32 precision for s up to 1/3.
_ARTANH = tuple(1 / power for power in range(17, 1, -2))
#: Multiplying by this twice lifts the smallest float32 to 1.
_LIFT = 2.0**75


# ---------------------------------------------------------------------------------------------------- bounds
def _bounds(node: Node) -> tuple[Any, Any]:
    if node.target is aten.relu6.default:
        return 0.0, 6.0
    given = arguments(node)
    names = ("min_val", "max_val") if node.target is aten.hardtanh.default else ("min", "max")
    return given[names[0]], given[names[1]]


def _check_bounds(node: Node) -> str | None:
    low, high = _bounds(node)
    return None if low is None or high is None or low <= high else f"bounds {low} and {high}"


@handles(aten.clamp.default, aten.clip.default, aten.hardtanh.default, aten.relu6.default, check=_check_bounds)
def _clamp(builder: Builder, node: Node) -> Value:
    low, high = _bounds(node)
    return _between(builder, builder.tensor(arguments(node)["self"]), low, high)


@handles(aten.clamp_min.default)
def _clamp_min(builder: Builder, node: Node) -> Value:
    given = arguments(node)
    return _between(builder, builder.tensor(given["self"]), given["min"], None)


def _between(builder: Builder, x: SSAValue, low: float | None, high: float | None) -> SSAValue:
    """min(max(x, low), high)"""
    if low is not None:
        x = builder.emit(lpu.MaxOp(x, builder.constant(float(low))))
    if high is not None:
        x = builder.emit(lpu.MinOp(x, builder.constant(float(high))))
    return x


# ---------------------------------------------------------------------------------------------------- pieces
def _positive(builder: Builder, x: SSAValue) -> SSAValue:
    return builder.emit(lpu.MaxOp(x, builder.constant(0.0)))


def _magnitude(builder: Builder, x: SSAValue) -> SSAValue:
    return builder.emit(lpu.MaxOp(x, builder.emit(lpu.NegOp(x))))


def _value(builder: Builder, given: SSAValue | float) -> SSAValue:
    return given if isinstance(given, SSAValue) else builder.constant(given)


def _add(builder: Builder, x: SSAValue, y: SSAValue | float) -> SSAValue:
    return builder.emit(lpu.AddOp(x, _value(builder, y)))


def _times(builder: Builder, x: SSAValue, y: SSAValue | float) -> SSAValue:
    return builder.emit(lpu.MulOp(x, _value(builder, y)))


@handles(aten.hardswish.default)
def _hardswish(builder: Builder, node: Node) -> Value:
    """(x * min(max(x + 3, 0), 6)) / 6"""
    x = builder.tensor(arguments(node)["self"])
    ramp = _between(builder, _add(builder, x, 3.0), 0.0, 6.0)
    return builder.emit(lpu.DivOp(_times(builder, x, ramp), builder.constant(6.0)))


def _check_slope(node: Node) -> str | None:
    slope = arguments(node)["negative_slope"]
    return None if 0 <= slope <= 1 else f"negative_slope={slope}, supported is 0 to 1"


@handles(aten.leaky_relu.default, check=_check_slope)
def _leaky_relu(builder: Builder, node: Node) -> Value:
    """max(x, slope * x)"""
    given = arguments(node)
    x = builder.tensor(given["self"])
    return builder.emit(lpu.MaxOp(x, _times(builder, x, float(given["negative_slope"]))))


def _check_prelu(node: Node) -> str | None:
    shape = shape_of_node(arguments(node)["weight"])
    return None if shape in ((), (1,)) else f"{shape} slopes, supported is one"


@handles(aten.prelu.default, check=_check_prelu)
def _prelu(builder: Builder, node: Node) -> Value:
    """max(x, 0) + slope * min(x, 0)"""
    given = arguments(node)
    x = builder.tensor(given["self"])
    negative = builder.emit(lpu.MinOp(x, builder.constant(0.0)))
    return _add(builder, _positive(builder, x), _times(builder, negative, builder.tensor(given["weight"])))


@handles(aten.mish.default)
def _mish(builder: Builder, node: Node) -> Value:
    """x * (w / (w + 2)), w = e * (e + 2), e = exp(x): tanh(log(1 + e)), without a logarithm."""
    x = builder.tensor(arguments(node)["self"])
    e = builder.emit(lpu.ExpOp(_between(builder, x, None, _MISH_MOST)))
    w = _times(builder, e, _add(builder, e, 2.0))
    return _times(builder, x, builder.emit(lpu.DivOp(w, _add(builder, w, 2.0))))


def _check_softplus(node: Node) -> str | None:
    given = arguments(node)
    usual = given["beta"] == 1 and given["threshold"] == 20
    return None if usual else f"beta={given['beta']}, threshold={given['threshold']}"


@handles(aten.softplus.default, check=_check_softplus)
def _softplus(builder: Builder, node: Node) -> Value:
    """max(x, 0) + 2 * artanh(t / (2 + t)), t = exp(-|x|)"""
    x = builder.tensor(arguments(node)["self"])
    t = builder.emit(lpu.ExpOp(builder.emit(lpu.NegOp(_magnitude(builder, x)))))
    s = builder.emit(lpu.DivOp(t, _add(builder, t, 2.0)))
    z = _times(builder, s, s)
    series = _times(builder, z, _ARTANH[0])
    for coefficient in _ARTANH[1:]:
        series = _times(builder, z, _add(builder, series, coefficient))
    half = _add(builder, s, _times(builder, s, series))
    return _add(builder, _positive(builder, x), _add(builder, half, half))


@handles(aten.expm1.default)
def _expm1(builder: Builder, node: Node) -> Value:
    """((t + t) / (1 + |t|)) * exp(max(x, 0)), t = tanh(x / 2): no difference of nearly equal numbers."""
    x = builder.tensor(arguments(node)["self"])
    t = builder.emit(lpu.TanhOp(_times(builder, x, 0.5)))
    shrunk = builder.emit(lpu.DivOp(_add(builder, t, t), _add(builder, _magnitude(builder, t), 1.0)))
    return _times(builder, shrunk, builder.emit(lpu.ExpOp(_positive(builder, x))))


# ---------------------------------------------------------------------------------------------------- choosing
def _check_greater(node: Node) -> str | None:
    given = arguments(node)
    if any(user.target is not aten.where.self for user in node.users):
        return "a comparison for something else than a choice"
    return None if isinstance(given["other"], int | float) else "a comparison of two tensors"


@handles(aten.gt.Scalar, check=_check_greater, integers=True)
def _greater(builder: Builder, node: Node) -> Value:
    """1 where x > bound, else 0."""
    given = arguments(node)
    x, bound = builder.tensor(given["self"]), float(given["other"])
    difference = x if bound == 0 else _add(builder, x, -bound)
    step = _positive(builder, difference)
    for _ in range(2):
        step = _between(builder, _times(builder, step, _LIFT), None, 1.0)
    return step


def _check_where(node: Node) -> str | None:
    given = arguments(node)
    tensors = [tensor_of(given[name]) for name in ("self", "other")]
    if any(tensor is None or tensor.dtype != torch.float32 for tensor in tensors):
        return "a choice of other numbers than float32"
    return None if given["condition"].target is aten.gt.Scalar else "a choice by something else than x > number"


@handles(aten.where.self, check=_check_where, integers=True)
def _where(builder: Builder, node: Node) -> Value:
    """step * a + (1 - step) * b; one of the products is zero."""
    given = arguments(node)
    step = builder.tensor(given["condition"])
    other = builder.emit(lpu.SubOp(builder.constant(1.0), step))
    chosen = _times(builder, builder.tensor(given["self"]), step)
    return _add(builder, chosen, _times(builder, builder.tensor(given["other"]), other))
