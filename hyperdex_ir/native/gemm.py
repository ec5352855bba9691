"""Prefill: many rows of activations against many columns, at the speed of the arithmetic.

16 columns at a time are widened to f32 once (`widen_columns`) and stay in the cache for all rows. The innermost loop
(`_kernel`) keeps a block of `Block.rows` rows times `Block.columns` columns in registers, one vector of the 64 lanes at
a time over all steps: per multiplication it loads the fewest operands. Each lane is summed over the steps in order, and
lanes meet in the fold only: the order of additions is that of docs/arithmetic.md.

Layouts, f32, L lanes a vector, v = 0 .. 64 / L - 1 the vector of the lanes, s the step:
columns [column block][v][s][column of the block][L], activations [row block][v][s][row of the block][L].
The last row block has as many rows as are left.
"""

from __future__ import annotations

from dataclasses import dataclass

from hyperdex_ir.native.convert import load_widened, rounded
from hyperdex_ir.native.emit import F32, I64, POINTER, Emitter, V, define, vector
from hyperdex_ir.native.features import Features
from hyperdex_ir.native.fold import finish, leaves
from hyperdex_ir.native.mac import multiply_add, registers, vectors
from hyperdex_ir.native.memory_access import LmuRows, Tiles
from hyperdex_ir.native.operation import Operation
from hyperdex_ir.targets import LANES, STREAM_LANES

PANEL = 16  #: columns that are widened at a time
_NEAR_WORDS = 40 * 1024 // 4  # words in the nearest cache, with some room left
_TOGETHER = 4  #: most blocks of rows that take turns with a block of columns


@dataclass(frozen=True)
class Block:
    """Sums in registers: rows times columns."""

    rows: int
    columns: int


def block_of(features: Features) -> Block:
    """Block of sums that the registers hold, with room for the operands."""
    if not features.has_fma:
        return Block(4, 2)
    return Block(6, 4) if registers(features) == 32 else Block(6, 2)


# ---------------------------------------------------------------------------------------------------- operands


def pack_row(op: Operation, source: LmuRows, row: V, k: V, steps: V, rows: V, target: V, matrix_type: str) -> None:
    """Rounds a row of k activations to the matrix type, watches it, and puts it in its place in `target`."""
    e, size = op.e, op.features.lanes
    per_block = block_of(op.features).rows
    start = e.mul(e.builder.udiv(row, I64(per_block)), per_block)
    block_rows = e.minimum(e.sub(rows, start), per_block)
    base = e.element(target, e.mul(start, e.mul(steps, LANES)), F32)
    inside = e.sub(row, start)
    line = source.row(row)
    with e.loop(0, steps) as step:
        for index in range(vectors(op.features)):
            x = load_padded(op, line, e.add(e.mul(step, LANES), index * size), k, matrix_type)
            place = e.add(e.mul(e.add(e.mul(steps, index), step), block_rows), inside)
            e.store(x, e.element(base, e.mul(place, size), F32))


def load_padded(op: Operation, line: V, first: V, count: V, matrix_type: str) -> V:
    """A vector of f32 from element `first` on, +0 from `count` on, rounded to the matrix type, watched."""
    e, type_ = op.e, vector(F32, op.features.lanes)
    x = e.load(e.element(line, first, F32), type_)
    mask = e.first_lanes(e.maximum(e.sub(count, first), 0), type_)
    x = rounded(e, e.builder.select(mask, x, e.zero(type_)), matrix_type)
    op.watch(x)
    return x


def widen_columns(e: Emitter, tiles: Tiles, begin: V, end: V, target: V, matrix_type: str) -> None:
    """Columns begin..begin+PANEL-1 of a matrix as f32 to `target`; places of columns from `end` on get another
    column."""
    count = block_of(e.features).columns
    function = _widening(e, matrix_type)
    with e.loop(0, PANEL, count) as first:
        arguments: list[V] = []
        for index in range(count):
            column = e.minimum(e.add(e.add(begin, first), index), e.sub(end, 1))
            arguments += tiles.column(column)
        place = e.element(target, e.mul(first, e.mul(tiles.steps, LANES)), F32)
        e.call(function, [*arguments, tiles.stride, tiles.steps, place])


def _widening(e: Emitter, matrix_type: str) -> V:
    """i64 widen_<type>(low, high, .. of each column of a block, stride, steps, target)."""
    name, count = f"widen_{matrix_type}", block_of(e.features).columns
    known = e.module.globals.get(name)
    if known is not None:
        return known
    function = define(e.module, name, I64, (POINTER,) * (2 * count) + (I64, I64, POINTER))
    *pointers, stride, steps, target = function.args
    e, size = Emitter(function, e.features), e.features.lanes
    with e.loop(0, steps) as step:
        distance = e.mul(step, stride)
        for column in range(count):
            for index in range(vectors(e.features)):
                half, inside = divmod(index * size, STREAM_LANES)
                source = e.offset(pointers[2 * column + half], distance)
                place = e.add(e.mul(e.add(e.mul(steps, index), step), count), column)
                value = load_widened(e, source, inside, size, matrix_type)
                e.store(value, e.element(target, e.mul(place, size), F32))
    e.builder.ret(I64(0))
    return function


# ---------------------------------------------------------------------------------------------------- product


def work_words(features: Features) -> int:
    """f32 words that `multiply_panel` needs for itself."""
    return _TOGETHER * _waiting_words(features)


def _waiting_words(features: Features) -> int:
    """Words of sums that wait to be added to others, for one block of rows and all columns of a panel."""
    return PANEL * block_of(features).rows * features.lanes * _levels(features)


def _levels(features: Features) -> int:
    """Additions between the vectors of the 64 lanes, one after another."""
    return vectors(features).bit_length() - 1


def _kind(features: Features, matrix_type: str) -> str:
    """The end of a function's name: where there is an fma, one serves all matrix types."""
    return "" if features.has_fma else f"_{matrix_type}"


def multiply_panel(
    e: Emitter, columns: V, activations: V, steps: V, rows: V, work: V, result: V, matrix_type: str
) -> None:
    """All rows of packed activations times PANEL widened columns: f32 [rows, PANEL] at `result`.

    One vector of the lanes after the other, for as many rows as the nearest cache has room for with their sums.
    """
    arguments = [columns, activations, steps, rows, work, result]
    name = f"gemm{_kind(e.features, matrix_type)}"
    function = e.module.globals.get(name) or define(e.module, name, I64, [value.type for value in arguments])
    e.call(function, arguments)
    if function.basic_blocks[0].is_terminated:
        return
    columns, activations, steps, rows, work, result = function.args
    e, block = Emitter(function, e.features), block_of(e.features)
    full = e.mul(e.builder.udiv(rows, I64(block.rows)), block.rows)
    together = _rows_together(e, steps)
    with e.loop(0, full, together) as first:
        stop = e.minimum(e.add(first, together), full)
        e.call(_rows(e, block.rows, matrix_type), [columns, activations, steps, first, stop, work, result])
    for count in range(1, block.rows):
        with e.if_then(e.equal(e.sub(rows, full), count)):
            e.call(_rows(e, count, matrix_type), [columns, activations, steps, full, rows, work, result])
    e.builder.ret(I64(0))


def _rows_together(e: Emitter, steps: V) -> V:
    block, size = block_of(e.features), e.features.lanes
    fit = e.sub(I64(_NEAR_WORDS), e.mul(steps, block.columns * size))
    blocks = e.builder.sdiv(fit, e.add(e.mul(steps, block.rows * size), _waiting_words(e.features)))
    return e.mul(e.maximum(e.minimum(blocks, I64(_TOGETHER)), 1), block.rows)


def _rows(e: Emitter, count: int, matrix_type: str) -> V:
    """i64 gemm_rows_<count>(columns, activations, steps, first, stop, work, result): blocks of `count` rows."""
    name = f"gemm_rows_{count}{_kind(e.features, matrix_type)}"
    known = e.module.globals.get(name)
    if known is not None:
        return known
    function = define(e.module, name, I64, (POINTER, POINTER, I64, I64, I64, POINTER, POINTER))
    columns, activations, steps, first, stop, work, result = function.args
    e = Emitter(function, e.features)
    block, size, levels = block_of(e.features), e.features.lanes, _levels(e.features)
    row_words, level_words = e.mul(steps, LANES), block.rows * block.columns * size
    waiting = 0
    for index, additions in leaves(vectors(e.features)):
        kernel = _kernel(e, count, additions, matrix_type)
        with e.loop(0, PANEL, block.columns) as column, e.loop(first, stop, count) as row:
            block_words = e.mul(e.add(e.mul(e.sub(row, first), PANEL), e.mul(column, block.rows)), size * levels)
            from_column = e.add(e.mul(column, row_words), e.mul(steps, index * block.columns * size))
            from_row = e.add(e.mul(row, row_words), e.mul(steps, index * count * size))
            arguments = [
                e.element(columns, from_column, F32),
                e.element(activations, from_row, F32),
                steps,
                e.element(work, e.add(block_words, waiting * level_words), F32),
                e.element(result, e.add(e.mul(row, PANEL), column), F32),
            ]
            e.call(kernel, arguments)
        waiting += 1 - additions
    e.builder.ret(I64(0))
    return function


def _kernel(e: Emitter, rows: int, additions: int, matrix_type: str) -> V:
    """i64 gemm_<rows>_<additions>(columns, activations, steps, work, result): a block of sums of one vector of lanes.

    The sums are added to those that wait before `work`, `additions` times, and wait there; the last ones are folded to
    the result, whose rows are PANEL words apart.
    """
    name = f"gemm_{rows}_{additions}{_kind(e.features, matrix_type)}"
    known = e.module.globals.get(name)
    if known is not None:
        return known
    function = define(e.module, name, I64, (POINTER, POINTER, I64, POINTER, POINTER))
    columns, activations, steps, work, result = function.args
    e, size = Emitter(function, e.features), e.features.lanes
    block = block_of(e.features)
    level_words = block.rows * block.columns * size
    sums = _one_vector(e, columns, activations, steps, rows, matrix_type)
    places = [index * size for index in range(len(sums))]
    for level in range(1, additions + 1):
        before = [e.element(work, place - level * level_words, F32) for place in places]
        sums = [e.fadd(e.load(at, value.type), value) for at, value in zip(before, sums, strict=True)]
    if additions == _levels(e.features):
        _store_sums(e, sums, rows, result)
    else:
        for place, value in zip(places, sums, strict=True):
            e.store(value, e.element(work, place - additions * level_words, F32))
    e.builder.ret(I64(0))
    return function


def _one_vector(e: Emitter, columns: V, activations: V, steps: V, rows: int, matrix_type: str) -> list[V]:
    """One vector of the lanes of rows times columns, over all steps; row by row."""
    width, size = block_of(e.features).columns, e.features.lanes
    type_ = vector(F32, size)
    sums = [e.local(type_, e.zero(type_)) for _ in range(rows * width)]
    with e.loop(0, steps) as step:
        column_at = e.element(columns, e.mul(step, width * size), F32)
        row_at = e.element(activations, e.mul(step, rows * size), F32)
        weights = [e.load(e.element(column_at, column * size, F32), type_) for column in range(width)]
        for row in range(rows):
            x = e.load(e.element(row_at, row * size, F32), type_)
            for column in range(width):
                lanes = sums[row * width + column]
                lanes.set(multiply_add(e, weights[column], x, lanes.get(), matrix_type))
    return [value.get() for value in sums]


def _store_sums(e: Emitter, sums: list[V], rows: int, result: V) -> None:
    """Folds as many rows together as a vector has room for."""
    width, row = block_of(e.features).columns, 0
    while row < rows:
        together = 1
        while 2 * together <= rows - row and 2 * together * width <= e.features.lanes:
            together *= 2
        folded = finish(e, sums[row * width : (row + together) * width])
        for index in range(together):
            part = e.slice(folded, index * width, width)
            e.store(part, e.element(result, (row + index) * PANEL, F32))
        row += together
