"""`lpu-fuse-norm`: fusion of the operations of a norm to one `lpu.rms_norm` or `lpu.layer_norm`.

`(x * rsqrt(mean(x * x) + epsilon)) * weight` is an RMSNorm; with `c = x - mean(x)` in place of x, and perhaps a bias
added, it is a LayerNorm. Weight and bias may be absent, the weight may be `1 + weight`, and factors and summands may
come in either order. These are the very operations that define the two norms, so no bit changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from hyperdex_ir.dialects import lpu
from hyperdex_ir.dialects.lpu import shape_of
from hyperdex_ir.passes.matching import constant_value, either_order
from hyperdex_ir.support.xdsl import apply_patterns, replace_with

Norm = lpu.RmsNormOp | lpu.LayerNormOp


def _mean_square_epsilon(factor: SSAValue, x: SSAValue) -> float | None:
    """The epsilon, when `factor` is rsqrt(mean(x * x) + epsilon)."""
    if not isinstance(rsqrt := factor.owner, lpu.RsqrtOp) or not isinstance(add := rsqrt.x.owner, lpu.AddOp):
        return None
    for mean_value, epsilon_value in either_order(add):
        mean, epsilon = mean_value.owner, constant_value(epsilon_value)
        if epsilon is None or not isinstance(mean, lpu.MeanOp):
            continue
        if isinstance(square := mean.x.owner, lpu.MulOp) and square.lhs is x and square.rhs is x:
            return epsilon
    return None


def _is_parameter(value: SSAValue, x: SSAValue) -> bool:
    """Test that the value is a parameter with one number for each column of x."""
    return isinstance(value.owner, lpu.WeightOp) and shape_of(value) == shape_of(x)[-1:]


def _offset_parameter(value: SSAValue, x: SSAValue) -> SSAValue | None:
    """The parameter, when the value is 1 + a parameter."""
    if not isinstance(add := value.owner, lpu.AddOp):
        return None
    for parameter, one in either_order(add):
        if constant_value(one) == 1.0 and _is_parameter(parameter, x):
            return parameter
    return None


def _weighted(norm: Norm, factor: SSAValue) -> Norm | None:
    """The norm with a weight, when `factor` can be one."""
    offset = _offset_parameter(factor, norm.x)
    weight = offset if offset is not None else factor
    if not _is_parameter(weight, norm.x):
        return None
    epsilon, unit_offset = norm.epsilon.value.data, offset is not None
    if isinstance(norm, lpu.RmsNormOp):
        return lpu.RmsNormOp(norm.x, weight, epsilon, unit_offset=unit_offset)
    return lpu.LayerNormOp(norm.x, weight, norm.bias, epsilon, unit_offset=unit_offset)


class FuseRmsNorm(RewritePattern):
    """x * rsqrt(mean(x * x) + epsilon)"""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: lpu.MulOp, rewriter: PatternRewriter, /) -> None:
        for x, factor in either_order(op):
            epsilon = _mean_square_epsilon(factor, x)
            if epsilon is None or x.type != op.res.type:
                continue
            replace_with(rewriter, op, lpu.RmsNormOp(x, None, epsilon), op)
            return


class FuseLayerNorm(RewritePattern):
    """rms_norm(x - mean(x))"""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: lpu.RmsNormOp, rewriter: PatternRewriter, /) -> None:
        if not isinstance(centred := op.x.owner, lpu.SubOp) or not isinstance(mean := centred.rhs.owner, lpu.MeanOp):
            return
        x = centred.lhs
        if mean.x is not x or x.type != op.res.type:
            return
        unit_offset = op.unit_offset is not None
        new = lpu.LayerNormOp(x, op.weight, None, op.epsilon.value.data, unit_offset=unit_offset)
        replace_with(rewriter, op, new, op)


class FuseNormWeight(RewritePattern):
    """norm(x) * weight, norm(x) * (1 + weight)"""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: lpu.MulOp, rewriter: PatternRewriter, /) -> None:
        for value, factor in either_order(op):
            norm = value.owner
            if not isinstance(norm, Norm) or norm.weight is not None or not value.has_one_use():
                continue
            if isinstance(norm, lpu.LayerNormOp) and norm.bias is not None:
                continue
            if (new := _weighted(norm, factor)) is not None:
                replace_with(rewriter, op, new, norm)
                rewriter.erase(norm)
                return


class FuseNormBias(RewritePattern):
    """layer_norm(x) + bias"""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: lpu.AddOp, rewriter: PatternRewriter, /) -> None:
        for value, bias in either_order(op):
            norm = value.owner
            if not isinstance(norm, lpu.LayerNormOp) or norm.bias is not None or not value.has_one_use():
                continue
            if not _is_parameter(bias, norm.x):
                continue
            unit_offset = norm.unit_offset is not None
            new = lpu.LayerNormOp(norm.x, norm.weight, bias, norm.epsilon.value.data, unit_offset=unit_offset)
            replace_with(rewriter, op, new, norm)
            rewriter.erase(norm)
            return


class FuseUnitOffset(RewritePattern):
    """A norm whose weight operand is 1 + weight"""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: lpu.RmsNormOp | lpu.LayerNormOp, rewriter: PatternRewriter, /) -> None:
        if op.weight is None or op.unit_offset is not None or _offset_parameter(op.weight, op.x) is None:
            return
        if (new := _weighted(op, op.weight)) is not None:
            replace_with(rewriter, op, new, op)


@dataclass(frozen=True)
class LpuFuseNormPass(ModulePass):
    """Fuses the operations of an RMSNorm or LayerNorm, with or without weight and bias, also for a weight of 1 + w."""

    name = "lpu-fuse-norm"
    exactness: ClassVar[str] = "exact"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        apply_patterns(op, FuseRmsNorm(), FuseLayerNorm(), FuseNormWeight(), FuseNormBias(), FuseUnitOffset())
