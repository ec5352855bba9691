"""Rows of tables in HBM: embed and gather."""

from __future__ import annotations

from hyperdex_ir.engine.convert import load_widened
from hyperdex_ir.engine.emit import F32, I64, V, vector
from hyperdex_ir.engine.faults import Fault
from hyperdex_ir.engine.memory_access import Tiles
from hyperdex_ir.engine.moving import scale_words, watch_words
from hyperdex_ir.engine.operation import Operation, Sizes, Values, operation
from hyperdex_ir.isa.instructions import INDEX_SOURCES, MATRIX_TYPES, POSITION
from hyperdex_ir.targets import LANES

_HALF = LANES // 2  # lanes of a step in one channel


def _scratch(values: Values, sizes: Sizes) -> int:
    return 2 * sizes.chunk  # an i64 a row


@operation("embed", scratch=_scratch)
def embed(op: Operation) -> None:
    e = op.e
    rows, columns = op.rows(), op.immediate("columns")
    indices = _indices(op, rows)
    tiles = op.tiles("table", op.immediate("limit"), columns)
    dst = op.lmu("dst", rows, columns)
    scale, kind = op.floating("scale"), op.choice("type")
    begin, end = op.share_rows(dst, rows, columns)
    with e.loop(begin, end) as row:
        index = e.load(e.element(indices, row, I64), I64)
        for number, matrix_type in enumerate(MATRIX_TYPES):
            with e.if_then(e.equal(kind, number)):
                _widen_row(op, dst.row(row), tiles, index, columns, scale, matrix_type)


def _widen_row(op: Operation, target: V, tiles: Tiles, index: V, columns: V, scale: V, matrix_type: str) -> None:
    """A matrix row, widened and scaled, half a step at a time."""
    e, lanes = op.e, op.features.lanes
    factor = e.splat(scale, lanes)
    for part, start in enumerate(tiles.column(index)):
        with e.loop(part * _HALF, columns, LANES) as first:
            source = e.offset(start, e.mul(e.builder.udiv(first, I64(LANES)), tiles.stride))
            for lane in range(0, _HALF, lanes):
                value = load_widened(e, e.offset(source, 2 * lane), lanes, matrix_type)
                value = e.fmul(value, factor)
                column = e.add(first, lane)
                count = e.sub(columns, column)
                e.store_first(value, e.element(target, column, F32), count)
                op.watch(value, e.first_lanes(count, vector(F32, lanes)))


@operation("gather", scratch=_scratch)
def gather(op: Operation) -> None:
    e = op.e
    rows, columns = op.rows(), op.immediate("columns")
    indices = _indices(op, rows)
    table = op.words("table", e.mul(op.immediate("limit"), columns))
    dst = op.lmu("dst", rows, columns)
    scale = op.floating("scale")
    begin, end = op.share_rows(dst, rows, columns)
    with e.loop(begin, end) as row:
        index = e.load(e.element(indices, row, I64), I64)
        table.copy_to(dst.row(row), e.mul(index, columns), columns)
        scale_words(op, dst.row(row), columns, scale)
        watch_words(op, dst.row(row), 0, columns)


def _indices(op: Operation, rows: V) -> V:
    """The table row of each row in flight, i64 [rows], in scratch memory. Fault when one is outside the table.

    Every thread makes all of them: the same numbers to the same places, so none waits for another.
    """
    e = op.e
    indices = op.scratch()
    offset, limit = op.immediate("offset"), op.immediate("limit")
    with e.if_else(e.equal(op.choice("index"), INDEX_SOURCES.index("token"))) as (token, position):
        with token:
            ids = op.words("ids", rows, item=8)
            with e.loop(0, rows) as row:
                _keep(op, indices, row, e.add(e.load(ids.pointer(row), I64), offset), limit)
        with position:
            first = op.register_value(POSITION)
            with e.loop(0, rows) as row:
                _keep(op, indices, row, e.add(e.add(first, row), offset), limit)
    return indices


def _keep(op: Operation, indices: V, row: V, index: V, limit: V) -> None:
    e = op.e
    outside = e.builder.or_(e.less(index, 0), e.builder.icmp_signed(">=", index, limit))
    op.fault_if(outside, Fault.TABLE_ROW, index, limit)
    e.store(index, e.element(indices, row, I64))
