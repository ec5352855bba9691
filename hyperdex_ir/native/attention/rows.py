"""The rows that attention's kernels work on, and reads from the KV cache.

The cache lies in the run-time area, where HBM is linear: element (row n, lane j of step s) of a matrix in tile order is
at `base + ((n / trees * steps + s) * trees + n % trees) * TREE_BYTES`, and j elements on.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from hyperdex_ir.native.convert import load_widened
from hyperdex_ir.native.emit import F32, I32, I64, POINTER, Emitter, Local, V, vector
from hyperdex_ir.native.features import Features
from hyperdex_ir.native.mac import multiply_add
from hyperdex_ir.native.shared import Shared
from hyperdex_ir.targets import LANES

#: Bias of scores: none, slope times distance, or slope times position rounded to bf16.
BIASES = ("none", "distance", "rounded")


class Row(ctypes.Structure):
    """One row of queries, its weights and its result.

    query: f32, rounded, padded with +0 to whole steps; weights: f32, the thread's own, first scores, then weights;
    scores: a second place for the weights, or null; result: f32. `weights` and `scores` are the addresses that absolute
    position 0 would have. first, stop: the positions that the row sees; begin, end: whole steps around the positions
    that the rows of a call see together. bias: one of BIASES by number, slope its factor; sink: a score without a
    position, where has_sink is 1 (both f32 bits). watched_*: largest magnitude bits of the query and the scores, of the
    weights, of the rounded weights and the result.
    """

    _fields_ = [
        (name, ctypes.c_int64)
        for name in (
            "query", "weights", "scores", "result", "first", "stop", "begin", "end",
            "bias", "slope", "has_sink", "sink",
            "watched_scores", "watched_softmax", "watched_values",
        )
    ]  # fmt: skip


ROW_BYTES = ctypes.sizeof(Row)


def row_counts(features: Features) -> tuple[int, ...]:
    """The numbers of rows that there are kernels for, ascending: the registers hold the sums of the last one."""
    return (1, 2, 3, 4) if features.lanes == 16 else (1, 2)


class RowAccess(Shared):
    """A `Row` in memory."""

    def __init__(self, e: Emitter, rows: V, number: int | V = 0):
        super().__init__(e, e.offset(rows, e.mul(e.i64(number), ROW_BYTES)), Row)

    def place(self, name: str, position: V) -> V:
        """The address of a position's word in `weights` or `scores`."""
        e = self._e
        return e.builder.inttoptr(e.add(self.load(name), e.mul(position, 4)), POINTER)

    def pointer_of(self, name: str) -> V:
        return self._e.builder.inttoptr(self.load(name), POINTER)

    def store_number(self, name: str, number: V) -> None:
        """Keeps the bits of an f32."""
        b = self._e.builder
        self.store(name, b.zext(b.bitcast(number, I32), I64))

    def number(self, name: str) -> V:
        """The f32 whose bits a field holds."""
        b = self._e.builder
        return b.bitcast(b.trunc(self.load(name), I32), F32)

    def watch(self, name: str, bits: V) -> None:
        """Keeps the largest of magnitude bits, i32."""
        e = self._e
        self.store(name, e.maximum(self.load(name), e.builder.zext(bits, I64)))


def positions_mask(e: Emitter, start: V, first: V, stop: V) -> V:
    """<i1 x lanes>: first <= start + lane < stop, i64 each."""
    b, lanes = e.builder, e.features.lanes
    numbers = e.lanes(I32, range(lanes))
    distances = (e.minimum(e.maximum(e.sub(limit, start), 0), lanes) for limit in (first, stop))
    low, high = (e.splat(b.trunc(distance, I32), lanes) for distance in distances)
    return b.and_(b.icmp_signed(">=", numbers, low), b.icmp_signed("<", numbers, high))


def load_step(e: Emitter, pointer: V, matrix_type: str) -> list[V]:
    """64 elements of the matrix type, widened: vectors of f32."""
    lanes = e.features.lanes
    return [load_widened(e, pointer, start, lanes, matrix_type) for start in range(0, LANES, lanes)]


def load_row_start(e: Emitter, pointer: V, count: V) -> V:
    """The first `count` words as a vector, the rest +0; the memory behind them must be readable."""
    type_ = vector(F32, e.features.lanes)
    return e.builder.select(e.first_lanes(count, type_), e.load(pointer, type_), e.zero(type_))


def add_products(e: Emitter, sums: Sequence[Local], a: Sequence[V], b: Sequence[V], matrix_type: str) -> None:
    """sums = fma(a, b, sums), 64 lanes each."""
    for lane, x, y in zip(sums, a, b, strict=True):
        lane.set(multiply_add(e, x, y, lane.get(), matrix_type))
