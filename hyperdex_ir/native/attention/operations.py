"""The instructions scores, softmax and values, one after another: rows are divided among the threads.

In a loop over heads, `head_loop.py` does all three together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hyperdex_ir.isa.faults import Fault
from hyperdex_ir.isa.instructions import MATRIX_TYPES
from hyperdex_ir.memory.map import ceil_div
from hyperdex_ir.native.attention import kernels
from hyperdex_ir.native.attention.rows import BIASES, ROW_BYTES, RowAccess
from hyperdex_ir.native.emit import F32, I32, I64, POINTER, Emitter, V
from hyperdex_ir.native.kernels import choose
from hyperdex_ir.native.memory_access import LmuRows
from hyperdex_ir.native.operation import SPAN, Operation, Sizes, Values, emits
from hyperdex_ir.targets import LANES, TREE_BYTES

# ---------------------------------------------------------------------------------------------------- memory


def workspace_words(rows: int, size: int, positions: int) -> int:
    """Scratch memory of a thread that has so many rows in hand: see `Workspace`."""
    query, weights = ceil_div(size, LANES) * LANES, ceil_div(positions, LANES) * LANES + 2 * LANES
    return rows * (kernels.ELEMENTS * LANES + query + weights)


@dataclass(frozen=True)
class Workspace:
    """A thread's own memory: sums of the values kernel, queries, weights (lengths in words), and `Row`s. `Row`s hold
    addresses and therefore lie on the thread's stack, where no instruction writes data."""

    e: Emitter
    rows: V
    sums: V
    queries: V
    weights: V
    query_words: V
    weight_words: V

    @classmethod
    def of(cls, op: Operation, rows: int, size: V, positions: V, shared: int | V = 0) -> Workspace:
        """Workspace for so many rows in hand, behind the words of scratch memory that threads share."""
        e = op.e
        query = e.mul(e.ceil_div(size, LANES), LANES)
        weights = e.add(e.mul(e.ceil_div(positions, LANES), LANES), 2 * LANES)
        fixed = rows * kernels.ELEMENTS * LANES
        length = e.add(e.mul(e.add(query, weights), rows), fixed)
        sums = op.scratch(e.add(e.i64(shared), e.mul(op.thread, length)))
        queries = e.element(sums, fixed, F32)
        own = e.buffer(I64, rows * ROW_BYTES // 8)
        return cls(e, own, sums, queries, e.element(queries, e.mul(query, rows), F32), query, weights)

    def row(self, number: int | V) -> RowAccess:
        """A Row; it has no memory yet."""
        return RowAccess(self.e, self.rows, number)

    def prepare(self, number: int | V, first: V, stop: V, begin: V, end: V) -> RowAccess:
        """A Row with memory for its query and weights, for the positions first..stop-1, in steps begin..end-1."""
        e, row, number = self.e, self.row(number), self.e.i64(number)
        query = e.element(self.queries, e.mul(number, self.query_words), F32)
        weights = e.element(self.weights, e.mul(number, self.weight_words), F32)
        numbers = {
            "query": e.builder.ptrtoint(query, I64),
            "weights": e.sub(e.builder.ptrtoint(weights, I64), e.mul(begin, 4)),
            "scores": I64(0),
            "first": first,
            "stop": stop,
            "begin": begin,
            "end": end,
            "bias": I64(0),
            "slope": I64(0),
            "has_sink": I64(0),
            "sink": I64(0),
            "watched_scores": I64(0),
            "watched_softmax": I64(0),
            "watched_values": I64(0),
        }
        for name, value in numbers.items():
            row.store(name, value)
        return row


def whole_steps(e: Emitter, first: V, stop: V) -> tuple[V, V]:
    """(begin, end) of the steps of 64 positions around first..stop-1."""
    return e.mul(e.builder.udiv(first, I64(LANES)), LANES), e.mul(e.ceil_div(stop, LANES), LANES)


def first_seen(e: Emitter, position: V, window: V) -> V:
    """The first position that the row at `position` sees."""
    limited = e.maximum(e.add(e.sub(position, window), 1), 0)
    return e.builder.select(e.equal(window, 0), I64(0), limited)


# ---------------------------------------------------------------------------------------------------- instructions


class _Attention:
    """Common part of the three instructions: rows in flight, the positions that they see."""

    def __init__(self, op: Operation):
        self.op, self.e, self.rows = op, op.e, op.rows()
        self.position = op.position(self.rows)
        self.window = op.immediate("window")
        self.first = first_seen(op.e, self.position, self.window)
        self.stop = op.e.add(self.position, self.rows)
        self.columns = op.e.sub(self.stop, self.first)
        count, words = op.e.mul(self.rows, self.columns), op.context.load("lmu_words")
        op.fault_if(op.e.less(words, count), Fault.LMU_ELEMENTS, count, words)

    def seen(self, name: str) -> LmuRows:
        """The columns seen of an operand, from position `first` on."""
        return self.op.lmu(name, self.rows, self.columns, added=self.first)

    def number(self, name: str) -> V:
        """An optional operand of one f32 in HBM; 0 when it is absent."""
        op, e, present = self.op, self.e, self.op.present(name)
        place, value = op.words(name, e.builder.select(present, I64(1), I64(0))), e.local(F32, F32(0.0))
        with e.if_then(present):
            value.set(e.load(place.pointer(0), F32))
        return value.get()

    def cache(self, rows: V, columns: V) -> V:
        """Pointer to the matrix in the operand `cache`, which is in the run-time area."""
        e, tiles = self.e, self.op.tiles("cache", rows, columns, written=True)
        return e.offset(e.load(tiles.channels, POINTER), e.mul(tiles.beat, tiles.stride))

    def workspace(self, size: V) -> Workspace:
        """This thread's workspace for one row, behind the memory of `snapshot`."""
        words = self.op.context.load("lmu_words")
        return Workspace.of(self.op, 1, size, words, words)

    def each_row(self, dst: LmuRows, written: V, work: Callable[[V, RowAccess], None], space: Workspace) -> None:
        """work(row, its Row) for each of this thread's rows; dst: where they write so many words."""
        op, e = self.op, self.e
        begin, end = op.share_rows(dst, self.rows, written)
        with e.loop(begin, end) as row:
            op.check_stop()
            own = e.add(self.position, row)
            first, stop = first_seen(e, own, self.window), e.add(own, 1)
            work(row, space.prepare(0, first, stop, *whole_steps(e, first, stop)))

    def snapshot(self, src: LmuRows, dst: LmuRows, same_rows: bool = False) -> LmuRows:
        """The operand `src`, copied away where writing `dst` would change words that are still to be read."""
        op, e, b = self.op, self.e, self.e.builder
        harmless = op.apart(src, dst)
        if same_rows:
            same = b.and_(e.equal(src.first, dst.first), e.equal(src.last, dst.last))
            harmless = b.or_(harmless, b.and_(same, b.icmp_signed(">=", src.stride, self.columns)))
        pointer = e.local(POINTER, src.pointer)
        with e.if_then(b.not_(harmless), likely=False):
            with e.if_then(e.equal(op.thread, 0)):
                e.copy(op.scratch(), src.pointer, e.mul(e.add(e.sub(src.last, src.first), 1), 4))
            op.barrier()
            pointer.set(op.scratch())
        return LmuRows(e, pointer.get(), src.stride, src.first, src.last)

    def typed(self, call: Callable[[str], None]) -> None:
        """call(matrix type) for the one of the operand `type`."""
        choose(self.e, self.op.choice("type"), [lambda name=name: call(name) for name in MATRIX_TYPES])

    def watch(self, row: RowAccess, names: Sequence[str]) -> None:
        for name in names:
            self.op.watch_bits(self.e.builder.trunc(row.load(name), I32))

    def copy_seen(self, row: RowAccess, number: V, rows: LmuRows, *, to_row: bool) -> None:
        """Copies the columns that the row sees from its weights to `rows`, or from `rows` to its weights."""
        e, first = self.e, row.load("first")
        words = e.element(rows.row(number), e.sub(first, self.first), F32)
        own = row.place("weights", first)
        size = e.mul(e.sub(row.load("stop"), first), 4)
        e.copy(own if to_row else words, words if to_row else own, size)


def _scratch(values: Values, sizes: Sizes) -> int:
    """A snapshot of the LMU, and each thread's workspace."""
    return sizes.lmu_words + sizes.threads * workspace_words(1, values.get("size", 1), sizes.lmu_words)


@emits("scores", scratch=_scratch)
def scores(op: Operation) -> None:
    e, a = op.e, _Attention(op)
    size = op.immediate("size")
    keys = a.cache(a.stop, size)
    query = op.lmu("query", a.rows, size)
    slope, has_slope = a.number("slope"), op.present("slope")
    distance, rounded = (I64(BIASES.index(name)) for name in ("distance", "rounded"))
    bias = e.builder.select(e.equal(op.immediate("bf16_bias"), 0), distance, rounded)
    dst = a.seen("dst")
    query = a.snapshot(query, dst)
    trees, steps = op.context.load("trees"), e.ceil_div(size, LANES)
    scale, cap = op.floating("scale"), op.floating("softcap")

    def work(number: V, row: RowAccess) -> None:
        row.store("bias", e.builder.select(has_slope, bias, I64(0)))
        row.store_number("slope", slope)

        def call(matrix_type: str) -> None:
            e.call(kernels.round_query(e, matrix_type), [row.pointer, query.row(number), size])
            kernel = kernels.scores_kernel(e, matrix_type, 1)

            def part(first: V, stop: V) -> None:
                e.call(kernel, [row.pointer, keys, trees, steps, first, stop, scale, cap])

            by_spans(op, row.load("first"), row.load("stop"), e.mul(steps, LANES), LANES, part)

        a.typed(call)
        a.watch(row, ("watched_scores",))
        a.copy_seen(row, number, dst, to_row=False)

    a.each_row(dst, a.columns, work, a.workspace(size))


@emits("softmax", scratch=_scratch)
def softmax(op: Operation) -> None:
    e, a = op.e, _Attention(op)
    src, sink = a.seen("src"), a.number("sink")
    dst = a.seen("dst")
    src = a.snapshot(src, dst, same_rows=True)

    def work(number: V, row: RowAccess) -> None:
        row.store("has_sink", e.builder.zext(op.present("sink"), I64))
        row.store_number("sink", sink)
        a.copy_seen(row, number, src, to_row=True)
        e.call(kernels.softmax_kernel(e, None), [row.pointer])
        a.watch(row, ("watched_softmax",))
        a.copy_seen(row, number, dst, to_row=False)

    a.each_row(dst, a.columns, work, a.workspace(I64(1)))


@emits("values", scratch=_scratch)
def values(op: Operation) -> None:
    e, a = op.e, _Attention(op)
    size, limit = op.immediate("size"), op.immediate("limit")
    op.fault_if(e.less(limit, a.stop), Fault.CACHE_LIMIT, e.sub(a.stop, 1), limit)
    cache = a.cache(size, limit)
    src = a.seen("src")
    dst = op.lmu("dst", a.rows, size)
    src = a.snapshot(src, dst)
    trees, steps = op.context.load("trees"), e.ceil_div(limit, LANES)
    space = a.workspace(size)

    def work(number: V, row: RowAccess) -> None:
        a.copy_seen(row, number, src, to_row=True)
        row.store("result", e.builder.ptrtoint(dst.row(number), I64))

        def call(matrix_type: str) -> None:
            e.call(kernels.round_weights(e, matrix_type), [row.pointer])
            kernel = kernels.values_kernel(e, matrix_type, 1)

            def part(first: V, stop: V) -> None:
                e.call(kernel, [row.pointer, cache, trees, steps, first, stop, space.sums])

            by_spans(op, I64(0), size, a.columns, kernels.ELEMENTS, part)

        a.typed(call)
        a.watch(row, ("watched_values",))

    a.each_row(dst, size, work, space)


def by_spans(op: Operation, begin: V, end: V, width: V, grid: int, call: Callable[[V, V], None]) -> None:
    """call(first, stop) for parts of begin..end-1 that begin on multiples of `grid`, `width` elements to each number;
    the stop flag is looked at before each part."""
    e = op.e
    span = e.maximum(e.builder.udiv(I64(SPAN), e.maximum(width, 1)), grid)
    span = e.sub(span, e.builder.urem(span, I64(grid)))
    start = e.sub(begin, e.builder.urem(begin, I64(grid)))
    with e.loop(start, end, span) as first:
        op.check_stop()
        call(e.maximum(first, begin), e.minimum(e.add(first, span), end))


def cache_bytes(e: Emitter, trees: V, rows: V, columns: V) -> V:
    """Bytes of a matrix in tile order."""
    tiles = e.mul(e.ceil_div(rows, trees), e.ceil_div(columns, LANES))
    return e.mul(tiles, e.mul(trees, TREE_BYTES))
