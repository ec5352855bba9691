"""Instructions that choose columns, top_k and take_columns, and conversion of a word of the LMU to a number."""

from __future__ import annotations

from typing import Any

from hyperdex_ir.isa.faults import Fault
from hyperdex_ir.native.emit import F32, I32, I64, POINTER, Emitter, V
from hyperdex_ir.native.kernels import kernel
from hyperdex_ir.native.memory_access import LmuRows
from hyperdex_ir.native.moving import watch_words
from hyperdex_ir.native.operation import Operation, Sizes, Values, emits


def number_in(e: Emitter, word: V, limit: V) -> tuple[V, V]:
    """(i1: the f32 is an integer in 0..limit-1; that integer, i64). limit: i64, at most 2^24."""
    b = e.builder
    inside = b.and_(b.fcmp_ordered(">=", word, e.f32(0.0)), b.fcmp_ordered("<", word, b.sitofp(limit, F32)))
    number = b.fptosi(b.select(inside, word, e.f32(0.0)), I64)
    return b.and_(inside, b.fcmp_ordered("==", b.sitofp(number, F32), word)), number


# ---------------------------------------------------------------------------------------------------- top_k


def _top_k_scratch(values: Values, sizes: Sizes) -> int:
    if not sizes.fit(values["columns"], values["k"]):
        return 0
    chosen = min(sizes.chunk * values["k"], sizes.lmu_words)
    return chosen + sizes.threads * (values["columns"] + 2 * values["groups"])


@emits("top_k", scratch=_top_k_scratch)
def top_k(op: Operation) -> None:
    e = op.e
    rows, columns, k = op.rows(), op.immediate("columns"), op.immediate("k")
    groups, top_groups = op.immediate("groups"), op.immediate("top_groups")
    size = _group_size(op, columns, k, groups, top_groups)
    src, dst = op.lmu("src", rows, columns), op.lmu("dst", rows, k)
    own = e.mul(op.thread, e.add(columns, e.mul(groups, 2)))
    allowed = op.scratch(e.add(e.mul(rows, k), own))
    begin, end = op.share(rows)
    with e.loop(begin, end) as row:
        scores, chosen = src.row(row), op.scratch(e.mul(row, k))
        with e.if_else(e.equal(groups, 1)) as (all_columns, some_groups):
            with all_columns:
                _fill(e, allowed, columns, 1)
            with some_groups:
                _allow_groups(op, scores, allowed, columns, groups, top_groups, size)
        with e.loop(0, k) as rank:
            op.check_stop()
            number = e.call(_largest(e), [scores, allowed, columns])
            e.store(e.builder.sitofp(number, F32), e.element(chosen, rank, F32))
    op.barrier()
    _put_rows(op, dst, rows, k)


def _group_size(op: Operation, columns: V, k: V, groups: V, top_groups: V) -> V:
    """Columns of a group. Fault when groups are not equal, or there are not k columns to choose from."""
    e, b = op.e, op.e.builder
    divisor = e.maximum(groups, 1)
    size = b.udiv(columns, divisor)
    wrong = b.or_(e.less(groups, 1), b.icmp_signed("!=", e.mul(size, divisor), columns))
    wrong = b.or_(wrong, b.and_(e.less(1, groups), e.less(size, 2)))
    wrong = b.or_(wrong, b.or_(e.less(top_groups, 1), e.less(groups, top_groups)))
    wrong = b.or_(wrong, b.or_(e.less(k, 1), e.less(e.mul(size, top_groups), k)))
    op.fault_if(wrong, Fault.CHOICE, k, columns, top_groups, groups)
    return size


def _allow_groups(op: Operation, scores: V, allowed: V, columns: V, groups: V, top_groups: V, size: V) -> None:
    """Marks the columns of the groups with the largest sums of their two largest scores."""
    e = op.e
    sums = e.element(allowed, columns, F32)
    left = e.element(sums, groups, F32)
    _fill(e, allowed, columns, 1)
    with e.loop(0, groups) as group:
        first = e.mul(group, size)
        members, marks = e.element(scores, first, F32), e.element(allowed, first, I32)
        best, second = (e.call(_largest(e), [members, marks, size]) for _ in range(2))
        total = e.fadd(*(e.load(e.element(members, number, F32), F32) for number in (best, second)))
        e.store(total, e.element(sums, group, F32))
    _fill(e, allowed, columns, 0)
    _fill(e, left, groups, 1)
    with e.loop(0, top_groups):
        op.check_stop()
        group = e.call(_largest(e), [sums, left, groups])
        _fill(e, e.element(allowed, e.mul(group, size), I32), size, 1)


def _fill(e: Emitter, marks: V, count: V, mark: int) -> None:
    with e.loop(0, count) as index:
        e.store(I32(mark), e.element(marks, index, I32))


def _largest(e: Emitter) -> Any:
    """i64 f(ptr x, ptr allowed, i64 count): the first of the largest f32 that is allowed (i32, not 0); it is no longer
    allowed afterwards."""

    def body(e: Emitter, x: V, allowed: V, count: V) -> V:
        b = e.builder
        best, most = e.local(I64, I64(-1)), e.local(F32, e.f32(0.0))
        with e.loop(0, count) as index:
            word = e.load(e.element(x, index, F32), F32)
            is_better = b.or_(e.less(best.get(), 0), b.fcmp_ordered(">", word, most.get()))
            is_allowed = b.icmp_signed("!=", e.load(e.element(allowed, index, I32), I32), I32(0))
            with e.if_then(b.and_(is_allowed, is_better)):
                best.set(index)
                most.set(word)
        e.store(I32(0), e.element(allowed, best.get(), I32))
        return best.get()

    return kernel(e, "largest_allowed", I64, (POINTER, POINTER, I64), body)


# ---------------------------------------------------------------------------------------------------- take_columns


def _take_scratch(values: Values, sizes: Sizes) -> int:
    return min(sizes.chunk * values["columns"], sizes.lmu_words)


@emits("take_columns", scratch=_take_scratch)
def take_columns(op: Operation) -> None:
    e = op.e
    rows, columns, limit = op.rows(), op.immediate("columns"), op.immediate("limit")
    index = op.lmu("index", rows, columns)
    with e.loop(0, rows) as row, e.loop(0, columns) as rank:
        valid, _ = number_in(e, e.load(e.element(index.row(row), rank, F32), F32), limit)
        op.fault_if(e.builder.not_(valid), Fault.COLUMN_NUMBER, rank, row, limit)
    src, dst = op.lmu("src", rows, limit), op.lmu("dst", rows, columns)
    begin, end = op.share(rows)
    with e.loop(begin, end) as row:
        taken = op.scratch(e.mul(row, columns))
        with e.loop(0, columns) as rank:
            _, number = number_in(e, e.load(e.element(index.row(row), rank, F32), F32), limit)
            e.store(e.load(e.element(src.row(row), number, F32), F32), e.element(taken, rank, F32))
    op.barrier()
    _put_rows(op, dst, rows, columns)


def _put_rows(op: Operation, dst: LmuRows, rows: V, columns: V) -> None:
    """Writes this thread's share of rows, which lie one after another in scratch memory, and watches them."""
    e = op.e
    begin, end = op.share_rows(dst, rows, columns)
    with e.loop(begin, end) as row:
        words = op.scratch(e.mul(row, columns))
        e.copy(dst.row(row), words, e.mul(columns, 4))
        watch_words(op, words, 0, columns)
