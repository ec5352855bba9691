"""`lpu-fuse-rotary`: fusion of rotary position embeddings to one `lpu.rotary`.

`x * cos + r(x) * sin`, with cos and sin the same for all heads, where r(x) is `concat(-x[d/2:], x[:d/2])` (style
`half`) or `-x[1], x[0], -x[3], x[2], ...` (style `interleaved`, which models write as a stack of two slices of step 2):
the very operations that define `lpu.rotary`, so no bit changes. When only the first d elements of a head are rotated
and the others are joined again, the result is one `lpu.rotary` on the whole head.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import DYNAMIC_INDEX, ModuleOp
from xdsl.ir import Attribute, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern
from xdsl.rewriter import InsertPoint

from hyperdex_ir.dialects import lpu
from hyperdex_ir.dialects.lpu import shape_of
from hyperdex_ir.passes.matching import either_order, without_reshape
from hyperdex_ir.support.xdsl import apply_patterns, replace_with

#: x, cos, sin, style; cos and sin are [?, 1, d].
_Rotation = tuple[SSAValue, SSAValue, SSAValue, str]


def _sliced(value: SSAValue) -> tuple[SSAValue, int, int] | None:
    """(source, start, stop), when the value is a slice of the last of three dimensions."""
    if not isinstance(op := value.owner, lpu.SliceOp):
        return None
    dim, start, stop, step = op.bounds
    return (op.x, start, stop) if dim == 2 and step == 1 else None


def _two_parts(value: SSAValue, dim: int) -> tuple[SSAValue, SSAValue] | None:
    """(a, b), when the value is concat(-a, b) along a dimension; reshapes of the two are skipped."""
    if not isinstance(concat := value.owner, lpu.ConcatOp) or concat.dim.value.data != dim or len(concat.inputs) != 2:
        return None
    first, second = (without_reshape(part) for part in concat.inputs)
    return (first.owner.x, second) if isinstance(first.owner, lpu.NegOp) else None


def _is_half_turned(value: SSAValue, x: SSAValue) -> bool:
    """Test that the value is concat(-x[d/2:], x[:d/2]) along each head."""
    if (parts := _two_parts(value, 2)) is None:
        return False
    size = shape_of(x)[2]
    return _sliced(parts[0]) == (x, size // 2, size) and _sliced(parts[1]) == (x, 0, size // 2)


def _is_every_second(value: SSAValue, x: SSAValue, first: int) -> bool:
    """Test that the value has the elements first, first + 2, ... of each head."""
    if not isinstance(op := without_reshape(value).owner, lpu.SliceOp) or op.x is not x:
        return False
    dim, start, stop, step = op.bounds
    return dim == 2 and range(start, stop, step) == range(first, shape_of(x)[2], 2)


def _is_interleaved(value: SSAValue, x: SSAValue) -> bool:
    """Test that the value is -x[1], x[0], -x[3], x[2], ... along each head."""
    stacked = without_reshape(value)
    size = shape_of(x)[2]
    if shape_of(stacked) != (*shape_of(x)[:2], size // 2, 2) or (parts := _two_parts(stacked, 3)) is None:
        return False
    return _is_every_second(parts[0], x, 1) and _is_every_second(parts[1], x, 0)


def _style(value: SSAValue, x: SSAValue) -> str | None:
    """The style, when the value is the turned x."""
    if _is_half_turned(value, x):
        return "half"
    return "interleaved" if _is_interleaved(value, x) else None


def _angles(value: SSAValue, op: lpu.AddOp, rewriter: PatternRewriter) -> SSAValue:
    """A [?, 1, d] value as [?, d]."""
    source, wanted = without_reshape(value), (DYNAMIC_INDEX, shape_of(value)[2])
    if shape_of(source) == wanted:
        return source
    flat = lpu.ReshapeOp(value, wanted)
    flat.location = op.location
    rewriter.insert(flat, InsertPoint.before(op))
    return flat.res


def _match(op: lpu.AddOp) -> _Rotation | None:
    """The rotation that the sum stands for; None when it is not one."""
    for straight, turned in either_order(op):
        first, second = straight.owner, turned.owner
        if not isinstance(first, lpu.MulOp) or not isinstance(second, lpu.MulOp):
            continue
        if (found := _match_products(first, second, op.res.type)) is not None:
            return found
    return None


def _match_products(straight: lpu.MulOp, turned: lpu.MulOp, type_: Attribute) -> _Rotation | None:
    """The rotation, when the two are x * cos, with x of that type, and the turned x * sin."""
    for (x, cos), (partner, sin) in product(either_order(straight), either_order(turned)):
        style = _style(partner, x) if len(shape_of(x)) == 3 and x.type == type_ else None
        if style is not None and shape_of(cos) == shape_of(sin) == (DYNAMIC_INDEX, 1, shape_of(x)[2]):
            return x, cos, sin, style
    return None


class FuseRotary(RewritePattern):
    """All elements of a head rotated."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: lpu.AddOp, rewriter: PatternRewriter, /) -> None:
        if (found := _match(op)) is None:
            return
        x, cos, sin, style = found
        angles = [_angles(value, op, rewriter) for value in (cos, sin)]
        replace_with(rewriter, op, lpu.RotaryOp(x, angles[0], angles[1], style), op)


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
    """Fuses rotary position embeddings, half-split or interleaved, whole or partial."""

    name = "lpu-fuse-rotary"
    exactness: ClassVar[str] = "exact"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        apply_patterns(op, FuseRotary(), FusePartialRotary())
