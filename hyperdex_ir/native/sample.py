"""The instruction sample: docs/arithmetic.md, section 9, for one row of logits split over the threads.

Each thread works on its own blocks of columns. Numbers that all threads need (largest logit, sums of weights,
histograms) go through records in scratch memory, with a barrier before they are read. All sums are of integers, so
threads may add in any order.
"""

from __future__ import annotations

from dataclasses import dataclass

from hyperdex_ir.interpreter import functions
from hyperdex_ir.isa.faults import Fault
from hyperdex_ir.isa.instructions import POSITION, TOKENS
from hyperdex_ir.isa.settings import SAMPLE, SETTINGS_BYTES
from hyperdex_ir.native.emit import F32, I8, I32, I64, I128, V, vector
from hyperdex_ir.native.llvm_ops import LlvmOps
from hyperdex_ir.native.memory_access import Words
from hyperdex_ir.native.operation import Operation, Sizes, Values, emits
from hyperdex_ir.native.philox import draw
from hyperdex_ir.native.top_columns import HISTOGRAM_WORDS, RECORD_WORDS, Row, keep_first, lane_bits, lowest_bit

_BLOCK = 64  # columns that no two threads share
_LARGEST, _WORST, _COLUMN, _SUMS = 0, 4, 8, (16, 24)  # bytes in a record
_NONFINITE = 0x7F800000
_MINUS_INFINITY = 0xFF800000


def _scratch(values: Values, sizes: Sizes) -> int:
    if not sizes.fit(values["columns"]):
        return 0
    columns = -(-values["columns"] // _BLOCK) * _BLOCK
    marks = columns // 4
    return sizes.threads * (RECORD_WORDS + HISTOGRAM_WORDS) + 3 * columns + marks


@dataclass(frozen=True)
class _Settings:
    """The settings, loaded: i64 and f32 values."""

    mode: V
    top_k: V
    seed: V
    temperature: V
    top_p: V
    penalty: V


@emits("sample", scratch=_scratch)
def sample(op: Operation) -> None:
    e, b = op.e, op.e.builder
    rows, columns = op.rows(), op.immediate("columns")
    op.fault_if(e.equal(columns, 0), Fault.NO_COLUMNS)
    logits = op.lmu("src", rows, columns).row(e.sub(rows, 1))
    area = op.words("settings", e.add(e.ceil_div(columns, 8), SETTINGS_BYTES // 8), item=8, written=True)
    settings = _load_settings(op, area)
    position = e.sub(e.add(op.register_value(POSITION), op.register_value(TOKENS)), 1)
    row = _row(op, columns)
    penalized = b.fcmp_unordered("!=", settings.penalty, e.f32(1.0))
    with e.if_then(penalized, likely=False):
        _penalize(row, logits, area, settings.penalty)
    logits = b.select(penalized, row.keys, logits)
    _find_largest(row, logits)
    op.barrier()
    largest, column, finite = _largest_of_all(row)
    chosen = e.local(I64, column)
    with e.if_then(b.and_(finite, e.equal(settings.mode, SAMPLE)), likely=False):
        _weigh(row, logits, largest, settings.temperature)
        _keep(row, settings)
        chosen.set(_drawn(row, draw(op.e, settings.seed, position)))
    op.set_register(op.immediate("dst"), b.select(finite, chosen.get(), I64(0)))


def _load_settings(op: Operation, area: Words) -> _Settings:
    """Loads and checks them: the refusals of isa/settings.py, in their order."""
    e, b = op.e, op.e.builder
    mode, top_k, seed = (e.load(area.pointer(number), I64) for number in range(3))
    temperature, top_p = e.load(area.pointer(3), F32), e.load(e.offset(area.pointer(3), 4), F32)
    penalty = e.load(area.pointer(4), F32)
    checks = (
        b.icmp_unsigned("<=", mode, I64(SAMPLE)),
        b.icmp_signed(">=", top_k, I64(0)),
        _between(op, temperature),
        b.and_(b.fcmp_ordered(">=", top_p, e.f32(0.0)), b.fcmp_ordered("<=", top_p, e.f32(1.0))),
        _between(op, penalty),
    )
    for number, right in enumerate(checks):
        op.fault_if(b.not_(right), Fault.SETTINGS, number)
    return _Settings(mode, top_k, seed, temperature, top_p, penalty)


def _between(op: Operation, value: V) -> V:
    """i1: 0 < value < infinity."""
    b, e = op.e.builder, op.e
    return b.and_(b.fcmp_ordered(">", value, e.f32(0.0)), b.fcmp_ordered("<", value, e.f32_bits(_NONFINITE)))


def _row(op: Operation, columns: V) -> Row:
    """Divides the blocks among the threads, and the scratch memory among the data kept."""
    e = op.e
    blocks = e.ceil_div(columns, _BLOCK)
    begin, end = (e.mul(number, _BLOCK) for number in op.share(blocks))
    padded = e.mul(blocks, _BLOCK)
    records = op.scratch()
    histograms = e.element(records, e.mul(op.threads, RECORD_WORDS), F32)
    weights = e.element(histograms, e.mul(op.threads, HISTOGRAM_WORDS), F32)
    keys = e.element(weights, e.mul(padded, 2), F32)
    return Row(op, columns, begin, end, records, histograms, weights, keys, e.element(keys, padded, F32))


# ---------------------------------------------------------------------------------------------------- greedy


def _penalize(row: Row, logits: V, area: Words, penalty: V) -> None:
    """Writes the logits into `keys`, with the penalty applied to those of the tokens that the text holds."""
    op, e, b = row.op, row.op.e, row.op.e.builder
    lanes = op.features.lanes
    first = b.udiv(row.begin, I64(8))
    last = e.minimum(b.udiv(row.end, I64(8)), e.ceil_div(row.columns, 8))
    area.copy_to(e.offset(row.marks, row.begin), e.add(first, SETTINGS_BYTES // 8), e.maximum(e.sub(last, first), 0))
    factor = e.splat(penalty, lanes)
    with row.blocks(lanes) as index:
        x = e.load(e.element(logits, index, F32), vector(F32, lanes))
        marks = e.load(e.offset(row.marks, index), vector(I8, lanes))
        seen = b.icmp_unsigned("!=", marks, e.zero(marks.type))
        moved = b.select(b.fcmp_ordered(">", x, e.zero(x.type)), b.fdiv(x, factor), b.fmul(x, factor))
        e.store(b.select(seen, moved, x), e.element(row.keys, index, F32))


def _find_largest(row: Row, logits: V) -> None:
    """This thread's record: its largest logit, the first column that has it, the largest bits without sign."""
    op, e, b = row.op, row.op.e, row.op.e.builder
    lanes = op.features.lanes
    best = e.local(vector(F32, lanes), e.splat(e.f32_bits(_MINUS_INFINITY), lanes))
    worst = e.local(vector(I32, lanes), e.zero(vector(I32, lanes)))
    with row.blocks(lanes) as index:
        x = e.load(e.element(logits, index, F32), vector(F32, lanes))
        inside = row.inside(index, lanes)
        bits = b.select(inside, e.magnitude_bits(x), e.zero(vector(I32, lanes)))
        worst.set(b.select(b.icmp_unsigned(">", bits, worst.get()), bits, worst.get()))
        better = b.and_(inside, b.fcmp_ordered(">", x, best.get()))
        best.set(b.select(better, x, best.get()))
    op.watch_bits(worst.get())
    largest = e.local(F32, e.extract(best.get(), 0))
    for lane in range(1, lanes):
        x = e.extract(best.get(), lane)
        largest.set(b.select(b.fcmp_ordered(">", x, largest.get()), x, largest.get()))
    e.store(largest.get(), row.record(_LARGEST))
    e.store(e.reduce_umax(worst.get()), row.record(_WORST))
    e.store(_first_equal(row, logits, largest.get()), row.record(_COLUMN))


def _first_equal(row: Row, logits: V, value: V) -> V:
    """The first of this thread's columns whose logit equals the value; 0 when there is none."""
    op, e, b = row.op, row.op.e, row.op.e.builder
    lanes = op.features.lanes
    found, index, sought = e.local(I64, I64(0)), e.local(I64, row.begin), e.splat(value, lanes)
    with e.loop_while() as end:
        at = index.get()
        e.leave(end, b.icmp_signed(">=", at, row.end))
        equal = b.fcmp_ordered("==", e.load(e.element(logits, at, F32), vector(F32, lanes)), sought)
        hits = lane_bits(e, equal)
        found.set(e.add(at, lowest_bit(e, hits)))
        e.leave(end, b.icmp_unsigned("!=", hits, I64(0)))
        found.set(I64(0))
        index.set(e.add(at, lanes))
    return found.get()


def _largest_of_all(row: Row) -> tuple[V, V, V]:
    """(largest logit, the first column that has it, i1: all are finite), from all records."""
    op, e, b = row.op, row.op.e, row.op.e.builder
    largest = e.local(F32, e.f32_bits(_MINUS_INFINITY))
    column, worst = e.local(I64, I64(0)), e.local(I32, I32(0))
    with e.loop(0, op.threads) as thread:
        x = e.load(row.record(_LARGEST, thread), F32)
        better = b.fcmp_ordered(">", x, largest.get())
        largest.set(b.select(better, x, largest.get()))
        column.set(b.select(better, e.load(row.record(_COLUMN, thread), I64), column.get()))
        bits = e.load(row.record(_WORST, thread), I32)
        worst.set(b.select(b.icmp_unsigned(">", bits, worst.get()), bits, worst.get()))
    return largest.get(), column.get(), b.icmp_unsigned("<", worst.get(), I32(_NONFINITE))


# ---------------------------------------------------------------------------------------------------- sampling


def _weigh(row: Row, logits: V, largest: V, temperature: V) -> None:
    """Weights and keys of this thread's columns."""
    op, e, b = row.op, row.op.e, row.op.e.builder
    lanes = op.features.lanes
    wide, ops = vector(I64, lanes), LlvmOps(b, lanes)
    scale, shift = ops.constant(0x49800000), _splat(op, wide, 20)  # 2^20
    m, t = e.splat(largest, lanes), e.splat(temperature, lanes)
    outside = e.splat(e.f32_bits(_MINUS_INFINITY), lanes)
    with row.blocks(lanes) as index:
        x = b.select(row.inside(index, lanes), e.load(e.element(logits, index, F32), vector(F32, lanes)), outside)
        upper = b.fmul(functions.exp(ops, b.fdiv(b.fsub(x, m), t)), scale)
        high = b.fptosi(upper, vector(I32, lanes))
        lower = b.fmul(b.fsub(upper, b.sitofp(high, vector(F32, lanes))), scale)
        low = b.fptosi(lower, vector(I32, lanes))
        weight = b.or_(b.shl(b.zext(high, wide), shift), b.zext(low, wide))
        e.store(weight, e.element(row.weights, index, I64))
        e.store(_order_key(ops, x), e.element(row.keys, index, I32))


def _order_key(ops: LlvmOps, x: V) -> V:
    """u32 in the order of the floats; +0 and -0 have the same."""
    bits = ops.bits(ops.add(x, ops.constant(0)))
    return ops.ixor(bits, ops.ior(ops.shift_right(bits, 31), ops.integer(-0x80000000)))


def _splat(op: Operation, type_: V, value: int) -> V:
    return op.e.splat(type_.element(value), type_.count)


def _keep(row: Row, settings: _Settings) -> None:
    """Sets the weights of the columns that top_k and top_p leave out to 0."""
    op, e, b = row.op, row.op.e, row.op.e.builder
    limits = b.and_(b.icmp_signed(">", settings.top_k, I64(0)), e.less(settings.top_k, row.columns))
    with e.if_then(limits):
        keep_first(row, settings.top_k, counting=True)
    share = b.fptoui(b.fmul(settings.top_p, e.f32(2.0**32)), I64)
    with e.if_then(b.icmp_unsigned("<", share, I64(1 << 32))):
        total, _ = _sum_up(row, _SUMS[0])
        enough = _high_product(op, share, total, 32)
        keep_first(row, b.select(e.equal(enough, 0), I64(1), enough), counting=False)


def _sum_up(row: Row, field: int) -> tuple[V, V]:
    """(the sum of all weights, u64; the sum of this thread's). Meets at a barrier and reads the records behind it."""
    op, e, b = row.op, row.op.e, row.op.e.builder
    lanes = op.features.lanes
    own = e.local(vector(I64, lanes), e.zero(vector(I64, lanes)))
    with row.blocks(lanes) as index:
        own.set(b.add(own.get(), e.load(e.element(row.weights, index, I64), vector(I64, lanes))))
    mine = reduce_add(op, own.get())
    e.store(mine, row.record(field))
    op.barrier()
    total = e.local(I64, I64(0))
    with e.loop(0, op.threads) as thread:
        total.set(e.add(total.get(), e.load(row.record(field, thread), I64)))
    return total.get(), mine


def reduce_add(op: Operation, value: V) -> V:
    """The sum of the lanes of a vector of i64."""
    name = f"llvm.vector.reduce.add.v{value.type.count}i64"
    return op.e.call(op.e.declare(name, I64, (value.type,)), [value])


def _high_product(op: Operation, a: V, b: V, shift: int) -> V:
    """(a * b) >> shift, u64, the product exact."""
    builder = op.e.builder
    product = builder.mul(builder.zext(a, I128), builder.zext(b, I128))
    return builder.trunc(builder.lshr(product, I128(shift)), I64)


def _drawn(row: Row, random: V) -> V:
    """The first column at which the running sum of weights exceeds the part of the total that the random number stands
    for."""
    op, e, b = row.op, row.op.e, row.op.e.builder
    lanes = op.features.lanes
    total, _ = _sum_up(row, _SUMS[1])
    target = _high_product(op, random, total, 64)
    before, thread = _thread_of(row, target)
    blocks = e.ceil_div(row.columns, _BLOCK)
    column = e.local(I64, e.mul(b.udiv(e.mul(blocks, thread), op.threads), _BLOCK))
    so_far = e.local(I64, before)
    with e.loop_while() as end:
        weights = e.load(e.element(row.weights, column.get(), I64), vector(I64, lanes))
        after = e.add(so_far.get(), reduce_add(op, weights))
        e.leave(end, b.icmp_unsigned(">", after, target))
        so_far.set(after)
        column.set(e.add(column.get(), lanes))
    with e.loop_while() as end:
        so_far.set(e.add(so_far.get(), e.load(e.element(row.weights, column.get(), I64), I64)))
        e.leave(end, b.icmp_unsigned(">", so_far.get(), target))
        column.set(e.add(column.get(), 1))
    return column.get()


def _thread_of(row: Row, target: V) -> tuple[V, V]:
    """(the sum of the weights before a thread's columns, the thread) where the sum comes to exceed the target."""
    e, b = row.op.e, row.op.e.builder
    before, thread = e.local(I64, I64(0)), e.local(I64, I64(0))
    with e.loop_while() as end:
        after = e.add(before.get(), e.load(row.record(_SUMS[1], thread.get()), I64))
        e.leave(end, b.icmp_unsigned(">", after, target))
        before.set(after)
        thread.set(e.add(thread.get(), 1))
    return before.get(), thread.get()
