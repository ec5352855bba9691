"""Storing keys and values in the KV cache: store_key and store_value."""

from __future__ import annotations

from hyperdex_ir.isa.faults import Fault
from hyperdex_ir.isa.instructions import MATRIX_TYPES, POSITION
from hyperdex_ir.native.convert import narrow, widen
from hyperdex_ir.native.emit import F32, I16, I64, V, vector
from hyperdex_ir.native.memory_access import LmuRows, Tiles
from hyperdex_ir.native.operation import Operation, emits
from hyperdex_ir.targets import LANES, STREAM_LANES, TREE_BYTES


@emits("store_key")
def store_key(op: Operation) -> None:
    e = op.e
    rows, heads, size, limit = op.rows(), op.immediate("heads"), op.immediate("size"), op.immediate("limit")
    position, src = _source(op, rows, e.mul(heads, size), limit)
    _check(op, heads, limit, size)
    begin, end = op.share_apart(rows, _heads_apart(op, heads, limit, size))
    for number, matrix_type in enumerate(MATRIX_TYPES):
        with e.if_then(e.equal(op.choice("type"), number)), e.loop(0, heads) as head:
            op.check_stop()
            tiles = op.tiles("cache", limit, size, added=e.mul(head, op.immediate("pitch")))
            with e.loop(begin, end) as row:
                key = e.element(src.row(row), e.mul(head, size), F32)
                _write_key(op, tiles, e.add(position, row), key, size, matrix_type)


def _write_key(op: Operation, tiles: Tiles, position: V, key: V, size: V, matrix_type: str) -> None:
    """Writes a key as a row of the cache's matrix, with zeros up to whole steps."""
    e, lanes = op.e, op.features.lanes
    for part, start in enumerate(tiles.column(position)):
        with e.loop(0, tiles.steps) as step:
            target = e.offset(start, e.mul(step, tiles.stride))
            first = e.add(e.mul(step, LANES), part * STREAM_LANES)
            for lane in range(0, STREAM_LANES, lanes):
                column = e.add(first, lane)
                place, rest = e.element(key, column, F32), e.sub(size, column)
                bits = narrow(e, e.load_first(place, vector(F32, lanes), rest), matrix_type)
                e.store(bits, e.element(target, lane, I16))
                op.watch(widen(e, bits, matrix_type))


@emits("store_value")
def store_value(op: Operation) -> None:
    e = op.e
    rows, heads, size, limit = op.rows(), op.immediate("heads"), op.immediate("size"), op.immediate("limit")
    position, src = _source(op, rows, e.mul(heads, size), limit)
    _check(op, heads, size, limit)
    padded = e.mul(e.ceil_div(size, op.context.load("trees")), op.context.load("trees"))
    begin, end = op.share_apart(padded, _heads_apart(op, heads, size, limit))
    for number, matrix_type in enumerate(MATRIX_TYPES):
        with e.if_then(e.equal(op.choice("type"), number)), e.loop(0, heads) as head:
            op.check_stop()
            tiles = op.tiles("cache", size, limit, added=e.mul(head, op.immediate("pitch")))
            with e.loop(begin, end) as element:
                column = e.add(e.mul(head, size), element)
                _write_value(op, tiles, element, position, src, column, rows, e.less(element, size), matrix_type)


def _write_value(
    op: Operation, tiles: Tiles, element: V, position: V, src: LmuRows, column: V, rows: V, real: V, matrix_type: str
) -> None:
    """Writes one element of each row's value as columns of a row of the cache's matrix; zeros in the matrix's
    padding."""
    e, b = op.e, op.e.builder
    low, high = tiles.column(element)
    with e.loop(0, rows) as row:
        value = e.local(F32, e.f32(0.0))
        with e.if_then(real):
            value.set(e.load(e.element(src.row(row), column, F32), F32))
        bits = narrow(e, e.splat(value.get(), 1), matrix_type)
        op.watch(widen(e, bits, matrix_type))
        place = e.add(position, row)
        lane = b.and_(place, I64(LANES - 1))
        half = b.select(e.less(lane, STREAM_LANES), low, high)
        step = e.mul(b.udiv(place, I64(LANES)), tiles.stride)
        e.store(e.extract(bits, 0), e.element(e.offset(half, step), b.and_(lane, I64(STREAM_LANES - 1)), I16))


def _source(op: Operation, rows: V, columns: V, limit: V) -> tuple[V, LmuRows]:
    """The position of row 0, and the rows. Fault when a position reaches the limit."""
    e = op.e
    position = op.register_value(POSITION)
    outside = e.builder.or_(e.less(position, 0), e.less(e.sub(limit, rows), position))
    op.fault_if(outside, Fault.CACHE_ROWS, position, rows, limit)
    return position, op.lmu("src", rows, columns)


def _check(op: Operation, heads: V, rows: V, columns: V) -> None:
    """Fault unless the matrix of every head is in the run-time area."""
    with op.e.loop(0, heads) as head:
        op.tiles("cache", rows, columns, added=op.e.mul(head, op.immediate("pitch")), written=True)


def _heads_apart(op: Operation, heads: V, rows: V, columns: V) -> V:
    """i1: no two heads' matrices share a stripe."""
    e = op.e
    trees = op.context.load("trees")
    stripes = e.mul(e.ceil_div(rows, trees), e.ceil_div(columns, LANES))
    size = e.mul(stripes, e.mul(trees, TREE_BYTES))
    return e.builder.or_(e.less(heads, 2), e.builder.icmp_signed(">=", op.immediate("pitch"), size))
