"""The first columns of a row in the order of their keys, found without sorting, by histograms of the keys' digits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from llvmlite import ir

from hyperdex_ir.native.emit import F32, I1, I32, I64, Emitter, Local, V, vector
from hyperdex_ir.native.operation import Operation

_WIDTHS = 11, 11, 10  # bits of a key's digits, the highest first
_DIGITS = 1 << max(_WIDTHS)
#: f32 words of a thread's two histograms of u64.
HISTOGRAM_WORDS = 2 * _DIGITS * 2
RECORD_WORDS = 16  # words of a thread's record: largest, its column, worst bits, sums


@dataclass(frozen=True)
class Row:
    """The row of logits and the data kept for each column; columns `begin` to `end` (multiples of 64) are this
    thread's.

    Behind `columns` there are up to 63 more, which count as logits of -infinity.
    """

    op: Operation
    columns: V
    begin: V
    end: V
    records: V  # 64 bytes a thread
    histograms: V
    weights: V  # u64 [columns]
    keys: V  # u32 [columns]: the order of the logits as an order of integers; before that, logits with the penalty
    marks: V  # u8 [columns]: tokens of the text

    @contextmanager
    def blocks(self, lanes: int) -> Iterator[V]:
        """Runs over this thread's columns, `lanes` (4 to 16) at a time; gives the first."""
        with self.op.e.loop(self.begin, self.end, lanes) as index:
            yield index

    def inside(self, index: V, lanes: int) -> V:
        """<i1> mask: those of the `lanes` columns from `index` on that exist."""
        return self.op.e.first_lanes(self.op.e.sub(self.columns, index), vector(F32, lanes))

    def record(self, offset: int, thread: V | None = None) -> V:
        """The address of a field of a thread's record (this thread's by default)."""
        e = self.op.e
        thread = self.op.thread if thread is None else thread
        return e.offset(self.records, e.add(e.mul(thread, 4 * RECORD_WORDS), offset))


def keep_first(row: Row, limit: V, *, counting: bool) -> None:
    """Sets weights to 0 but for the first columns in the order (larger keys first, of equals the lower column).

    A column stays when the values of the columns before it sum up to less than `limit` (u64, at least 1). counting: the
    value of each column is 1; otherwise it is its weight, and columns with equal keys and non-zero weights have equal
    weights. Sets weights of this thread's columns only; all threads meet inside.
    """
    op, e = row.op, row.op.e
    prefix, above = e.local(I64, I64(0)), e.local(I64, I64(0))  # of the last key kept; sum of the values before it
    for number, width in enumerate(_WIDTHS):
        _clear(row, number)
        if number == 0:
            _fill(row, counting)
        else:
            _fill_matching(row, number, prefix.get(), counting)
        op.barrier()
        _narrow(row, number, width, prefix, above, limit)
    _cut(row, prefix.get(), above.get(), limit, counting)


def lane_bits(e: Emitter, mask: V) -> V:
    """A vector of i1 as the lowest bits of an i64."""
    return e.builder.zext(e.builder.bitcast(mask, ir.IntType(mask.type.count)), I64)


def lowest_bit(e: Emitter, value: V) -> V:
    """The number of the lowest bit of an i64 that is 1; 64 for 0."""
    return e.builder.cttz(value, I1(0))


def _shift(number: int) -> int:
    """Bits below a digit."""
    return sum(_WIDTHS[number + 1 :])


def _histogram(row: Row, number: int, thread: V) -> V:
    """A thread's histogram of a digit; two take turns, so that one is read while the next is filled."""
    e = row.op.e
    words = e.add(e.mul(thread, HISTOGRAM_WORDS), number % 2 * (HISTOGRAM_WORDS // 2))
    return e.element(row.histograms, words, F32)


def _clear(row: Row, number: int) -> None:
    op, e = row.op, row.op.e
    own, lanes = _histogram(row, number, op.thread), op.features.lanes // 2
    with e.loop(0, _DIGITS, lanes) as digit:
        e.store(e.zero(vector(I64, lanes)), e.element(own, digit, I64))


def _fill(row: Row, counting: bool) -> None:
    """Adds up the values of this thread's columns by their first digit."""
    e = row.op.e
    own = _histogram(row, 0, row.op.thread)
    with e.loop(row.begin, row.end) as column:
        _count(row, own, 0, column, counting)


def _fill_matching(row: Row, number: int, prefix: V, counting: bool) -> None:
    """Adds up, by a digit, the values of those of this thread's columns whose earlier digits are `prefix`; they are
    few."""
    op, e, b = row.op, row.op.e, row.op.e.builder
    lanes = op.features.lanes
    own = _histogram(row, number, op.thread)
    sought = e.splat(b.trunc(prefix, I32), lanes)
    bits = e.splat(I32(_shift(number - 1)), lanes)
    with row.blocks(lanes) as first:
        keys = e.load(e.element(row.keys, first, I32), vector(I32, lanes))
        hits = e.local(I64, lane_bits(e, b.icmp_unsigned("==", b.lshr(keys, bits), sought)))
        with e.loop_while() as end:
            left = hits.get()
            e.leave(end, e.equal(left, 0))
            _count(row, own, number, e.add(first, lowest_bit(e, left)), counting)
            hits.set(b.and_(left, e.sub(left, 1)))


def _count(row: Row, histogram: V, number: int, column: V, counting: bool) -> None:
    """Adds a column's value to its digit."""
    e, b = row.op.e, row.op.e.builder
    digit = b.and_(b.lshr(_key(row, column), I64(_shift(number))), I64((1 << _WIDTHS[number]) - 1))
    place = e.element(histogram, digit, I64)
    value = I64(1) if counting else e.load(e.element(row.weights, column, I64), I64)
    e.store(e.add(e.load(place, I64), value), place)


def _key(row: Row, column: V) -> V:
    e = row.op.e
    return e.builder.zext(e.load(e.element(row.keys, column, I32), I32), I64)


def _narrow(row: Row, number: int, width: int, prefix: V, above: V, limit: V) -> None:
    """Appends the largest digit with which the sum reaches the limit, or 0, to the prefix; adds the values before it to
    `above`."""
    e, b = row.op.e, row.op.e.builder
    digit = e.local(I64, I64((1 << width) - 1))
    with e.loop_while() as end:
        with_digit = e.add(above.get(), _total(row, number, digit.get()))
        reached = b.icmp_unsigned(">=", with_digit, limit)
        e.leave(end, b.or_(reached, e.equal(digit.get(), 0)))
        above.set(with_digit)
        digit.set(e.sub(digit.get(), 1))
    prefix.set(b.or_(b.shl(prefix.get(), I64(width)), digit.get()))


def _total(row: Row, number: int, digit: V) -> V:
    """The sum of all threads' values of a digit."""
    op, e = row.op, row.op.e
    total = e.local(I64, I64(0))
    with e.loop(0, op.threads) as thread:
        total.set(e.add(total.get(), e.load(e.element(_histogram(row, number, thread), digit, I64), I64)))
    return total.get()


def _cut(row: Row, last: V, above: V, limit: V, counting: bool) -> None:
    """Sets weights behind the last key to 0, and those of equal keys from where the limit is reached."""
    op, e, b = row.op, row.op.e, row.op.e.builder
    lanes, number = op.features.lanes, len(_WIDTHS) - 1
    digit = b.and_(last, I64((1 << _WIDTHS[number]) - 1))
    before = e.local(I64, above)  # sum of the values before a column with the last key
    with e.loop(0, op.thread) as thread:
        before.set(e.add(before.get(), e.load(e.element(_histogram(row, number, thread), digit, I64), I64)))
    lasts = e.splat(b.trunc(last, I32), lanes)
    with row.blocks(lanes) as first:
        keys = e.load(e.element(row.keys, first, I32), vector(I32, lanes))
        place = e.element(row.weights, first, I64)
        weights = e.load(place, vector(I64, lanes))
        e.store(b.select(b.icmp_unsigned("<", keys, lasts), e.zero(weights.type), weights), place)
        hits = e.local(I64, lane_bits(e, b.icmp_unsigned("==", keys, lasts)))
        with e.loop_while() as end:
            left = hits.get()
            e.leave(end, e.equal(left, 0))
            _cut_equal(row, e.add(first, lowest_bit(e, left)), before, limit, counting)
            hits.set(b.and_(left, e.sub(left, 1)))


def _cut_equal(row: Row, column: V, before: Local, limit: V, counting: bool) -> None:
    """Handles a column that has the last key."""
    e, b = row.op.e, row.op.e.builder
    place = e.element(row.weights, column, I64)
    weight, sum_before = e.load(place, I64), before.get()
    e.store(b.select(b.icmp_unsigned("<", sum_before, limit), weight, I64(0)), place)
    before.set(e.add(sum_before, I64(1) if counting else weight))
