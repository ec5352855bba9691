"""Walks over strided views of the LMU, for instructions that make a row of results from rows of operands.

Where columns lie one after another and nothing overlaps, kernels work in place, each thread on its share. Otherwise
operands are gathered into rows, results wait in scratch memory until everything has been read, and the first thread
puts them into their places, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hyperdex_ir.native.emit import F32, I64, V
from hyperdex_ir.native.memory_access import LmuRows, LmuView
from hyperdex_ir.native.operation import Operation, Sizes, Values

#: Columns that a thread takes at a time, where an instruction works on each column by itself.
BLOCK = 512
_SLACK = 64  # words after a gathered row that kernels may read

#: compute(row, group, first column, dst, operands, count): `count` results from `first column` on, to the pointer dst,
#: from pointers to the same columns of the operands; returns magnitude bits to watch.
Compute = Callable[[V, V, V, V, Sequence[V], V], V]


def scratch_words(values: Values, sizes: Sizes, operands: int, written: int | None = None) -> int:
    """Scratch memory of `ViewWalk` for that many operands. written: columns of the result; None: those of an operand.

    It holds the waiting results, and a row of each operand. None has more elements than the LMU words, as that faults
    before.
    """
    columns = min(values["columns"], sizes.lmu_words)
    results = sizes.chunk * values["groups"] * (columns if written is None else written)
    return min(results, sizes.lmu_words) + sizes.threads * operands * (columns + _SLACK) + _SLACK


@dataclass(frozen=True)
class ViewWalk:
    """An instruction's result and operands. columns: of an operand; written: columns of the result; others: rows in the
    LMU that are read as well; blocks: each column can be computed by itself."""

    op: Operation
    dst: LmuView
    operands: Sequence[LmuView]
    rows: V
    groups: V
    columns: V
    written: V
    others: Sequence[LmuRows] = ()
    blocks: bool = False

    def run(self, compute: Compute) -> None:
        """Computes all rows of all groups."""
        with self.op.e.if_else(self._in_place()) as (in_place, by_way):
            with in_place:
                self._run_in_place(compute)
            with by_way:
                self._gather(compute)
                self.op.barrier()
                self._scatter()

    # ------------------------------------------------------------------------------------------------ in place

    def _in_place(self) -> V:
        """i1: columns one after another; no result lies on another, nor on an operand of another."""
        e, b = self.op.e, self.op.e.builder
        result = self._results_apart(self.written)
        for view in (self.dst, *self.operands):
            result = b.and_(result, e.equal(view.column_stride, 1))
        operands_apart = self._results_apart(self.columns)
        for view in self.operands:
            same = b.and_(self._same(view), operands_apart)
            result = b.and_(result, b.or_(self.op.apart(self.dst, view), same))
        for rows in self.others:
            result = b.and_(result, self.op.apart(self.dst, rows))
        return result

    def _same(self, view: LmuView) -> V:
        """i1: element for element the words of the result."""
        e, dst = self.op.e, self.dst
        result = e.equal(dst.first, view.first)
        for extent, name in ((self.rows, "stride"), (self.groups, "group_stride")):
            alike = e.equal(getattr(dst, name), getattr(view, name))
            result = e.builder.and_(result, e.builder.or_(e.equal(extent, 1), alike))
        return result

    def _results_apart(self, columns: V) -> V:
        """i1: groups within rows, or rows within groups, lie apart, each with that many columns."""
        e, b, dst = self.op.e, self.op.e.builder, self.dst
        extents = {"stride": self.rows, "group_stride": self.groups}

        def nested(outer: str, inner: str) -> V:
            width = e.add(e.mul(e.sub(extents[inner], 1), getattr(dst, inner)), columns)
            inside = b.or_(e.equal(extents[inner], 1), b.icmp_signed(">=", getattr(dst, inner), columns))
            outside = b.or_(e.equal(extents[outer], 1), b.icmp_signed(">=", getattr(dst, outer), width))
            return b.and_(inside, outside)

        return b.or_(nested("stride", "group_stride"), nested("group_stride", "stride"))

    def _run_in_place(self, compute: Compute) -> None:
        op, e, b = self.op, self.op.e, self.op.e.builder
        parts = e.ceil_div(self.columns, BLOCK) if self.blocks else I64(1)
        begin, end = op.share(e.mul(e.mul(self.rows, self.groups), parts))
        with e.loop(begin, end) as number:
            op.check_stop()
            unit, part = (b.udiv(number, parts), b.urem(number, parts)) if self.blocks else (number, I64(0))
            row, group = b.udiv(unit, self.groups), b.urem(unit, self.groups)
            first = e.mul(part, BLOCK)
            count = e.minimum(e.sub(self.columns, first), BLOCK) if self.blocks else self.columns
            target, *sources = (e.element(view.row(row, group), first, F32) for view in (self.dst, *self.operands))
            op.watch_bits(compute(row, group, first, target, sources, count))

    # ------------------------------------------------------------------------------------------------ by way of scratch

    def _gather(self, compute: Compute) -> None:
        """Computes this thread's rows into scratch memory."""
        op, e, b = self.op, self.op.e, self.op.e.builder
        begin, end = op.share(e.mul(self.rows, self.groups))
        length = e.add(self.columns, _SLACK)
        total = e.mul(e.mul(self.rows, self.groups), self.written)
        own = e.add(total, e.mul(op.thread, e.mul(length, len(self.operands))))
        rows = [op.scratch(e.add(own, e.mul(length, number))) for number in range(len(self.operands))]
        with e.loop(begin, end) as unit:
            op.check_stop()
            row, group = b.udiv(unit, self.groups), b.urem(unit, self.groups)
            for view, target in zip(self.operands, rows, strict=True):
                with e.loop(0, self.columns) as column:
                    e.store(e.load(view.element(row, group, column), F32), e.element(target, column, F32))
            staged = op.scratch(e.mul(unit, self.written))
            op.watch_bits(compute(row, group, I64(0), staged, rows, self.columns))

    def _scatter(self) -> None:
        op, e, b = self.op, self.op.e, self.op.e.builder
        units = e.mul(self.rows, self.groups)
        with e.loop(0, b.select(e.equal(op.thread, 0), units, I64(0))) as unit:
            row, group = b.udiv(unit, self.groups), b.urem(unit, self.groups)
            staged = op.scratch(e.mul(unit, self.written))
            with e.loop(0, self.written) as column:
                e.store(e.load(e.element(staged, column, F32), F32), self.dst.element(row, group, column))
