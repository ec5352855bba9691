"""Instructions between HBM and the LMU, and inside the LMU, that change no value."""

from __future__ import annotations

from hyperdex_ir.isa.faults import Fault
from hyperdex_ir.native.emit import F32, I64, POINTER, V, vector
from hyperdex_ir.native.memory_access import LmuRows
from hyperdex_ir.native.operation import Operation, Sizes, Values, emits


@emits("load")
def load(op: Operation) -> None:
    e = op.e
    columns = op.immediate("columns")
    src = op.words("src", columns)
    dst = op.lmu("dst", 1, columns)
    begin, end = op.share(columns)
    src.copy_to(e.element(dst.pointer, begin, F32), begin, e.sub(end, begin))
    watch_words(op, dst.pointer, begin, end)


@emits("store")
def store(op: Operation) -> None:
    e = op.e
    rows, columns = op.rows(), op.immediate("columns")
    src = op.lmu("src", rows, columns)
    pitch = op.immediate("pitch")
    with e.loop(0, rows) as row:
        op.words("dst", columns, added=e.mul(row, pitch), written=True)
    begin, end = op.share_apart(rows, e.builder.icmp_signed(">=", pitch, e.mul(columns, 4)))
    with e.loop(begin, end) as row:
        dst = op.words("dst", columns, added=e.mul(row, pitch), written=True)
        dst.copy_from(src.row(row))
        watch_words(op, src.row(row), 0, columns)


def _select_scratch(values: Values, sizes: Sizes) -> int:
    return min(sizes.chunk * values["columns"], sizes.lmu_words)


@emits("select_rows", scratch=_select_scratch)
def select_rows(op: Operation) -> None:
    e = op.e
    rows, first = op.rows(), op.register("first")
    chunk, columns = op.context.load("chunk"), op.immediate("columns")
    outside = e.builder.or_(e.less(first, 0), e.less(e.sub(chunk, rows), first))
    op.fault_if(outside, Fault.SELECTED_ROWS, first, rows, chunk)
    src = op.lmu("src", rows, columns, added=e.mul(first, op.immediate("src.stride")))
    dst = op.lmu("dst", rows, columns)
    staged = LmuRows(e, op.scratch(), columns, e.i64(0), e.i64(0))
    with e.if_else(op.apart(src, dst)) as (directly, by_way):
        with directly:
            copy_rows(op, dst, src, rows, columns)
        with by_way:
            copy_rows(op, staged, src, rows, columns)
            op.barrier()
            copy_rows(op, dst, staged, rows, columns)


def copy_rows(op: Operation, target: LmuRows, source: LmuRows, rows: V, columns: V) -> None:
    """Copies this thread's share of rows, and watches them."""
    begin, end = op.share_rows(target, rows, columns)
    with op.e.loop(begin, end) as row:
        op.e.copy(target.row(row), source.row(row), op.e.mul(columns, 4))
        watch_words(op, source.row(row), 0, columns)


@emits("select_columns", scratch=_select_scratch)
def select_columns(op: Operation) -> None:
    e, b = op.e, op.e.builder
    rows, columns, limit, index = op.rows(), op.immediate("columns"), op.immediate("limit"), op.register("index")
    op.fault_if(b.and_(e.less(index, 0), e.less(0, columns)), Fault.SELECTED_COLUMNS, index, columns)
    start = e.mul(e.minimum(e.maximum(index, 0), limit), columns)  # there are no rows from the limit on
    there = e.maximum(e.minimum(e.sub(limit, start), columns), 0)
    parts = [e.local(POINTER, op.scratch()), e.local(I64, I64(0)), e.local(I64, I64(-1))]
    with e.if_then(e.less(0, there)):
        found = op.lmu("src", rows, there, added=start)
        for part, value in zip(parts, (found.pointer, found.first, found.last), strict=True):
            part.set(value)
    pointer, first, last = (part.get() for part in parts)
    src = LmuRows(e, pointer, op.immediate("src.stride"), first, last)
    dst = op.lmu("dst", rows, columns)
    staged = LmuRows(e, op.scratch(), columns, I64(0), I64(0))
    with e.if_else(op.apart(src, dst)) as (directly, by_way):
        with directly:
            _copy_padded(op, dst, src, rows, there, columns)
        with by_way:
            _copy_padded(op, staged, src, rows, there, columns)
            op.barrier()
            _copy_padded(op, dst, staged, rows, there, columns)


def _copy_padded(op: Operation, target: LmuRows, source: LmuRows, rows: V, there: V, columns: V) -> None:
    """Copies the first `there` columns of this thread's share of rows, watches them, and puts +0 into the others."""
    e = op.e
    begin, end = op.share_rows(target, rows, columns)
    with e.loop(begin, end) as row:
        line = target.row(row)
        e.copy(line, source.row(row), e.mul(there, 4))
        watch_words(op, source.row(row), 0, there)
        e.clear(e.element(line, there, F32), e.mul(e.sub(columns, there), 4))


def watch_words(op: Operation, pointer: V, begin: int | V, end: V) -> None:
    """`op.watch` for the f32 numbers begin..end-1 at a pointer."""
    e, lanes = op.e, op.features.lanes
    with e.loop(begin, end, lanes) as index:
        op.watch(e.load_first(e.element(pointer, index, F32), vector(F32, lanes), e.sub(end, index)))


def scale_words(op: Operation, pointer: V, count: V, scale: V) -> None:
    """Multiplies `count` f32 numbers at a pointer, in place."""
    e, lanes = op.e, op.features.lanes
    factor = e.splat(scale, lanes)
    with e.loop(0, count, lanes) as index:
        place, rest = e.element(pointer, index, F32), e.sub(count, index)
        e.store_first(e.fmul(e.load_first(place, vector(F32, lanes), rest), factor), place, rest)
