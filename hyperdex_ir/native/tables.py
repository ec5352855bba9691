"""Rows of tables in HBM: embed and gather."""

from __future__ import annotations

from hyperdex_ir.isa.faults import Fault
from hyperdex_ir.isa.instructions import INDEX_SOURCES, MATRIX_TYPES, POSITION
from hyperdex_ir.native.convert import load_widened
from hyperdex_ir.native.emit import F32, I64, POINTER, V, vector
from hyperdex_ir.native.memory_access import Tiles, Words
from hyperdex_ir.native.moving import scale_words, watch_words
from hyperdex_ir.native.operation import Operation, emits
from hyperdex_ir.targets import LANES, STREAM_LANES


@emits("embed")
def embed(op: Operation) -> None:
    e = op.e
    rows, columns = op.rows(), op.immediate("columns")
    indices = _Indices(op, rows)
    tiles = op.tiles("table", op.immediate("limit"), columns)
    dst = op.lmu("dst", rows, columns)
    scale, kind = op.floating("scale"), op.choice("type")
    begin, end = op.share_rows(dst, rows, columns)
    with e.loop(begin, end) as row:
        index = indices.of(row)
        for number, matrix_type in enumerate(MATRIX_TYPES):
            with e.if_then(e.equal(kind, number)):
                _widen_row(op, dst.row(row), tiles, index, columns, scale, matrix_type)


def _widen_row(op: Operation, target: V, tiles: Tiles, index: V, columns: V, scale: V, matrix_type: str) -> None:
    """A matrix row, widened and scaled, half a step at a time."""
    e, lanes = op.e, op.features.lanes
    factor = e.splat(scale, lanes)
    for part, start in enumerate(tiles.column(index)):
        with e.loop(part * STREAM_LANES, columns, LANES) as first:
            source = e.offset(start, e.mul(e.builder.udiv(first, I64(LANES)), tiles.stride))
            for lane in range(0, STREAM_LANES, lanes):
                value = load_widened(e, source, lane, lanes, matrix_type)
                value = e.fmul(value, factor)
                column = e.add(first, lane)
                count = e.sub(columns, column)
                e.store_first(value, e.element(target, column, F32), count)
                op.watch(value, e.first_lanes(count, vector(F32, lanes)))


@emits("gather")
def gather(op: Operation) -> None:
    e = op.e
    rows, columns = op.rows(), op.immediate("columns")
    indices = _Indices(op, rows)
    table = op.words("table", e.mul(op.immediate("limit"), columns))
    dst = op.lmu("dst", rows, columns)
    scale = op.floating("scale")
    begin, end = op.share_rows(dst, rows, columns)
    with e.loop(begin, end) as row:
        index = indices.of(row)
        table.copy_to(dst.row(row), e.mul(index, columns), columns)
        scale_words(op, dst.row(row), columns, scale)
        watch_words(op, dst.row(row), 0, columns)


class _Indices:
    """The table row of each row in flight, i64. Fault when one is outside the table.

    Each index is checked twice: all of them here, so that a fault comes before anything is done; and again where a
    thread uses one, as the numbers may lie in a file that changes meanwhile.
    """

    def __init__(self, op: Operation, rows: V):
        e = self._e = op.e
        self._op = op
        self._token = e.equal(op.choice("index"), INDEX_SOURCES.index("token"))
        region, relative = e.local(POINTER, e.zero(POINTER)), e.local(I64, I64(0))
        first = e.local(I64, I64(0))
        with e.if_else(self._token) as (token, position):
            with token:
                ids = op.words("ids", rows, item=8)
                region.set(ids.region)
                relative.set(ids.relative)
            with position:
                first.set(op.register_value(POSITION))
        self._first = first.get()
        self._ids = Words(e, region.get(), op.context.load("channels"), relative.get(), rows, 8)
        self._offset, self._limit = op.immediate("offset"), op.immediate("limit")
        with e.loop(0, rows) as row:
            self.of(row)

    def of(self, row: V) -> V:
        """The index of one row."""
        e = self._e
        start = e.local(I64, e.add(self._first, row))
        with e.if_then(self._token):
            start.set(e.load_once(self._ids.pointer(row)))
        index = e.add(start.get(), self._offset)
        outside = e.builder.icmp_unsigned(">=", index, self._limit)
        self._op.fault_if(outside, Fault.TABLE_ROW, index, self._limit)
        return index
