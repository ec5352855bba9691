"""The instruction matmul: every output column belongs to one thread, from the MAC to the end of the epilogue.

With one row in flight the matrix streams past it (`gemv.py`); with more rows the matrix is taken 16 columns at a time
(`gemm.py`). The sums go to scratch memory and through the epilogue a vector of columns at a time (docs/arithmetic.md,
section 4).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from hyperdex_ir.interpreter import functions
from hyperdex_ir.isa.formats import FORMATS
from hyperdex_ir.isa.instructions import ACTIVATIONS, MATRIX_TYPES
from hyperdex_ir.memory.map import ceil_div
from hyperdex_ir.native.emit import F32, I1, I64, POINTER, V, define, vector
from hyperdex_ir.native.features import FEATURES
from hyperdex_ir.native.gemm import (
    PANEL,
    load_padded,
    multiply_panel,
    pack_row,
    widen_columns,
    work_words,
)
from hyperdex_ir.native.gemv import multiply_columns, prefetch_columns
from hyperdex_ir.native.llvm_ops import LlvmOps
from hyperdex_ir.native.mac import vectors
from hyperdex_ir.native.memory_access import LmuRows, Tiles, Words
from hyperdex_ir.native.operation import SPAN, Operation, Sizes, Values, emits
from hyperdex_ir.targets import LANES, TREE_BYTES

_PAD = 64  # words behind rows of results: vectors reach beyond the last column
_WORK = max(work_words(item) for item in FEATURES.values())


def _scratch_words(v: Values, sizes: Sizes) -> int:
    """Scratch words, see `_Scratch`; 0 where the operands do not fit the LMU or HBM."""
    k, n = v["k"], v["n"]
    row, half = (ceil_div(columns, LANES) * LANES for columns in (k, n))
    rows = min(sizes.chunk, *(sizes.lmu_words // max(columns, 1) for columns in (k, n)))
    stripes = ceil_div(n, sizes.trees) * FORMATS[v["type"]].stripes(k)
    if not sizes.fit(k, n) or stripes * sizes.trees * TREE_BYTES > sizes.hbm_bytes:
        return 0
    shared = max(rows, sizes.threads) * row + 2 * (2 * half + _PAD) + rows * half
    panel = PANEL * row if rows > 1 else 0
    return shared + sizes.threads * (panel + 2 * PANEL * rows + _WORK)


@dataclass(frozen=True)
class _Operands:
    """Checked operands of a matmul; counts are i64. `gates`: rows from a row of the matrix to that of its gate."""

    rows: V
    n: V
    k: V
    gates: V
    gated: V
    tiles: Tiles
    src: LmuRows
    times: LmuRows
    plus: LmuRows
    bias: Words
    dst: LmuRows
    in_place: V  # the result can go to dst while other operands are still being read


@dataclass(frozen=True)
class _Scratch:
    """Places in the scratch memory: activations of all rows (in decode, of each thread), bias and sums by matrix row,
    the result where it cannot be written at once; then this thread's own: columns, sums of the two halves, work. All
    begin on a cache line. There is room for as many rows as the chunk has and the LMU can hold, of both sides; for
    columns where there are several rows."""

    activations: V
    bias: V
    sums: V
    result: V
    panel: V
    first: V
    second: V
    work: V


@emits("matmul", scratch=_scratch_words)
def matmul(op: Operation) -> None:
    """Rounds src to the matrix type, multiplies, and runs the epilogue."""
    e = op.e
    o = _operands(op)
    scratch = _places(op, o)
    begin, end = op.share(e.ceil_div(o.n, o.tiles.trees))
    with e.if_else(e.equal(o.rows, 1)) as (one, many):
        with one:
            _decode(op, o, scratch, e.mul(begin, o.tiles.trees), e.minimum(e.mul(end, o.tiles.trees), o.n))
        with many:
            _prefill(op, o, scratch)
    with e.if_then(e.builder.not_(o.in_place), likely=False):
        op.barrier()
        with e.if_then(e.equal(op.thread, 0)), e.loop(0, o.rows) as row:
            e.copy(o.dst.row(row), e.element(scratch.result, e.mul(row, o.n), F32), e.mul(o.n, 4))


# ---------------------------------------------------------------------------------------------------- operands


def _operands(op: Operation) -> _Operands:
    """All operands, checked in the interpreter's order."""
    e = op.e
    rows, n, k, gated = op.rows(), op.immediate("n"), op.immediate("k"), e.equal(op.immediate("gated"), 1)
    src = op.lmu("src", rows, k)
    times, plus = (_optional(op, name, rows, n) for name in ("times", "plus"))
    tiles, gates = op.tiles("weight", n, k), _gate_distance(op)
    with e.if_then(gated):
        op.tiles("weight", e.add(gates, n), k)
    columns = e.builder.select(gated, e.add(gates, n), n)
    bias = op.words("bias", e.builder.select(op.present("bias"), columns, I64(0)))
    dst = op.lmu("dst", rows, n)
    in_place = e.builder.or_(e.equal(rows, 1), e.builder.icmp_signed(">=", dst.stride, n))
    for name, other in (("times", times), ("plus", plus)):
        harmless = e.builder.or_(op.apart(dst, other), _same(op, dst, other, rows))
        in_place = e.builder.and_(in_place, e.builder.or_(e.builder.not_(op.present(name)), harmless))
    return _Operands(rows, n, k, gates, gated, tiles, src, times, plus, bias, dst, in_place)


def _gate_distance(op: Operation) -> V:
    distance = op.immediate("gate_distance")
    return op.e.builder.select(op.e.equal(distance, 0), op.immediate("n"), distance)


def _optional(op: Operation, name: str, rows: V, columns: V) -> LmuRows:
    """An Lmu operand; where absent, its fields are zero: no rows at word 0."""
    return op.lmu(name, op.e.builder.select(op.present(name), rows, I64(0)), columns)


def _same(op: Operation, a: LmuRows, b: LmuRows, rows: V) -> V:
    """Both are the same words in the same order."""
    e = op.e
    strides = e.builder.or_(e.equal(a.stride, b.stride), e.equal(rows, 1))
    return e.builder.and_(e.equal(a.first, b.first), strides)


def _places(op: Operation, o: _Operands) -> _Scratch:
    e = op.e
    row, rows = e.mul(o.tiles.steps, LANES), op.context.load("chunk")
    for columns in (o.k, o.n):
        rows = e.minimum(rows, e.builder.udiv(op.context.load("lmu_words"), e.maximum(columns, 1)))
    panel = e.builder.select(e.less(1, rows), e.mul(row, PANEL), I64(0))
    half = e.mul(e.ceil_div(o.n, LANES), LANES)
    columns, block = e.add(e.mul(half, 2), _PAD), e.mul(rows, PANEL)
    shared = [e.mul(e.maximum(rows, op.threads), row), columns, columns, e.mul(rows, half)]
    places: list[V] = [I64(0)]
    for size in (*shared, panel, block, block, I64(_WORK)):
        places.append(e.add(places[-1], size))
    own = e.mul(op.thread, e.sub(places[8], places[4]))
    starts = places[:4] + [e.add(place, own) for place in places[4:8]]
    return _Scratch(*(op.scratch(start) for start in starts))


def _for_type(op: Operation, emit: Callable[[str], None]) -> None:
    """Code for each matrix type; the instruction chooses."""
    chosen = op.choice("type")
    for index, matrix_type in enumerate(MATRIX_TYPES):
        with op.e.if_then(op.e.equal(chosen, index)):
            emit(matrix_type)


# ---------------------------------------------------------------------------------------------------- rows in flight


def _decode(op: Operation, o: _Operands, scratch: _Scratch, begin: V, end: V) -> None:
    """One row: columns begin..end-1, and the gates that belong to them."""
    e = op.e
    prefetch_columns(e, o.tiles, begin, end)
    own = e.element(scratch.activations, e.mul(op.thread, e.mul(o.tiles.steps, LANES)), F32)
    _for_type(op, lambda matrix_type: _round_row(op, o, own, matrix_type))
    with e.if_then(e.builder.not_(op.apart(o.dst, o.src))):
        op.barrier()  # all threads have read src before one writes dst
    _load_bias(op, o, scratch, begin, end)
    for_gates = e.builder.select(o.gated, I64(2), I64(1))
    groups = e.maximum(e.builder.udiv(I64(SPAN), e.maximum(e.mul(e.mul(o.tiles.steps, LANES), o.tiles.trees), 1)), 1)
    span = e.mul(groups, o.tiles.trees)
    with e.loop(0, for_gates) as half, e.loop(begin, end, span) as column:
        op.check_stop()
        distance = e.mul(half, o.gates)
        first, last = e.add(column, distance), e.add(e.minimum(e.add(column, span), end), distance)
        sums = e.element(scratch.sums, e.add(column, e.mul(half, o.n)), F32)
        _for_type(op, lambda matrix_type: multiply_columns(e, o.tiles, first, last, own, sums, matrix_type))
    first = e.element(scratch.sums, begin, F32)
    _call_epilogue(op, o, scratch, first, e.element(first, o.n, F32), begin, end)


def _round_row(op: Operation, o: _Operands, target: V, matrix_type: str) -> None:
    e, size = op.e, op.features.lanes
    with e.loop(0, e.mul(o.tiles.steps, vectors(op.features))) as index:
        first = e.mul(index, size)
        e.store(load_padded(op, o.src.pointer, first, o.k, matrix_type), e.element(target, first, F32))


def _prefill(op: Operation, o: _Operands, scratch: _Scratch) -> None:
    """All rows: threads share the rounding of the rows, then take PANEL columns at a time."""
    e = op.e
    begin, end = op.share(o.rows)

    def pack(matrix_type: str) -> None:
        with e.loop(begin, end) as row:
            pack_row(op, o.src, row, o.k, o.tiles.steps, o.rows, scratch.activations, matrix_type)

    _for_type(op, pack)
    op.barrier()
    first, last = (e.mul(place, PANEL) for place in op.share(e.ceil_div(o.n, PANEL)))
    _load_bias(op, o, scratch, first, e.minimum(last, o.n))
    with e.loop(first, last, PANEL) as column:
        op.check_stop()
        stop = e.minimum(e.add(column, PANEL), o.n)
        _multiply(op, o, scratch, column, stop, scratch.first)
        with e.if_then(o.gated):
            _multiply(op, o, scratch, e.add(column, o.gates), e.add(stop, o.gates), scratch.second)
        _call_epilogue(op, o, scratch, scratch.first, scratch.second, column, stop)


def _multiply(op: Operation, o: _Operands, scratch: _Scratch, begin: V, end: V, result: V) -> None:
    def emit(matrix_type: str) -> None:
        widen_columns(op.e, o.tiles, begin, end, scratch.panel, matrix_type)
        multiply_panel(
            op.e, scratch.panel, scratch.activations, o.tiles.steps, o.rows, scratch.work, result, matrix_type
        )

    _for_type(op, emit)


def _load_bias(op: Operation, o: _Operands, scratch: _Scratch, begin: V, end: V) -> None:
    """Copies the bias of columns begin..end-1, and of their gates, to its place in the scratch memory."""
    e = op.e
    needed = e.builder.and_(op.present("bias"), e.less(begin, end))
    with e.if_then(needed):
        for_gates = e.builder.select(o.gated, I64(2), I64(1))
        with e.loop(0, for_gates) as half:
            place = e.element(scratch.bias, e.add(begin, e.mul(half, o.n)), F32)
            o.bias.copy_to(place, e.add(begin, e.mul(half, o.gates)), e.sub(end, begin))


# ---------------------------------------------------------------------------------------------------- epilogue


def _call_epilogue(op: Operation, o: _Operands, scratch: _Scratch, sums: V, gates: V, begin: V, end: V) -> None:
    """The epilogue of columns begin..end-1; sums, gates: f32 [rows, PANEL], or of one row."""
    e = op.e
    target = e.builder.select(o.in_place, o.dst.pointer, scratch.result)
    stride = e.builder.select(o.in_place, o.dst.stride, o.n)
    fields = op.e.function.args
    e.call(_epilogue(op), [*fields, sums, gates, scratch.bias, target, stride, begin, end])


def _epilogue(op: Operation) -> V:
    """i64 matmul_epilogue(context, thread, fields, sums, gates, bias, target, stride, begin, end)."""
    name = "matmul_epilogue"
    known = op.e.module.globals.get(name)
    if known is not None:
        return known
    function = define(op.e.module, name, I64, (POINTER,) * 7 + (I64,) * 3)
    sums, gates, bias, target, stride, begin, end = function.args[3:]
    own = Operation(type(op.e)(function, op.features), replace(op.definition, barrier=False))
    e, size = own.e, op.features.lanes
    rows, n = own.rows(), own.immediate("n")
    chain = _Chain(own, rows, n, bias)
    with e.loop(0, rows) as row, e.loop(begin, end, size) as column:
        place = e.add(e.mul(row, PANEL), e.sub(column, begin))
        left = e.sub(end, column)
        at = e.element(e.element(target, e.mul(row, stride), F32), column, F32)
        y = chain.apply(e.element(sums, place, F32), e.element(gates, place, F32), row, column, left)
        with e.if_else(e.less(left, size)) as (part, whole):
            with part:
                e.store_first(y, at, left)
            with whole:
                e.store(y, at)
    own.finish()
    return function


class _Chain:
    """The steps of the epilogue; each is done where the instruction has it."""

    def __init__(self, op: Operation, rows: V, n: V, bias: V):
        b = op.e.builder
        self._op, self._n, self._bias = op, n, bias
        self._times, self._plus = (_optional(op, name, rows, n) for name in ("times", "plus"))
        self._scale, self._softcap = op.floating("scale"), op.floating("softcap")
        self._has_scale = b.fcmp_unordered("!=", self._scale, F32(1.0))
        self._has_softcap = b.fcmp_unordered("!=", self._softcap, F32(0.0))
        self._activation = op.choice("activation")
        self._gated = b.trunc(op.immediate("gated"), I1)

    def apply(self, sums: V, gates: V, row: V, column: V, left: V) -> V:
        """A vector of results, from pointers to its sums; the first `left` lanes count."""
        op, e = self._op, self._op.e
        type_ = vector(F32, op.features.lanes)
        mask = e.first_lanes(left, type_)
        y, gate = e.local(type_, e.load(sums, type_)), e.local(type_, e.load(gates, type_))
        op.watch(y.get(), mask)

        def becomes(value: V) -> None:
            y.set(value)
            op.watch(value, mask)

        with e.if_then(self._gated):
            op.watch(gate.get(), mask)
        with e.if_then(op.present("bias")):
            bias = e.element(self._bias, column, F32)
            becomes(e.fadd(y.get(), e.load(bias, type_)))
            with e.if_then(self._gated):
                gate.set(e.fadd(gate.get(), e.load(e.element(bias, self._n, F32), type_)))
                op.watch(gate.get(), mask)
        self._functions(y.get, becomes)
        with e.if_then(self._gated):
            becomes(e.fmul(y.get(), gate.get()))
        for name, operand, combine in (("times", self._times, e.fmul), ("plus", self._plus, e.fadd)):
            with e.if_then(op.present(name)):
                becomes(combine(y.get(), e.load(e.element(operand.row(row), column, F32), type_)))
        return y.get()

    def _functions(self, get: Callable[[], V], becomes: Callable[[V], None]) -> None:
        """Scale, softcap and activation."""
        e, size = self._op.e, self._op.features.lanes
        ops = LlvmOps(e.builder, size)
        with e.if_then(self._has_scale):
            becomes(e.fmul(get(), e.splat(self._scale, size)))
        with e.if_then(self._has_softcap):
            cap = e.splat(self._softcap, size)
            becomes(e.fmul(functions.tanh(ops, e.builder.fdiv(get(), cap)), cap))
        for index, name in enumerate(ACTIVATIONS):
            if name in functions.UNARY:
                with e.if_then(e.equal(self._activation, index)):
                    becomes(functions.UNARY[name](ops, get()))
