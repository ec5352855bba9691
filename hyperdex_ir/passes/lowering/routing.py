"""Routed experts: columns chosen by the vector engine, and loops over rows and ranks around a matrix.

Each trip fetches the number of an expert from the LMU into a register and computes the address of its matrix from it.
Only offsets in registers change from trip to trip, so the number of instructions depends neither on the experts nor on
the rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hyperdex_ir.dialects import isa, lpu
from hyperdex_ir.dialects.isa import HbmRef, LmuUse, ViewUse, buffer_type
from hyperdex_ir.dialects.lpu import shape_of
from hyperdex_ir.isa.instructions import MATRIX_TYPES, PARAM_BASE, ZERO
from hyperdex_ir.memory.collect import parameter_of
from hyperdex_ir.memory.map import matrix_bytes
from hyperdex_ir.passes.lowering.function import HEAD, KEYS, OUTPUT, QUERY, VALUES, FunctionLowering, lowers
from hyperdex_ir.passes.lowering.views import View

#: Registers of attention: their values are of no use outside of it.
SOURCE, TARGET, RANK, WEIGHT, BIAS = QUERY, OUTPUT, HEAD, KEYS, VALUES


@lowers(lpu.TopKOp)
def lower_top_k(to: FunctionLowering, op: lpu.TopKOp) -> None:
    """One `top_k`: the indices are words of the LMU."""
    source = to.contiguous(op.scores)
    groups, top_groups = op.limits
    target = to.result(op.res, source.rows)
    to.emit(
        "top_k",
        dst=LmuUse(target.buffer, target.offset),
        src=LmuUse(source.buffer, source.offset),
        columns=source.columns,
        k=target.columns,
        groups=groups,
        top_groups=top_groups,
        rows=to.rows_register(target.rows),
    )


@lowers(lpu.TakeColumnsOp)
def lower_take_columns(to: FunctionLowering, op: lpu.TakeColumnsOp) -> None:
    """One `take_columns`."""
    source, indices = to.contiguous(op.x), to.contiguous(op.indices)
    target = to.result(op.res, source.rows)
    to.emit(
        "take_columns",
        dst=LmuUse(target.buffer, target.offset),
        src=LmuUse(source.buffer, source.offset),
        index=LmuUse(indices.buffer, indices.offset),
        columns=target.columns,
        limit=source.columns,
        rows=to.rows_register(target.rows),
    )


@lowers(lpu.ExpertLinearOp)
def lower_expert_linear(to: FunctionLowering, op: lpu.ExpertLinearOp) -> None:
    """A loop over rows, in it one over ranks: the result of each matrix stays, or is added to those before."""
    experts = _Experts.of(to, op)
    for register in (SOURCE, TARGET, RANK):
        to.emit("set", dst=register, value=0)
    loop = isa.RepeatRowsOp(to.rows_register(experts.source.rows), location=op.location)
    to.block.add_op(loop)
    outer, to.block = to.block, loop.body.block
    experts.one_row(to)
    to.block = outer


@dataclass(frozen=True)
class _Experts:
    """The matrices of an operation, and the places of its operands, rank by rank in each row."""

    op: lpu.ExpertLinearOp
    weight: lpu.WeightOp
    source: View
    indices: View
    weights: View | None
    target: View

    @classmethod
    def of(cls, to: FunctionLowering, op: lpu.ExpertLinearOp) -> _Experts:
        weight = to.weight(op.weight, MATRIX_TYPES)
        source = to.contiguous(op.x) if len(shape_of(op.x)) == 2 else _by_rank(to, to.view(op.x))
        indices = _alone(to, to.view(op.indices))
        weights = None if op.sum is None else _alone(to, to.view(op.sum))
        if op.sum is not None:
            target = to.result(op.res, source.rows)
        else:
            columns, ranks = op.columns, op.ranks
            target = View(to.buffer(source.rows, columns * ranks, op.res.name_hint), 0, (columns, ranks), (1, columns))
            to.places[op.res] = target
        return cls(op, weight, source, indices, weights, target)

    def one_row(self, to: FunctionLowering) -> None:
        """Emits all ranks of a row, then the step to the next row."""
        op = self.op
        source_step = op.weight_columns if len(self.source.dims) == 2 else 0
        target_step = op.columns if self.weights is None else 0

        def one_rank(first: bool) -> None:
            self._multiply(to, first)
            for register, step in ((RANK, 1), (SOURCE, source_step), (TARGET, target_step)):
                _advance(to, register, step)

        if self.weights is None:
            to.repeat(op.ranks, lambda: one_rank(first=True))
        else:
            one_rank(first=True)
            if op.ranks > 1:
                to.repeat(op.ranks - 1, lambda: one_rank(first=False))
        for register, view, step in ((SOURCE, self.source, source_step), (TARGET, self.target, target_step)):
            _advance(to, register, buffer_type(view.buffer).width - op.ranks * step)

    def _multiply(self, to: FunctionLowering, first: bool) -> None:
        """The matrix of one rank."""
        bias = self._addresses(to)
        target = LmuUse(self.target.buffer, self.target.offset, TARGET)
        product = target if self.weights is None else LmuUse(to.buffer(1, self.op.columns))
        one = to.rows_register(1)
        to.emit(
            "matmul",
            dst=product,
            src=LmuUse(self.source.buffer, self.source.offset, SOURCE),
            weight=replace(to.address(self.weight), register=WEIGHT),
            k=self.op.weight_columns,
            n=self.op.columns,
            type=parameter_of(self.weight).dtype,
            bias=bias,
            rows=one,
            activation=self.op.activation and self.op.activation.data,
            gated=int(self.op.gated is not None),
        )
        if self.weights is None:
            return
        whole = ViewUse(target.buffer, target.offset, TARGET)
        scaled = whole if first else ViewUse(product.buffer)
        factor = ViewUse(self.weights.buffer, self.weights.offset, RANK, column_stride=0)
        common = {"columns": self.op.columns, "rows": one}
        to.emit("binary", function="mul", dst=scaled, a=ViewUse(product.buffer), b=factor, **common)
        if not first:
            to.emit("binary", function="add", dst=whole, a=whole, b=scaled, **common)

    def _addresses(self, to: FunctionLowering) -> HbmRef | None:
        """Puts the distances to the expert's matrix and bias into registers; returns the address of the bias."""
        op = self.op
        rows = shape_of(op.weight)[1]
        index = LmuUse(self.indices.buffer, self.indices.offset, RANK)
        to.emit("fetch", dst=WEIGHT, src=index, limit=op.experts)
        dtype = parameter_of(self.weight).dtype
        parameters = [(WEIGHT, self.weight, matrix_bytes(rows, op.weight_columns, dtype, to.shared.memory.target))]
        if op.bias is not None:
            parameters.insert(0, (BIAS, to.weight(op.bias, ("f32",)), 4 * rows))
        for register, parameter, size in parameters:
            to.emit("multiply", dst=register, a=WEIGHT, value=size)
            if to.address(parameter).register == PARAM_BASE:
                to.emit("add", dst=register, a=register, b=PARAM_BASE)
        return None if op.bias is None else replace(to.address(parameters[0][1]), register=BIAS)


def _advance(to: FunctionLowering, register: int, step: int) -> None:
    if step:
        to.emit("add", dst=register, a=register, b=ZERO, value=step)


def _by_rank(to: FunctionLowering, view: View) -> View:
    """A value [columns, ranks] with the columns of each rank one after another."""
    columns, ranks = view.dims
    strides = (1, columns)
    if view.strides == strides or (view.is_contiguous and 1 in view.dims):
        return view
    target = View(to.buffer(view.rows, columns * ranks), 0, view.dims, strides)
    to.copy(view, target)
    return target


def _alone(to: FunctionLowering, view: View) -> View:
    """A value in a buffer of its own: row after row, one rank follows another."""
    is_alone = view.is_contiguous and buffer_type(view.buffer).width == view.columns
    return view if is_alone else to.copied(view)
