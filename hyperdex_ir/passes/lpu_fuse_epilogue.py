"""`lpu-fuse-epilogue`: fusion of a matrix with the vector operations behind it.

A linear can carry, in this order: bias, scale, softcap, activation, times (a gated product), plus (a residual). Each is
the operation it replaces, rounded alike, so no bit changes. The fused linear takes the place of the last of the fused
operations, where every operand is defined. Division by a power of two is a scale: both round the same number. The rows
of an embedding can carry a scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import frexp
from typing import Any, ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from hyperdex_ir.dialects import lpu
from hyperdex_ir.dialects.lpu import shape_of
from hyperdex_ir.isa.fields import f32_value
from hyperdex_ir.passes.matching import constant_value, either_order, is_activation
from hyperdex_ir.support.xdsl import apply_patterns, replace_with

#: The constants of gelu_tanh, sqrt(2 / pi) and 0.044715 as float32.
_GELU_SCALE, _GELU_CUBE = f32_value(0x3F4C422A), f32_value(0x3D372713)

#: Stages that a linear can carry, in the order in which they are applied.
_STAGES = ("bias", "scale", "softcap", "activation", "gated", "times", "plus")


def _open_linear(value: SSAValue, stage: str) -> lpu.LinearOp | None:
    """The linear whose result is the value, if the value has one user and the linear carries nothing at or behind this
    stage."""
    linear = value.owner
    if not isinstance(linear, lpu.LinearOp) or not value.has_one_use():
        return None
    taken = _STAGES[_STAGES.index(stage) :]
    return None if any(getattr(linear, name) is not None for name in taken) else linear


def _extended(linear: lpu.LinearOp, **more: Any) -> lpu.LinearOp:
    """The linear with one more stage."""
    parts: dict[str, Any] = {
        "bias": linear.bias,
        "scale": None if linear.scale is None else linear.scale.value.data,
        "softcap": None if linear.softcap is None else linear.softcap.value.data,
        "activation": None if linear.activation is None else linear.activation.data,
        "gated": linear.gated is not None,
        "times": linear.times,
        "plus": linear.plus,
    }
    return lpu.LinearOp(linear.x, linear.weight, **(parts | more))


def _fuse(rewriter: PatternRewriter, op: Any, linear: lpu.LinearOp, **more: Any) -> None:
    replace_with(rewriter, op, _extended(linear, **more), linear)
    rewriter.erase(linear)


class FuseSum(RewritePattern):
    """linear + bias, linear + residual"""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: lpu.AddOp, rewriter: PatternRewriter, /) -> None:
        for value, other in either_order(op):
            if value.type != op.res.type:  # one number for all columns
                continue
            is_bias = isinstance(other.owner, lpu.WeightOp) and shape_of(other) == shape_of(op.res)[-1:]
            stage = "bias" if is_bias else "plus"
            if not is_bias and other.type != op.res.type:
                continue
            if (linear := _open_linear(value, stage)) is not None:
                _fuse(rewriter, op, linear, **{stage: other})
                return


class FuseProduct(RewritePattern):
    """linear * constant, linear * gate, and the last step of softcap: tanh(linear / cap) * cap"""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: lpu.MulOp, rewriter: PatternRewriter, /) -> None:
        for value, other in either_order(op):
            constant = constant_value(other)
            if constant is not None:
                self._fuse_constant(op, value, constant, rewriter)
            elif value.type == other.type == op.res.type and (linear := _open_linear(value, "times")) is not None:
                _fuse(rewriter, op, linear, times=other)
            if op.parent is None:
                return

    def _fuse_constant(self, op: lpu.MulOp, value: SSAValue, constant: float, rewriter: PatternRewriter) -> None:
        if (linear := _open_linear(value, "scale")) is not None:
            _fuse(rewriter, op, linear, scale=constant)
            return
        tanh = value.owner
        if not isinstance(tanh, lpu.TanhOp) or not value.has_one_use() or constant == 0.0:
            return
        div = tanh.x.owner
        if not isinstance(div, lpu.DivOp) or not tanh.x.has_one_use() or constant_value(div.rhs) != constant:
            return
        if (linear := _open_linear(div.lhs, "softcap")) is not None:
            replace_with(rewriter, op, _extended(linear, softcap=constant), linear)
            for dead in (tanh, div, linear):
                rewriter.erase(dead)


class FuseQuotient(RewritePattern):
    """linear / a power of two"""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: lpu.DivOp, rewriter: PatternRewriter, /) -> None:
        scale = _reciprocal(constant_value(op.rhs))
        if scale is None or _is_capped(op) or (linear := _open_linear(op.lhs, "scale")) is None:
            return
        _fuse(rewriter, op, linear, scale=scale)


def _reciprocal(number: float | None) -> float | None:
    """1 / number, when both are powers of two and neither is subnormal; otherwise None."""
    if number is None or abs(frexp(number)[0]) != 0.5 or not 2.0**-126 <= abs(number) <= 2.0**126:
        return None
    return 1 / number


def _is_capped(op: lpu.DivOp) -> bool:
    """Test that the quotient begins a softcap."""
    return any(isinstance(use.operation, lpu.TanhOp) for use in op.res.uses)


class FuseEmbeddingScale(RewritePattern):
    """embedding * constant"""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: lpu.MulOp, rewriter: PatternRewriter, /) -> None:
        for value, factor in either_order(op):
            embedding, scale = value.owner, constant_value(factor)
            if scale is None or not isinstance(embedding, lpu.EmbeddingOp) or embedding.scale is not None:
                continue
            if value.has_one_use():
                offset = embedding.offset.value.data
                new = lpu.EmbeddingOp(embedding.table, embedding.index, offset, scale=scale)
                replace_with(rewriter, op, new, embedding)
                rewriter.erase(embedding)
                return


class FuseGelu(RewritePattern):
    """(x * 0.5) * (1 + tanh(c * (x + a * ((x * x) * x)))), which some models spell out"""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: lpu.MulOp, rewriter: PatternRewriter, /) -> None:
        for half, rest in either_order(op):
            x = _times(half, 0.5)
            tanh = _plus(rest, 1.0)
            if x is None or tanh is None or not isinstance(tanh.owner, lpu.TanhOp) or x.type != op.res.type:
                continue
            inner = _times(tanh.owner.x, _GELU_SCALE)
            if inner is not None and _is_gelu_sum(inner, x):
                replace_with(rewriter, op, lpu.GeluTanhOp(x), op)
                return


def _times(value: SSAValue, constant: float) -> SSAValue | None:
    """The other factor of a product with this constant."""
    return _other(value, lpu.MulOp, constant)


def _plus(value: SSAValue, constant: float) -> SSAValue | None:
    """The other summand of a sum with this constant."""
    return _other(value, lpu.AddOp, constant)


def _other(value: SSAValue, kind: type[lpu.BinaryOp], constant: float) -> SSAValue | None:
    op = value.owner
    pairs = either_order(op) if isinstance(op, kind) else ()
    return next((other for other, number in pairs if constant_value(number) == constant), None)


def _is_gelu_sum(value: SSAValue, x: SSAValue) -> bool:
    """Test that the value is x + a * ((x * x) * x)."""
    op = value.owner
    if not isinstance(op, lpu.AddOp):
        return False
    cubes = [_times(other, _GELU_CUBE) for first, other in either_order(op) if first is x]
    return any(cube is not None and _is_cube(cube, x) for cube in cubes)


def _is_cube(value: SSAValue, x: SSAValue) -> bool:
    op = value.owner
    if not isinstance(op, lpu.MulOp):
        return False
    squares = [square.owner for square, other in either_order(op) if other is x]
    return any(isinstance(one, lpu.MulOp) and one.lhs is x and one.rhs is x for one in squares)


class FuseActivation(RewritePattern):
    """activation(linear)"""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: lpu.UnaryOp, rewriter: PatternRewriter, /) -> None:
        if not is_activation(op) or (linear := _open_linear(op.x, "activation")) is None:
            return
        _fuse(rewriter, op, linear, activation=op.mnemonic())


@dataclass(frozen=True)
class LpuFuseEpiloguePass(ModulePass):
    """Joins bias, scale, softcap, activation, gated product and residual to their matrix, a scale to the embedding."""

    name = "lpu-fuse-epilogue"
    exactness: ClassVar[str] = "exact"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        apply_patterns(op, FuseGelu())
        apply_patterns(op, FuseSum(), FuseProduct(), FuseQuotient(), FuseActivation(), FuseEmbeddingScale())
