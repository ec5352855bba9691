"""Short convolutions: short_conv and store_state."""

from __future__ import annotations

from dataclasses import dataclass

from hyperdex_ir.native import rows as kernels
from hyperdex_ir.native.emit import F32, V
from hyperdex_ir.native.memory_access import LmuRows, Words
from hyperdex_ir.native.moving import copy_rows, watch_words
from hyperdex_ir.native.operation import Operation, Sizes, Values, emits

_COLUMNS = 64  # columns whose taps are taken at a time


def _scratch(values: Values, sizes: Sizes) -> int:
    """Scratch words, see `_Part`; 0 where rows do not fit the LMU, or taps do not fit HBM: such an instruction faults
    before."""
    columns, taps = values["columns"], values["history"] + 1
    if not sizes.fit(columns) or 4 * taps * columns > sizes.hbm_bytes:
        return 0
    staged = min(sizes.chunk * columns, sizes.lmu_words)
    return staged + (2 * taps + 1) * columns + sizes.threads * _COLUMNS * taps


@emits("short_conv", scratch=_scratch)
def short_conv(op: Operation) -> None:
    e = op.e
    rows, columns, history = op.rows(), op.immediate("columns"), op.immediate("history")
    position = op.position(rows)
    src = op.lmu("src", rows, columns)
    with e.if_then(e.less(0, history)):
        op.words("state", e.mul(history, columns), written=True)
    taps = op.words("taps", e.mul(e.add(history, 1), columns))
    with e.if_then(op.present("bias")):
        op.words("bias", columns)
    dst = op.lmu("dst", rows, columns)
    # Each thread works on columns of its own, so none waits for data that another puts into scratch memory.
    part = _Part(op, src, rows, columns, history, *op.share(columns))
    part.load_taps(taps)
    part.load_bias()
    with e.if_then(e.less(0, history)):
        part.load_state(op.words("state", e.mul(history, columns)), position)
    staged = LmuRows(e, op.scratch(), columns, e.i64(0), e.i64(0))
    rows_apart = e.builder.icmp_signed(">=", dst.stride, columns)
    with e.if_else(e.builder.and_(op.apart(src, dst), rows_apart)) as (directly, by_way):
        with directly:
            part.compute(dst)
        with by_way:
            part.compute(staged)
            op.barrier()
            copy_rows(op, dst, staged, rows, columns)


@dataclass(frozen=True)
class _Part:
    """The columns begin..end-1 of an instruction, which one thread computes.

    In scratch memory: the staged result (as many rows as a step can have and the LMU can hold); row after row of
    `columns` words, the taps by number, the history from the oldest row on, the bias, a row for products; for each
    thread, the taps of _COLUMNS columns as they come.
    """

    op: Operation
    src: LmuRows
    rows: V
    columns: V
    history: V
    begin: V
    end: V

    def _row(self, number: int | V) -> V:
        """Pointer to this part of a row of scratch memory; rows are counted from behind the staged result."""
        e = self.op.e
        words = e.add(e.mul(e.i64(number), self.columns), self.begin)
        return self.op.scratch(e.add(self._staged_words, words))

    @property
    def _staged_words(self) -> V:
        context = self.op.context
        return self.op.e.minimum(self.op.e.mul(context.load("chunk"), self.columns), context.load("lmu_words"))

    @property
    def _count(self) -> V:
        return self.op.e.sub(self.end, self.begin)

    @property
    def _taps(self) -> V:
        return self.op.e.add(self.history, 1)

    @property
    def _bias(self) -> V:
        e = self.op.e
        return self._row(e.add(self._taps, self.history))

    @property
    def _product(self) -> V:
        e = self.op.e
        return self._row(e.add(e.add(self._taps, self.history), 1))

    def load_taps(self, taps: Words) -> None:
        """Loads the taps and turns them from column after column to tap after tap."""
        e = self.op.e
        first = e.mul(self.begin, self._taps)
        rows = e.add(e.add(self._taps, self.history), 2)
        own = e.mul(self.op.thread, e.mul(self._taps, _COLUMNS))
        raw = self.op.scratch(e.add(e.add(self._staged_words, e.mul(rows, self.columns)), own))
        with e.loop(0, self._count, _COLUMNS) as block:
            self.op.check_stop()
            stop, place = e.minimum(e.add(block, _COLUMNS), self._count), e.mul(block, self._taps)
            taps.copy_to(raw, e.add(first, place), e.mul(e.sub(stop, block), self._taps))
            with e.loop(block, stop) as column, e.loop(0, self._taps) as tap:
                word = e.add(e.mul(e.sub(column, block), self._taps), tap)
                value = e.load(e.element(raw, word, F32), F32)
                e.store(value, e.element(self._row(tap), column, F32))

    def load_bias(self) -> None:
        with self.op.e.if_then(self.op.present("bias")):
            self.op.words("bias", self.columns).copy_to(self._bias, self.begin, self._count)

    def load_state(self, state: Words, position: V) -> None:
        """Loads the rows before the first in flight; zeros where the text has not begun."""
        e = self.op.e
        with e.loop(0, self.history) as number:
            self.op.check_stop()
            target = self._row(e.add(self._taps, number))
            before = e.sub(e.add(position, number), self.history)
            with e.if_else(e.less(before, 0)) as (nothing, there):
                with nothing:
                    e.clear(target, e.mul(self._count, 4))
                with there:
                    row = e.builder.urem(before, self.history)
                    state.copy_to(target, e.add(e.mul(row, self.columns), self.begin), self._count)

    def compute(self, target: LmuRows) -> None:
        op, e = self.op, self.op.e
        multiply, add = kernels.binary_row(e, "mul"), kernels.binary_row(e, "add")
        with e.loop(0, self.rows) as row:
            op.check_stop()
            y = e.element(target.row(row), self.begin, F32)
            e.call(multiply, [y, self._source(e.sub(row, self.history)), self._row(0), self._count])
            with e.loop(1, self._taps) as tap:
                op.check_stop()
                x = self._source(e.sub(e.add(row, tap), self.history))
                e.call(multiply, [self._product, x, self._row(tap), self._count])
                e.call(add, [y, y, self._product, self._count])
            with e.if_then(op.present("bias")):
                e.call(add, [y, y, self._bias, self._count])
            watch_words(op, y, 0, self._count)

    def _source(self, row: V) -> V:
        """Pointer to this part of a row of the operand, or of the history when the row's number is negative."""
        e = self.op.e
        before = self._row(e.add(e.add(self._taps, self.history), row))
        return e.builder.select(e.less(row, 0), before, e.element(self.src.row(row), self.begin, F32))


@emits("store_state")
def store_state(op: Operation) -> None:
    e = op.e
    rows, columns, history = op.rows(), op.immediate("columns"), op.immediate("history")
    position = op.position(rows)
    src = op.lmu("src", rows, columns)
    state = op.words("state", e.mul(history, columns), written=True)
    first = e.maximum(e.sub(rows, history), 0)
    begin, end = op.share(e.sub(rows, first))
    with e.loop(begin, end) as number:
        row = e.add(first, number)
        place = e.mul(e.builder.urem(e.add(position, row), history), columns)
        state.copy_from(src.row(row), place, columns)
        watch_words(op, src.row(row), 0, columns)
