"""`lpu-fuse-rotary`: rotary position embeddings become one `lpu.rotary`.

`x * cos + concat(-x[d/2:], x[:d/2]) * sin`, with cos and sin the same for all heads: the very operations that
`lpu.rotary` of style `half` is defined by, so no bit changes. When only the first d elements of a head are rotated and
the others joined again, that is the same operation on the whole head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import DYNAMIC_INDEX, ModuleOp
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from hyperdex_ir.dialects import lpu
from hyperdex_ir.dialects.lpu import shape_of
from hyperdex_ir.passes.matching import either_order, without_reshape
from hyperdex_ir.xdsl_support import apply_patterns, replace_with


def _sliced(value: SSAValue) -> tuple[SSAValue, int, int] | None:
    """(source, start, stop), when the value is a slice of the last of three dimensions."""
    if not isinstance(op := value.owner, lpu.SliceOp):
        return None
    dim, start, stop, step = op.bounds
    return (op.x, start, stop) if dim == 2 and step == 1 else None


def _is_half_turned(value: SSAValue, x: SSAValue) -> bool:
    """Whether the value is concat(-x[d/2:], x[:d/2]) along each head."""
    if not isinstance(concat := value.owner, lpu.ConcatOp) or concat.dim.value.data != 2 or len(concat.inputs) != 2:
        return False
    if not isinstance(neg := concat.inputs[0].owner, lpu.NegOp):
        return False
    size = shape_of(x)[2]
    return _sliced(neg.x) == (x, size // 2, size) and _sliced(concat.inputs[1]) == (x, 0, size // 2)


def _angles(value: SSAValue, x: SSAValue) -> SSAValue | None:
    """The [?, d] value that, the same for all heads, goes with x of [?, H, d]."""
    size = shape_of(x)[2]
    if shape_of(value) != (DYNAMIC_INDEX, 1, size):
        return None
    source = without_reshape(value)
    return source if shape_of(source) == (DYNAMIC_INDEX, size) else None


def _match(op: lpu.AddOp) -> tuple[SSAValue, SSAValue, SSAValue] | None:
    """(x, cos, sin), when the sum is a rotation."""
    for straight, turned in either_order(op):
        if not isinstance(first := straight.owner, lpu.MulOp) or not isinstance(second := turned.owner, lpu.MulOp):
            continue
        for x, cos_value in either_order(first):
            if len(shape_of(x)) != 3 or x.type != op.res.type:
                continue
            for half, sin_value in either_order(second):
                cos, sin = _angles(cos_value, x), _angles(sin_value, x)
                if cos is not None and sin is not None and _is_half_turned(half, x):
                    return x, cos, sin
    return None


class FuseRotary(RewritePattern):
    """All elements of a head rotated."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: lpu.AddOp, rewriter: PatternRewriter, /) -> None:
        if (found := _match(op)) is not None:
            replace_with(rewriter, op, lpu.RotaryOp(*found, "half"), op)


class FusePartialRotary(RewritePattern):
    """concat(rotary(x[:d]), x[d:])"""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: lpu.ConcatOp, rewriter: PatternRewriter, /) -> None:
        if len(op.inputs) != 2 or op.dim.value.data != 2:
            return
        rotated, rest = op.inputs
        if not isinstance(rotary := rotated.owner, lpu.RotaryOp) or not rotated.has_one_use():
            return
        first, second = _sliced(rotary.x), _sliced(rest)
        if first is None or second is None or first[0] is not second[0]:
            return
        x, start, stop = first
        turned = shape_of(rotary.cos)[1]
        if (start, stop, *second[1:]) == (0, turned, turned, shape_of(x)[2]):
            replace_with(rewriter, op, lpu.RotaryOp(x, rotary.cos, rotary.sin, rotary.style.data), rotary)


@dataclass(frozen=True)
class LpuFuseRotaryPass(ModulePass):
    """Fuses rotary position embeddings of the half-split style, whole or partial."""

    name = "lpu-fuse-rotary"
    exactness: ClassVar[str] = "exact"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        apply_patterns(op, FuseRotary(), FusePartialRotary())
