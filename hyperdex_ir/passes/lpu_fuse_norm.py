"""`lpu-fuse-norm`: the operations of an RMSNorm become one `lpu.rms_norm`.

`(x * rsqrt(mean(x * x) + epsilon)) * weight`, with the factors of each product in either order: the very operations
that `lpu.rms_norm` is defined by, so no bit changes.
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
from hyperdex_ir.xdsl_support import apply_patterns, replace_with


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


class FuseNormWeight(RewritePattern):
    """rms_norm(x) * weight"""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: lpu.MulOp, rewriter: PatternRewriter, /) -> None:
        for value, weight in either_order(op):
            norm = value.owner
            if not isinstance(norm, lpu.RmsNormOp) or norm.weight is not None or not value.has_one_use():
                continue
            if not isinstance(weight.owner, lpu.WeightOp) or shape_of(weight) != shape_of(value)[-1:]:
                continue
            replace_with(rewriter, op, lpu.RmsNormOp(norm.x, weight, norm.epsilon.value.data), norm)
            rewriter.erase(norm)
            return


@dataclass(frozen=True)
class LpuFuseNormPass(ModulePass):
    """Fuses the operations of an RMSNorm."""

    name = "lpu-fuse-norm"
    exactness: ClassVar[str] = "exact"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        apply_patterns(op, FuseRmsNorm(), FuseNormWeight())
