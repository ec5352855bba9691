"""Decode: one row of activations against many columns, at the speed of memory.

One column in flight is enough to keep up with memory; the point is to prefetch in time, across the ends of pages,
columns and streams. When the part of a tree's stream that a thread reads is long, the thread reads one tree after the
other: two long streams at a time. When it is short, the thread reads all trees in turn, group by group: then no stream
ends before the last.
"""

from __future__ import annotations

from hyperdex_ir.native.emit import F32, I64, POINTER, Emitter, V, define
from hyperdex_ir.native.fold import fold
from hyperdex_ir.native.mac import no_lanes, step
from hyperdex_ir.native.memory_access import Tiles
from hyperdex_ir.targets import LANES

# Measured: steps of one tree from which on its stream is long, and steps by which memory is asked for ahead of its use.
_LONG = 4096
_AHEAD_LONG, _AHEAD_SHORT = 24, 64


def multiply_columns(e: Emitter, tiles: Tiles, begin: V, end: V, activations: V, result: V, matrix_type: str) -> None:
    """The MAC of columns begin..end-1 of the matrix: f32 at `result`, one after another.

    activations: pointer to f32 [steps, 64], of the matrix type.
    """
    arguments = [tiles.channels, tiles.beat, tiles.stride, tiles.steps, tiles.trees, begin, end, activations, result]
    e.call(_gemv(e, matrix_type), arguments)


def prefetch_columns(e: Emitter, tiles: Tiles, begin: V, end: V) -> None:
    """Prefetches the memory that `multiply_columns` will read first."""
    cursor = _Cursor(e, tiles, begin, end)
    with e.loop(0, e.add(cursor.whole, 1)):
        low, high = cursor.pointers()
        with e.loop(0, e.minimum(tiles.steps, cursor.ahead)) as number:
            for pointer in (low, high):
                e.prefetch(e.offset(pointer, e.mul(number, tiles.stride)))
        cursor.advance()


class _Cursor:
    """A column, in the order in which columns begin..end-1 are read.

    ahead: steps by which memory is prefetched before its use; whole: the columns that these steps reach, at least.
    Behind the last column the cursor goes on to others, within the channels but maybe not within the matrix: those are
    for prefetching only.
    """

    def __init__(self, e: Emitter, tiles: Tiles, begin: V, end: V):
        b = e.builder
        self._e, self._tiles, self._begin = e, tiles, begin
        first, self._stop = b.udiv(begin, tiles.trees), b.udiv(end, tiles.trees)
        even = b.or_(b.urem(begin, tiles.trees), b.urem(end, tiles.trees))
        long = b.icmp_signed(">=", e.mul(e.sub(self._stop, first), tiles.steps), I64(_LONG))
        self._long, self._first = b.and_(long, e.equal(even, 0)), first
        self.ahead = b.select(self._long, I64(_AHEAD_LONG), I64(_AHEAD_SHORT))
        self.whole = b.udiv(self.ahead, e.maximum(tiles.steps, 1))
        self._tree, self._group = e.local(I64, b.urem(begin, tiles.trees)), e.local(I64, first)

    def pointers(self) -> tuple[V, V]:
        """See Tiles.stream."""
        return self._tiles.stream(self._tree.get(), self._group.get())

    def offset(self) -> V:
        """Columns since the first."""
        column = self._e.add(self._e.mul(self._group.get(), self._tiles.trees), self._tree.get())
        return self._e.sub(column, self._begin)

    def advance(self) -> None:
        """Moves to the next column."""
        e, b = self._e, self._e.builder
        with e.if_else(self._long) as (long, short):
            with long:
                group = e.add(self._group.get(), 1)
                at_end = e.equal(group, self._stop)
                self._group.set(b.select(at_end, self._first, group))
                tree = e.add(self._tree.get(), b.zext(at_end, I64))
                self._tree.set(b.select(e.equal(tree, self._tiles.trees), I64(0), tree))
            with short:
                tree = e.add(self._tree.get(), 1)
                at_end = e.equal(tree, self._tiles.trees)
                self._tree.set(b.select(at_end, I64(0), tree))
                self._group.set(e.add(self._group.get(), b.zext(at_end, I64)))


def _gemv(e: Emitter, matrix_type: str) -> V:
    """i64 gemv_<type>(channels, beat, stride, steps, trees, begin, end, activations, result): see multiply_columns."""
    name = f"gemv_{matrix_type}"
    known = e.module.globals.get(name)
    if known is not None:
        return known
    function = define(e.module, name, I64, (POINTER,) + (I64,) * 6 + (POINTER,) * 2)
    channels, beat, stride, steps, trees, begin, end, activations, result = function.args
    e = Emitter(function, e.features)
    tiles = Tiles(e, channels, beat, stride, trees, steps, I64(0))
    here, coming = _Cursor(e, tiles, begin, end), _Cursor(e, tiles, begin, end)
    shift = e.builder.urem(here.ahead, e.maximum(steps, 1))
    column_bytes = e.mul(steps, stride)
    with e.loop(0, here.whole):
        coming.advance()
    with e.loop(begin, end):
        low, high = here.pointers()
        near = coming.pointers()
        coming.advance()
        far = [e.offset(pointer, e.sub(I64(0), column_bytes)) for pointer in coming.pointers()]
        lanes = no_lanes(e)
        with e.loop(0, steps) as number:
            ahead = e.add(number, shift)
            inside, distance = e.less(ahead, steps), e.mul(ahead, stride)
            for first, second in zip(near, far, strict=True):
                e.prefetch(e.offset(e.builder.select(inside, first, second), distance))
            place = e.mul(number, stride)
            x = e.element(activations, e.mul(number, LANES), F32)
            step(e, lanes, e.offset(low, place), e.offset(high, place), x, matrix_type)
        total = e.extract(fold(e, [[sums.get() for sums in lanes]]), 0)
        e.store(total, e.element(result, here.offset(), F32))
        here.advance()
    e.builder.ret(I64(0))
    return function
