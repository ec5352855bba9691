"""Kernels of attention: a few rows at a time against the keys and values of one head, in place in the KV cache.

Up to `row_counts(features)[-1]` rows share each read from the cache. Each kernel is a function of the module, does a
step of docs/arithmetic.md, section 8, for `Row`s, and returns 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hyperdex_ir.interpreter import functions
from hyperdex_ir.isa.formats import BF16, FORMATS
from hyperdex_ir.native.attention.rows import (
    BIASES,
    RowAccess,
    add_products,
    load_row_start,
    load_step,
    positions_mask,
)
from hyperdex_ir.native.convert import rounded
from hyperdex_ir.native.emit import F32, I1, I32, I64, POINTER, Emitter, V, vector
from hyperdex_ir.native.fold import add_halves, finish
from hyperdex_ir.native.kernels import Most, kernel, load_words, zero_lanes
from hyperdex_ir.native.llvm_ops import LlvmOps
from hyperdex_ir.native.mac import multiply_add
from hyperdex_ir.targets import LANES, TREE_BYTES

#: Result elements whose sums are kept at a time, and steps of positions that each element gets in turn: 16 KiB of
#: cache.
ELEMENTS, STEPS = 16, 8
_EDGES = 4  # steps that only some of a kernel's rows see all of: two at either end
_AHEAD = 4096  # bytes of keys that are asked for before they are needed
_MINUS_INFINITY, _NAN = 0xFF800000, 0x7FC00000
_LINE = 64  # bytes of a cache line


# ---------------------------------------------------------------------------------------------------- queries


def round_query(e: Emitter, matrix_type: str) -> Any:
    """i64 f(ptr row, ptr source, i64 size): the query at `source`, rounded, to the row's `query`."""

    def body(e: Emitter, row: V, source: V, size: V) -> V:
        lanes = e.features.lanes
        access, most = RowAccess(e, row), Most(e)
        target = access.pointer_of("query")
        with e.loop(0, e.mul(e.ceil_div(size, LANES), LANES), lanes) as at:
            left = e.maximum(e.sub(size, at), 0)
            x = load_row_start(e, e.element(source, at, F32), left)
            x = rounded(e, x, matrix_type)
            most.see(x)
            e.store(x, e.element(target, at, F32))
        access.watch("watched_scores", most.bits)
        return I64(0)

    return kernel(e, f"round_query_{matrix_type}", I64, (POINTER, POINTER, I64), body)


# ---------------------------------------------------------------------------------------------------- scores


def scores_kernel(e: Emitter, matrix_type: str, count: int) -> Any:
    """i64 f(ptr rows, ptr keys, i64 trees, i64 steps, i64 first, i64 stop, f32 scale, f32 softcap): the scores of
    `count` rows at positions first..stop-1, which is all that any of them sees, to their `weights`."""

    def body(e: Emitter, rows: V, keys: V, trees: V, steps: V, first: V, stop: V, scale: V, cap: V) -> V:
        lanes = e.features.lanes
        each = [RowAccess(e, rows, number) for number in range(count)]
        most = [Most(e) for _ in each]
        parts = [e.buffer(vector(F32, lanes), lanes) for _ in each]
        single = e.equal(steps, 1) if FORMATS[matrix_type].exact_products else I1(0)
        walk = _CacheWalk(e, keys, trees, steps, e.sub(first, e.builder.urem(first, I64(lanes))), stop)
        with e.loop(walk.start, stop, lanes) as block:
            with e.loop(0, lanes) as key:
                pointer = walk.next()
                folded = [e.local(vector(F32, lanes)) for _ in each]

                def keep(values: Sequence[V]) -> None:
                    for local, value in zip(folded, values, strict=True):
                        local.set(value)

                with e.if_else(single) as (one, several):
                    with one:
                        queries = [load_words(e, row.pointer_of("query")) for row in each]
                        keep(_single_products(e, pointer, queries, matrix_type))
                    with several:
                        keep(_key_products(e, pointer, walk.pitch, steps, each, matrix_type))
                for part, value in zip(parts, folded, strict=True):
                    e.store(value.get(), e.element(part, key, vector(F32, lanes)), align=4 * lanes)
            for row, part, watch in zip(each, parts, most, strict=True):
                _finish_scores(e, row, part, watch, block, scale, cap)
        for row, watch in zip(each, most, strict=True):
            row.watch("watched_scores", watch.bits)
        return I64(0)

    parameters = (POINTER, POINTER, I64, I64, I64, I64, F32, F32)
    return kernel(e, f"scores_{matrix_type}_{count}", I64, parameters, body)


class _CacheWalk:
    """Walks from row to row of a matrix in the cache. It stays at the last row, `stop` - 1, so that nothing outside is
    read. pitch: bytes from step to step."""

    def __init__(self, e: Emitter, matrix: V, trees: V, steps: V, start: V, stop: V):
        b = e.builder
        self._e, self._trees, self._stop, self.start = e, trees, stop, start
        self.pitch = e.mul(trees, TREE_BYTES)
        self._jump = e.sub(e.mul(steps, self.pitch), e.mul(e.sub(trees, 1), TREE_BYTES))  # bytes to the next group
        group, tree = b.udiv(start, trees), b.urem(start, trees)
        at = e.add(e.mul(e.mul(group, steps), self.pitch), e.mul(tree, TREE_BYTES))
        self._pointer = e.local(POINTER, e.offset(matrix, at))
        self._tree, self._position = e.local(I64, tree), e.local(I64, start)

    def next(self) -> V:
        """The address of step 0 of the current row; then moves on to the next row."""
        e, b = self._e, self._e.builder
        pointer, tree = self._pointer.get(), self._tree.get()
        position = e.add(self._position.get(), 1)
        self._position.set(position)
        next_tree = e.add(tree, 1)
        wraps = e.equal(next_tree, self._trees)
        step = b.select(wraps, self._jump, I64(TREE_BYTES))
        self._tree.set(b.select(wraps, I64(0), next_tree))
        self._pointer.set(e.offset(pointer, b.select(e.less(position, self._stop), step, I64(0))))
        return pointer


def _key_products(e: Emitter, pointer: V, pitch: V, steps: V, each: Sequence[RowAccess], matrix_type: str) -> list[V]:
    """The 64 lanes of a key times each row's query, folded to one vector."""
    sums = [zero_lanes(e) for _ in each]

    def add(step: V) -> None:
        place = e.offset(pointer, e.mul(step, pitch))
        for line in (0, _LINE):
            e.prefetch(e.offset(place, _AHEAD + line))
        key = load_step(e, place, matrix_type)
        for row, lanes64 in zip(each, sums, strict=True):
            query = load_words(e, e.element(row.pointer_of("query"), e.mul(step, LANES), F32))
            add_products(e, lanes64, key, query, matrix_type)

    with e.loop(0, steps) as step:
        add(step)
    return [add_halves(e, [lane.get() for lane in lanes64]) for lanes64 in sums]


def _single_products(e: Emitter, pointer: V, queries: Sequence[Sequence[V]], matrix_type: str) -> list[V]:
    """The same for keys of one step, where products are exact, so that the fold's first addition can be fused with one
    of its terms: x * y + (v * w) rounded once is the sum of the two products."""
    for line in (0, _LINE):
        e.prefetch(e.offset(pointer, _AHEAD + line))
    key = load_step(e, pointer, matrix_type)
    half = len(key) // 2
    results: list[V] = []
    for query in queries:
        low = [e.fmul(x, y) for x, y in zip(key[:half], query[:half], strict=True)]
        lanes = zip(key[half:], query[half:], low, strict=True)
        results.append(add_halves(e, [multiply_add(e, x, y, term, matrix_type) for x, y, term in lanes]))
    return results


def _finish_scores(e: Emitter, row: RowAccess, part: V, most: Most, block: V, scale: V, cap: V) -> None:
    """Scores of the positions from `block` on, from folded lanes of each in turn: scaled, capped, biased, watched,
    stored."""
    b, lanes = e.builder, e.features.lanes
    type_ = vector(F32, lanes)
    columns = [e.load(e.element(part, number, type_), type_, align=4 * lanes) for number in range(lanes)]
    y = e.local(type_, b.fmul(finish(e, columns), e.splat(scale, lanes)))
    with e.if_then(b.fcmp_unordered("!=", cap, F32(0.0)), likely=False):
        ops, limit = LlvmOps(b, lanes), e.splat(cap, lanes)
        y.set(ops.mul(functions.tanh(ops, ops.div(y.get(), limit)), limit))
    with e.if_then(b.icmp_signed("!=", row.load("bias"), I64(0)), likely=False):
        y.set(b.fadd(y.get(), _bias(e, row, block, scale)))
    mask = positions_mask(e, block, row.load("first"), row.load("stop"))
    most.see(y.get(), mask)
    e.store(y.get(), row.place("weights", block))


def _bias(e: Emitter, row: RowAccess, block: V, scale: V) -> V:
    """Bias added to the scores of the positions from `block` on."""
    b, lanes = e.builder, e.features.lanes
    is_rounded = e.equal(row.load("bias"), BIASES.index("rounded"))
    own = e.sub(row.load("stop"), 1)
    start = e.sub(block, b.select(is_rounded, I64(0), own))
    numbers = b.add(e.lanes(I32, range(lanes)), e.splat(b.trunc(start, I32), lanes))
    factor, x = e.splat(row.number("slope"), lanes), b.sitofp(numbers, vector(F32, lanes))
    y = e.local(x.type, b.fmul(factor, x))
    with e.if_then(is_rounded):
        product = rounded(e, b.fmul(factor, rounded(e, x, BF16.name)), BF16.name)
        y.set(b.fmul(product, e.splat(scale, lanes)))
    return y.get()


# ---------------------------------------------------------------------------------------------------- softmax


def softmax_kernel(e: Emitter, matrix_type: str | None) -> Any:
    """i64 f(ptr row): turns the scores of the positions seen in `weights` into weights, +0 around them from begin to
    end; copies them to `scores`, unless null; then rounds them to the matrix type, unless None."""

    def body(e: Emitter, pointer: V) -> V:
        row = RowAccess(e, pointer)
        first, stop, begin, end = (row.load(name) for name in ("first", "stop", "begin", "end"))
        b, lanes = e.builder, e.features.lanes
        most = e.local(vector(F32, lanes), _largest(e, row, begin, end, first, stop))
        has_sink, sink = e.equal(row.load("has_sink"), 1), e.splat(row.number("sink"), lanes)
        with e.if_then(has_sink, likely=False):
            most.set(b.select(b.fcmp_ordered(">", most.get(), sink), most.get(), sink))
        total = e.local(F32, _exponentials(e, row, begin, end, first, stop, most.get()))
        with e.if_then(has_sink, likely=False):
            ops = LlvmOps(b, lanes)
            weight = functions.exp(ops, ops.sub(sink, most.get()))
            total.set(b.fadd(total.get(), e.extract(weight, 0)))
        _divide(e, row, begin, end, total.get())
        with e.if_then(e.builder.icmp_signed("!=", row.load("scores"), I64(0))):
            e.copy(row.place("scores", first), row.place("weights", first), e.mul(e.sub(stop, first), 4))
        if matrix_type is not None:
            e.call(round_weights(e, matrix_type), [pointer])
        return I64(0)

    return kernel(e, f"softmax_{matrix_type}", I64, (POINTER,), body)


def _largest(e: Emitter, row: RowAccess, begin: V, end: V, first: V, stop: V) -> V:
    """The largest score seen, in all lanes; a NaN when a score is a NaN."""
    b, lanes = e.builder, e.features.lanes
    type_ = vector(F32, lanes)
    least = e.splat(e.f32_bits(_MINUS_INFINITY), lanes)
    most, unordered = e.local(type_, least), e.local(vector(I1, lanes), e.zero(vector(I1, lanes)))
    with e.loop(begin, end, lanes) as at:
        mask = positions_mask(e, at, first, stop)
        x = b.select(mask, e.load(row.place("weights", at), type_), least)
        unordered.set(b.or_(unordered.get(), b.fcmp_unordered("uno", x, x)))
        old = most.get()
        most.set(b.select(b.fcmp_ordered(">", x, old), x, old))
    nan = e.splat(e.f32_bits(_NAN), lanes)
    x = b.select(unordered.get(), nan, most.get())
    half = lanes // 2
    while half:
        other = e.shuffle(x, None, [i ^ half for i in range(lanes)])
        take_other = b.or_(b.fcmp_ordered(">", other, x), b.fcmp_unordered("uno", other, other))
        x = b.select(take_other, other, x)
        half //= 2
    return x


def _exponentials(e: Emitter, row: RowAccess, begin: V, end: V, first: V, stop: V, most: V) -> V:
    """Replaces scores by exp(score - most) where a position is seen, by +0 elsewhere; returns the sum, f32."""
    b, lanes = e.builder, e.features.lanes
    type_ = vector(F32, lanes)
    ops, sums = LlvmOps(b, lanes), zero_lanes(e)
    with e.loop(begin, end, LANES) as at:
        for number, lane in enumerate(sums):
            position = e.add(at, number * lanes)
            place = row.place("weights", position)
            mask = positions_mask(e, position, first, stop)
            value = functions.exp(ops, ops.sub(e.load(place, type_), most))
            value = b.select(mask, value, e.zero(type_))
            e.store(value, place)
            lane.set(b.fadd(lane.get(), value))
    return e.extract(finish(e, [add_halves(e, [lane.get() for lane in sums])]), 0)


def _divide(e: Emitter, row: RowAccess, begin: V, end: V, total: V) -> None:
    """Divides by the sum, in place. Around the positions seen, +0 / total is +0, or NaN where all weights are NaN."""
    lanes, most = e.features.lanes, Most(e)
    divisor = e.splat(total, lanes)
    with e.loop(begin, end, lanes) as at:
        place = row.place("weights", at)
        value = e.builder.fdiv(e.load(place, vector(F32, lanes)), divisor)
        most.see(value)
        e.store(value, place)
    row.watch("watched_softmax", most.bits)


def round_weights(e: Emitter, matrix_type: str) -> Any:
    """i64 f(ptr row): rounds the weights of the positions seen to the matrix type, +0 around them from begin to end."""

    def body(e: Emitter, pointer: V) -> V:
        row, lanes, most = RowAccess(e, pointer), e.features.lanes, Most(e)
        first, stop = row.load("first"), row.load("stop")
        with e.loop(row.load("begin"), row.load("end"), lanes) as at:
            place = row.place("weights", at)
            value = e.load(place, vector(F32, lanes))
            value = e.builder.select(positions_mask(e, at, first, stop), value, e.zero(value.type))
            value = rounded(e, value, matrix_type)
            most.see(value)
            e.store(value, place)
        row.watch("watched_values", most.bits)
        return I64(0)

    return kernel(e, f"round_weights_{matrix_type}", I64, (POINTER,), body)


# ---------------------------------------------------------------------------------------------------- values


def values_kernel(e: Emitter, matrix_type: str, count: int) -> Any:
    """i64 f(ptr rows, ptr values, i64 trees, i64 steps, i64 first, i64 size, ptr sums): the sums of the cache's rows
    first..size-1 by the weights of `count` rows, to their `result`; those rows' positions are at most `count` apart.
    sums: f32 [ELEMENTS, count, 64], private to the thread."""

    def body(e: Emitter, rows: V, values: V, trees: V, steps: V, first: V, size: V, sums: V) -> V:
        ranges = _StepRanges(e, [RowAccess(e, rows, number) for number in range(count)])
        with e.loop(first, size, ELEMENTS) as block:
            with e.loop(ranges.begin, ranges.end, STEPS) as begin:
                span = (begin, e.minimum(e.add(begin, STEPS), ranges.end))
                walk = _CacheWalk(e, values, trees, steps, block, size)
                with e.loop(0, ELEMENTS) as element:
                    places = _sums_of(e, sums, element, count)
                    _add_steps(e, ranges, walk.next(), walk.pitch, span, places, matrix_type)
            _finish_values(e, ranges.rows, sums, block, e.sub(size, block))
        return I64(0)

    return kernel(e, f"values_{matrix_type}_{count}", I64, (POINTER, POINTER, I64, I64, I64, I64, POINTER), body)


def _sums_of(e: Emitter, sums: V, element: V, count: int) -> list[V]:
    """The addresses of an element's 64 sums for each row."""
    start = e.mul(element, count)
    return [e.element(sums, e.mul(e.add(start, row), LANES), F32) for row in range(count)]


class _StepRanges:
    """Ranges of steps. Steps begin..end-1 hold the positions that some row sees; all rows see all of steps
    whole_begin..whole_end-1. For the other steps, `masks` has words of ones where a row sees a position: [at most
    _EDGES steps, rows, 64]."""

    def __init__(self, e: Emitter, rows: Sequence[RowAccess]):
        self._e, self.rows = e, rows
        firsts, stops = [row.load("first") for row in rows], [row.load("stop") for row in rows]
        self.begin, self.end = (e.builder.udiv(rows[0].load(name), I64(LANES)) for name in ("begin", "end"))
        self.whole_begin = e.minimum(e.ceil_div(_extreme(e.maximum, firsts), LANES), self.end)
        whole_end = e.builder.udiv(_extreme(e.minimum, stops), I64(LANES))
        self.whole_end = e.maximum(whole_end, self.whole_begin)
        self._type = vector(I32, e.features.lanes)
        self._masks = e.buffer(self._type, _EDGES * len(rows) * LANES // e.features.lanes)
        lead = e.sub(self.whole_begin, self.begin)
        with e.loop(0, e.add(lead, e.sub(self.end, self.whole_end))) as edge:
            behind = e.add(self.whole_end, e.sub(edge, lead))
            step = e.builder.select(e.less(edge, lead), e.add(self.begin, edge), behind)
            for number, limits in enumerate(zip(firsts, stops, strict=True)):
                self._store_mask(edge, number, e.mul(step, LANES), limits)

    def _store_mask(self, edge: V, row: int, position: V, limits: tuple[V, V]) -> None:
        e, lanes = self._e, self._e.features.lanes
        for number in range(LANES // lanes):
            mask = positions_mask(e, e.add(position, number * lanes), *limits)
            e.store(e.builder.sext(mask, self._type), self._mask(edge, row, number))

    def _mask(self, edge: V, row: int, number: int) -> V:
        """The address of a vector of the masks."""
        e, count = self._e, LANES // self._e.features.lanes
        first = e.mul(e.add(e.mul(edge, len(self.rows)), row), count)
        return e.element(self._masks, e.add(first, number), self._type)

    def visible(self, values: Sequence[V], step: V, row: int) -> list[V]:
        """64 elements of the cache; those that the row does not see are +0, whatever the cache holds there."""
        e, b = self._e, self._e.builder
        behind = e.sub(step, e.sub(self.whole_end, e.sub(self.whole_begin, self.begin)))
        edge = b.select(e.less(step, self.whole_begin), e.sub(step, self.begin), behind)
        result: list[V] = []
        for number, value in enumerate(values):
            ones = e.load(self._mask(edge, row, number), self._type)
            result.append(b.bitcast(b.and_(b.bitcast(value, self._type), ones), value.type))
        return result


def _extreme(choose: Callable[[V, V], V], values: Sequence[V]) -> V:
    result, *others = values
    for value in others:
        result = choose(result, value)
    return result


def _add_steps(
    e: Emitter, ranges: _StepRanges, start: V, pitch: V, span: tuple[V, V], places: Sequence[V], matrix_type: str
) -> None:
    """Adds the products of the steps in `span` of the row at `start` to the sums at `places`, one for each Row. The
    first steps begin with +0; after the last ones the sums are left folded, one vector each."""
    (begin, end), lanes = span, e.features.lanes
    sums = [zero_lanes(e) for _ in places]
    with e.if_then(e.less(ranges.begin, begin)):
        for place, lanes64 in zip(places, sums, strict=True):
            for lane, word in zip(lanes64, load_words(e, place), strict=True):
                lane.set(word)

    def add(step: V, masked: bool) -> None:
        place = e.offset(start, e.mul(step, pitch))
        for line in (0, _LINE):
            e.prefetch(e.offset(place, e.add(e.mul(pitch, STEPS), line)))
        values = load_step(e, place, matrix_type)
        for number, (row, lanes64) in enumerate(zip(ranges.rows, sums, strict=True)):
            own = ranges.visible(values, step, number) if masked else values
            weights = load_words(e, row.place("weights", e.mul(step, LANES)))
            add_products(e, lanes64, own, weights, matrix_type)

    whole_begin, whole_end = (e.minimum(e.maximum(at, begin), end) for at in (ranges.whole_begin, ranges.whole_end))
    parts = ((begin, whole_begin, True), (whole_begin, whole_end, False), (whole_end, end, True))
    for start_step, stop_step, masked in parts:
        with e.loop(start_step, stop_step) as step:
            add(step, masked)
    with e.if_else(e.less(end, ranges.end)) as (more, last):
        with more:
            for place, lanes64 in zip(places, sums, strict=True):
                for number, lane in enumerate(lanes64):
                    e.store(lane.get(), e.element(place, number * lanes, F32))
        with last:
            for place, lanes64 in zip(places, sums, strict=True):
                e.store(add_halves(e, [lane.get() for lane in lanes64]), place)


def _finish_values(e: Emitter, rows: Sequence[RowAccess], sums: V, block: V, left: V) -> None:
    """Finishes ELEMENTS folded sums of each row and stores the first `left` of them."""
    lanes = e.features.lanes
    for number, row in enumerate(rows):
        most = Most(e)
        for start in range(0, ELEMENTS, lanes):
            folded = [e.element(sums, ((start + i) * len(rows) + number) * LANES, F32) for i in range(lanes)]
            y = finish(e, [e.load(place, vector(F32, lanes)) for place in folded])
            count = e.maximum(e.sub(left, start), 0)
            most.see(y, e.first_lanes(count, y.type))
            e.store_first(y, e.element(row.pointer_of("result"), e.add(block, start), F32), count)
        row.watch("watched_values", most.bits)
