"""`lpu-fuse-epilogue`: vector operations behind a matrix join it.

A linear can carry, in this order: bias, scale, softcap, activation, times (a gated product), plus (a residual). Each is
the operation it replaces, rounded alike, so no bit changes. The fused linear stands where the last of the fused
operations stood: there every operand is defined.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from hyperdex_ir.dialects import lpu
from hyperdex_ir.dialects.lpu import shape_of
from hyperdex_ir.passes.matching import constant_value, either_order
from hyperdex_ir.xdsl_support import apply_patterns, replace_with

#: What a linear can carry, in the order in which it is applied.
_STAGES = ("bias", "scale", "softcap", "activation", "times", "plus")

_ACTIVATION_NAMES = {
    lpu.ReluOp: "relu",
    lpu.SiluOp: "silu",
    lpu.GeluOp: "gelu",
    lpu.GeluTanhOp: "gelu_tanh",
    lpu.SigmoidOp: "sigmoid",
    lpu.TanhOp: "tanh",
}


def _open_linear(value: SSAValue, stage: str) -> lpu.LinearOp | None:
    """The linear that gives the value to its only user and carries nothing at or behind this stage."""
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
            elif other.type == op.res.type and (linear := _open_linear(value, "times")) is not None:
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


class FuseActivation(RewritePattern):
    """activation(linear)"""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: lpu.UnaryOp, rewriter: PatternRewriter, /) -> None:
        name = _ACTIVATION_NAMES.get(type(op))
        if name is None or (linear := _open_linear(op.x, "activation")) is None:
            return
        _fuse(rewriter, op, linear, activation=name)


@dataclass(frozen=True)
class LpuFuseEpiloguePass(ModulePass):
    """Fuses bias, scale, softcap, activation, gated product and residual into the linear before them."""

    name = "lpu-fuse-epilogue"
    exactness: ClassVar[str] = "exact"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        apply_patterns(op, FuseSum(), FuseProduct(), FuseActivation())
