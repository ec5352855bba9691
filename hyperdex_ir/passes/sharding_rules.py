"""Shardings that an operation needs of its operands to give a device's part of the result: one rule for each operation.

A value is sharded along a *leading* dimension: all dimensions between it and that of the tokens have size 1. So a
device's part is ranges of the columns of each row, whatever the shape. Parameters are sharded along rows or columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from xdsl.dialects.builtin import DYNAMIC_INDEX
from xdsl.ir import Operation, SSAValue

from hyperdex_ir.dialects import lpu
from hyperdex_ir.dialects.lpu import Handlers, Segment, ShardingAttr, block_segment, shape_of

#: For each operand, the sharding that it must have; None: it must be whole.
Operands = list[ShardingAttr | None]


def is_leading(shape: Sequence[int], dim: int) -> bool:
    """Test that a value with tokens can be sharded along this dimension."""
    return 0 < dim < len(shape) and shape[0] == DYNAMIC_INDEX and all(extent == 1 for extent in shape[1:dim])


def has_tokens(value: SSAValue) -> bool:
    return DYNAMIC_INDEX in shape_of(value)


def block_of(value: SSAValue, devices: int) -> ShardingAttr:
    """Equal blocks of a value [?, C], or of heads [?, H, D]."""
    return ShardingAttr(1, [block_segment(shape_of(value)[1], devices)])


def flat_segments(value: SSAValue, sharding: ShardingAttr) -> list[Segment]:
    """A sharding of a value with tokens, in columns of its rows."""
    inner = prod(shape_of(value)[sharding.dim + 1 :])
    return [segment.scaled(inner) for segment in sharding.segments]


def local_shape(value: SSAValue, sharding: ShardingAttr) -> tuple[int, ...]:
    """The shape of the part that a device holds."""
    shape = shape_of(value)
    return (*shape[: sharding.dim], sharding.size, *shape[sharding.dim + 1 :])


# ---------------------------------------------------------------------------------------------------- attention
def kv_sharding(op: lpu.AttentionOp, devices: int) -> ShardingAttr:
    """The KV heads that the query heads of each device need, as many on every device."""
    heads, groups = shape_of(op.query)[1], shape_of(op.key)[1]
    block = block_segment(heads, devices)
    starts, most = [], 1
    for first in block.starts:
        last = min(first + block.size, heads) - 1
        starts.append(first * groups // heads if first < heads else groups)
        most = max(most, last * groups // heads - starts[-1] + 1)
    return ShardingAttr(1, [Segment(most, groups, tuple(starts))])


def kv_head_table(op: lpu.AttentionOp, starts: Sequence[int], held: int) -> tuple[int, ...] | None:
    """For each device and each of its query heads, the KV head among the `held` ones that begin at `starts`.

    None when all devices find it by the rule of `lpu.attention`.
    """
    heads, groups = shape_of(op.query)[1], shape_of(op.key)[1]
    block = block_segment(heads, len(starts))
    table: list[int] = []
    plain = block.size % held == 0
    for device, start in enumerate(starts):
        for number in range(block.size):
            head = device * block.size + number
            table.append(head * groups // heads - start if head < heads else 0)
            plain = plain and (head >= heads or table[-1] == number * held // block.size)
    return None if plain else tuple(table)


# ---------------------------------------------------------------------------------------------------- the rules
#: The rules of operations of which a device can compute a part of the first result.
RULES = Handlers[Callable[[Any, ShardingAttr], Operands | None]]()


def operand_shardings(op: Operation, sharding: ShardingAttr) -> Operands | None:
    """Shardings that the operands must have when the first result is sharded like this; None: it cannot be.

    Keys and values of an attention are given as whole: `kv_sharding` has the sharding that they may have.
    """
    rule = RULES.get(type(op))
    return None if rule is None else rule(op, sharding)


@RULES.register(lpu.UnaryOp, lpu.SelectRowsOp)
def _same(op: Operation, sharding: ShardingAttr) -> Operands:
    return [sharding] * len(op.operands)


@RULES.register(lpu.BinaryOp, lpu.BroadcastOp)
def _aligned(op: Operation, sharding: ShardingAttr) -> Operands:
    """Broadcasting: dimensions count from the last; an operand whose dimension is 1 or missing is the same for all
    devices."""
    result, needed = shape_of(op.results[0]), []
    for operand in op.operands:
        shape = shape_of(operand)
        dim = sharding.dim - (len(result) - len(shape))
        is_whole = dim < 0 or (shape[dim] == 1 and result[sharding.dim] != 1)
        needed.append(None if is_whole else ShardingAttr(dim, sharding.segments))
    return needed


@RULES.register(lpu.ReduceOp, lpu.RmsNormOp, lpu.LayerNormOp, lpu.RotaryOp)
def _over_last(op: Operation, sharding: ShardingAttr) -> Operands | None:
    """An operation on the last dimension needs all of it; its parameters belong to that dimension."""
    if sharding.dim == len(shape_of(op.operands[0])) - 1:
        return None
    return [sharding, *[None] * (len(op.operands) - 1)]


@RULES.register(lpu.ReshapeOp)
def _reshape(op: lpu.ReshapeOp, sharding: ShardingAttr) -> Operands | None:
    found = folded(flat_segments(op.res, sharding), shape_of(op.x))
    return None if found is None else [found]


def folded(columns: Sequence[Segment], shape: Sequence[int]) -> ShardingAttr | None:
    """These columns of a row, as a sharding of a value of this shape; None when they are no whole elements of it."""
    for dim in range(1, len(shape)):
        inner = prod(shape[dim + 1 :])
        numbers = [number for one in columns for number in (one.size, one.extent, *one.starts)]
        if is_leading(shape, dim) and not any(number % inner for number in numbers):
            return ShardingAttr(dim, [_divided(one, inner) for one in columns])
    return None


def _divided(one: Segment, factor: int) -> Segment:
    return Segment(one.size // factor, one.extent // factor, tuple(start // factor for start in one.starts))


@RULES.register(lpu.TransposeOp)
def _transpose(op: lpu.TransposeOp, sharding: ShardingAttr) -> Operands | None:
    dim = op.axes[sharding.dim]
    return [ShardingAttr(dim, sharding.segments)] if is_leading(shape_of(op.x), dim) else None


@RULES.register(lpu.SliceOp)
def _slice(op: lpu.SliceOp, sharding: ShardingAttr) -> Operands | None:
    """Slice of a dimension that is not sharded; `cut_segment` has the part cut out of the sharded one."""
    return [sharding] if op.bounds[0] != sharding.dim and is_leading(shape_of(op.x), sharding.dim) else None


@RULES.register(lpu.ConcatOp)
def _concat(op: lpu.ConcatOp, sharding: ShardingAttr) -> Operands | None:
    is_possible = all(is_leading(shape_of(value), sharding.dim) for value in op.inputs)
    return _same(op, sharding) if is_possible and op.dim.value.data != sharding.dim else None


@RULES.register(lpu.LinearOp)
def _linear(op: lpu.LinearOp, sharding: ShardingAttr) -> Operands:
    """Columns of the result are rows of the matrix; heads are heads of x, with the whole matrix."""
    rank, rest = len(shape_of(op.res)), [sharding for value in (op.times, op.plus) if value is not None]
    matrices = 1 + (op.bias is not None)
    if sharding.dim < rank - 1:
        return [sharding, *[None] * matrices, *rest]
    segments = list(sharding.segments)
    if op.gated is not None:
        segments += [segment.shifted(op.columns) for segment in sharding.segments]
    return [None, *[ShardingAttr(0, segments)] * matrices, *rest]


@RULES.register(lpu.ExpertLinearOp)
def _expert_linear(op: lpu.ExpertLinearOp, sharding: ShardingAttr) -> Operands | None:
    """Columns of the result are rows of each expert's matrix."""
    if sharding.dim != 1:
        return None
    segments = list(sharding.segments)
    if op.gated is not None:
        segments += [segment.shifted(op.columns) for segment in sharding.segments]
    rows = ShardingAttr(1, segments)
    rest = [None] * (op.sum is not None)
    return [None, rows, None, *([rows] if op.bias is not None else []), *rest]


@RULES.register(lpu.EmbeddingOp)
def _embedding(op: lpu.EmbeddingOp, sharding: ShardingAttr) -> Operands | None:
    return [ShardingAttr(1, sharding.segments), None] if sharding.dim == len(shape_of(op.res)) - 1 else None


@RULES.register(lpu.ShortConvOp)
def _short_conv(op: lpu.ShortConvOp, sharding: ShardingAttr) -> Operands:
    """Column by column."""
    rows = ShardingAttr(0, sharding.segments)
    return [sharding, *[rows] * (len(op.operands) - 1)]


@RULES.register(lpu.AttentionOp)
def _attention(op: lpu.AttentionOp, sharding: ShardingAttr) -> Operands:
    heads = ShardingAttr(0, sharding.segments)
    return [sharding, None, None, *[heads for value in (op.slopes, op.sinks) if value is not None]]


def result_sharding(op: Operation, number: int, sharding: ShardingAttr) -> ShardingAttr | None:
    """The sharding of an operation's first result that follows when operand `number` is sharded; None: not by this
    rule."""
    shape = shape_of(op.results[0])
    if isinstance(op, lpu.ReshapeOp):
        found = folded(flat_segments(op.x, sharding), shape)
        candidates = [] if found is None else [found]
    else:
        candidates = [ShardingAttr(dim, sharding.segments) for dim in range(1, len(shape)) if is_leading(shape, dim)]
    for candidate in candidates:
        needed = operand_shardings(op, candidate)
        if needed is not None and needed[number] == sharding:
            return candidate
    return None


# ---------------------------------------------------------------------------------------------------- fused matrices
def cuts(linear: lpu.LinearOp) -> list[lpu.SliceOp]:
    """The slices into which the columns of a matrix's result are cut, in order; empty when the result has other
    uses."""
    found = _cut_from(linear.res)
    return sorted(found or [], key=lambda op: (first_column(op), op.bounds))


def _cut_from(value: SSAValue) -> list[lpu.SliceOp] | None:
    """The slices of a value, reshaped or not; None when it is used for something else."""
    found: list[lpu.SliceOp] = []
    for use in value.uses:
        op = use.operation
        if isinstance(op, lpu.SliceOp) and op.bounds[3] == 1 and is_leading(shape_of(op.x), op.bounds[0]):
            found.append(op)
        elif isinstance(op, lpu.ReshapeOp) and (more := _cut_from(op.res)) is not None:
            found += more
        else:
            return None
    return found


def first_column(op: lpu.SliceOp) -> int:
    """The first column of the slice, in a row of its operand."""
    dim, start, _, _ = op.bounds
    return start * prod(shape_of(op.x)[dim + 1 :])


def cut_segment(op: lpu.SliceOp, sharding: ShardingAttr) -> Segment:
    """The elements cut out, as a segment of the columns of a row of the slice's operand."""
    (segment,) = flat_segments(op.res, sharding)
    return segment.shifted(first_column(op))
