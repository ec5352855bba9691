"""Instructions of the engine VXE on views of the LMU: functions, reductions, norms, rotary positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from hyperdex_ir.isa.faults import Fault
from hyperdex_ir.isa.instructions import BINARY, REDUCTIONS, ROTARY_STYLES, UNARY
from hyperdex_ir.native import rows as kernels
from hyperdex_ir.native.emit import I1, I32, I64, POINTER, Emitter, V
from hyperdex_ir.native.kernels import choose
from hyperdex_ir.native.memory_access import LmuView, Words
from hyperdex_ir.native.operation import Operation, Sizes, Values, emits
from hyperdex_ir.native.views import ViewWalk, scratch_words


class _Views:
    """The views of an instruction, [rows, groups, columns], checked in the interpreter's order."""

    def __init__(self, op: Operation, operands: Sequence[str], written: int | None = None):
        self.op, self.rows = op, op.rows()
        self.groups, self.columns = op.immediate("groups"), op.immediate("columns")
        self.written = self.columns if written is None else I64(written)
        self.operands = [self._view(name, self.columns) for name in operands]

    def _view(self, name: str, columns: V) -> LmuView:
        return self.op.view(name, self.rows, self.groups, columns)

    def walk(self, **options: Any) -> ViewWalk:
        dst = self._view("dst", self.written)
        return ViewWalk(self.op, dst, self.operands, self.rows, self.groups, self.columns, self.written, **options)


def _one_operand(values: Values, sizes: Sizes) -> int:
    return scratch_words(values, sizes, 1)


def _one_result(values: Values, sizes: Sizes) -> int:
    return scratch_words(values, sizes, 1, written=1)


def _two_operands(values: Values, sizes: Sizes) -> int:
    return scratch_words(values, sizes, 2)


def _chosen(op: Operation, name: str, functions: Sequence[Callable[[], V]]) -> V:
    """Result of the function that a field chooses, i32."""
    bits = op.e.local(I32, I32(0))
    choose(op.e, op.choice(name), [lambda make=make: bits.set(make()) for make in functions])
    return bits.get()


@emits("unary", scratch=_one_operand)
def unary(op: Operation) -> None:
    _elementwise(op, ("a",), UNARY, kernels.unary_row)


@emits("binary", scratch=_two_operands)
def binary(op: Operation) -> None:
    _elementwise(op, ("a", "b"), BINARY, kernels.binary_row)


def _elementwise(
    op: Operation, names: Sequence[str], functions: Sequence[str], kernel: Callable[[Emitter, str], ir.Function]
) -> None:
    e = op.e

    def compute(row: V, group: V, first: V, dst: V, operands: Sequence[V], count: V) -> V:
        arguments = [dst, *operands, count]
        return _chosen(op, "function", [lambda n=n: e.call(kernel(e, n), arguments) for n in functions])

    _Views(op, names).walk(blocks=True).run(compute)


@emits("binary_scalar", scratch=_one_operand)
def binary_scalar(op: Operation) -> None:
    e, scalar = op.e, op.floating("b")
    number = e.add(op.choice("function"), e.mul(op.immediate("reversed"), len(BINARY)))
    names = [(name, turned) for turned in (False, True) for name in BINARY]

    def compute(row: V, group: V, first: V, dst: V, operands: Sequence[V], count: V) -> V:
        arguments = [dst, *operands, scalar, count]
        bits = e.local(I32, I32(0))
        cases = [lambda pair=pair: bits.set(e.call(kernels.binary_scalar_row(e, *pair), arguments)) for pair in names]
        choose(e, number, cases)
        return bits.get()

    _Views(op, ("a",)).walk(blocks=True).run(compute)


@emits("reduce", scratch=_one_result)
def reduce(op: Operation) -> None:
    e = op.e
    functions = {"sum": kernels.row_sum, "mean": kernels.row_mean, "row_max": kernels.row_max}

    def compute(row: V, group: V, first: V, dst: V, operands: Sequence[V], count: V) -> V:
        def make(name: str) -> V:
            result = e.call(functions[name](e), [*operands, count])
            e.store(result, dst)
            return e.magnitude_bits(result)

        return _chosen(op, "function", [lambda name=name: make(name) for name in REDUCTIONS])

    _Views(op, ("a",), written=1).walk().run(compute)


# ---------------------------------------------------------------------------------------------------- norms


_PARAMETER_SLACK = 64  # words behind parameters that kernels may read


def _norm_scratch(values: Values, sizes: Sizes) -> int:
    """Scratch words of the walk and, behind it, of two rows of parameters for each thread."""
    columns = min(values["columns"], sizes.lmu_words)
    return scratch_words(values, sizes, 1) + sizes.threads * 2 * (columns + _PARAMETER_SLACK)


@emits("rms_norm", scratch=_norm_scratch)
def rms_norm(op: Operation) -> None:
    _norm(op, kernels.rms_norm_row(op.e), ("weight",))


@emits("layer_norm", scratch=_norm_scratch)
def layer_norm(op: Operation) -> None:
    _norm(op, kernels.layer_norm_row(op.e), ("weight", "bias"))


def _norm(op: Operation, function: Any, parameters: Sequence[str]) -> None:
    e = op.e
    columns = op.immediate("columns")
    words = [op.words(name, e.builder.select(op.present(name), columns, I64(0))) for name in parameters]
    views = _Views(op, ("a",))
    walk = views.walk()
    # An instruction that has passed the checks has no more columns than the LMU words, unless it has no groups.
    per_thread = e.add(columns, _PARAMETER_SLACK)
    begin = e.sub(op.context.load("scratch_words"), e.mul(e.mul(e.add(op.thread, 1), 2), per_thread))
    first, last = op.share(e.mul(views.rows, views.groups))
    pointers = [ir.Constant(POINTER, None)] * 2
    for number, (name, own) in enumerate(zip(parameters, words, strict=True)):
        memory = op.scratch(e.add(begin, e.mul(per_thread, number)))
        pointers[number] = _parameter(op, name, own, memory, e.less(first, last))
    epsilon, unit_offset = op.floating("epsilon"), e.builder.trunc(op.immediate("unit_offset"), I1)

    def compute(row: V, group: V, first: V, dst: V, operands: Sequence[V], count: V) -> V:
        return e.call(function, [dst, *operands, count, *pointers, epsilon, unit_offset])

    walk.run(compute)


def _parameter(op: Operation, name: str, words: Words, memory: V, needed: V) -> V:
    """A row of f32 in HBM, copied to `memory` where it is needed (i1); null for an absent one."""
    e = op.e
    with e.if_then(needed):
        words.copy_to(memory)
    return e.builder.select(op.present(name), memory, ir.Constant(POINTER, None))


# ---------------------------------------------------------------------------------------------------- rotary


@emits("rotary", scratch=_one_operand)
def rotary(op: Operation) -> None:
    e, b = op.e, op.e.builder
    turned, columns = op.immediate("turned"), op.immediate("columns")
    odd = b.icmp_signed("!=", b.and_(turned, I64(1)), I64(0))
    op.fault_if(b.or_(e.less(columns, turned), odd), Fault.TURNED, turned, columns)
    rows = op.rows()
    tables = [op.lmu(name, rows, turned) for name in ("cos", "sin")]

    def compute(row: V, group: V, first: V, dst: V, operands: Sequence[V], count: V) -> V:
        arguments = [dst, *operands, *(table.row(row) for table in tables), turned, columns]
        return _chosen(op, "style", [lambda s=s: e.call(kernels.rotary_row(e, s), arguments) for s in ROTARY_STYLES])

    _Views(op, ("a",)).walk(others=tables).run(compute)
