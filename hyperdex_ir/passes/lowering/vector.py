"""Elementwise operations, reductions, norms, rotary positions, and operations that only move elements."""

from __future__ import annotations

from collections.abc import Mapping

from xdsl.dialects.builtin import DYNAMIC_INDEX
from xdsl.ir import SSAValue

from hyperdex_ir.dialects import lpu
from hyperdex_ir.dialects.isa import LmuUse
from hyperdex_ir.dialects.lpu import shape_of
from hyperdex_ir.isa.instructions import FIRST_ROW
from hyperdex_ir.passes.lowering.function import FunctionLowering, Scalar, common_rows, features, lowers
from hyperdex_ir.passes.lowering.views import MAX_COLUMN_STRIDE, View, elementwise_blocks, row_blocks


@lowers(lpu.UnaryOp)
def lower_unary(to: FunctionLowering, op: lpu.UnaryOp) -> None:
    """One `unary`."""
    _elementwise(to, "unary", op, {"a": to.view(op.x)})


@lowers(lpu.BinaryOp)
def lower_binary(to: FunctionLowering, op: lpu.BinaryOp) -> None:
    """One `binary`, or `binary_scalar` when an operand is a constant."""
    left, right = to.place(op.lhs), to.place(op.rhs)
    if isinstance(right, Scalar):
        _elementwise(to, "binary_scalar", op, {"a": to.view(op.lhs)}, b=right.value, reversed=0)
    elif isinstance(left, Scalar):
        _elementwise(to, "binary_scalar", op, {"a": to.view(op.rhs)}, b=left.value, reversed=1)
    else:
        _elementwise(to, "binary", op, {"a": to.view(op.lhs), "b": to.view(op.rhs)})


def _elementwise(
    to: FunctionLowering, name: str, op: lpu.UnaryOp | lpu.BinaryOp, operands: Mapping[str, View], **immediates: object
) -> None:
    """An instruction `name` for each block of the result. operands: views by the names of the instruction's."""
    target = to.result(op.res, common_rows(list(operands.values())))
    for part in elementwise_blocks(target.dims, [target, *(one.broadcast(target.dims) for one in operands.values())]):
        to.emit(
            name,
            function=op.mnemonic(),
            dst=part.uses[0],
            **dict(zip(operands, part.uses[1:], strict=True)),
            **immediates,
            groups=part.groups,
            columns=part.columns,
            rows=to.rows_register(target.rows),
        )


def _with_columns(to: FunctionLowering, value: SSAValue) -> View:
    """A value whose last dimension an instruction's columns can walk."""
    view = to.view(value)
    walkable = view.dims[-1] == 1 or view.strides[-1] <= MAX_COLUMN_STRIDE
    return view if walkable else to.copied(view, value.name_hint)


def _without_columns(view: View) -> View:
    return View(view.buffer, view.offset, view.dims[:-1], view.strides[:-1])


@lowers(lpu.ReduceOp)
def lower_reduce(to: FunctionLowering, op: lpu.ReduceOp) -> None:
    """One `reduce`."""
    source = _with_columns(to, op.x)
    target = to.result(op.res, source.rows)
    for groups, uses in row_blocks([_without_columns(target), _without_columns(source)], [target, source]):
        to.emit(
            "reduce",
            function=op.mnemonic(),
            dst=uses[0],
            a=uses[1],
            groups=groups,
            columns=source.dims[-1],
            rows=to.rows_register(target.rows),
        )


@lowers(lpu.RmsNormOp, lpu.LayerNormOp)
def lower_norm(to: FunctionLowering, op: lpu.RmsNormOp | lpu.LayerNormOp) -> None:
    """One `rms_norm` or `layer_norm`."""
    source = _with_columns(to, op.x)
    target = to.result(op.res, source.rows)
    parameters = {"weight": to.optional_address(op.weight)}
    if isinstance(op, lpu.LayerNormOp):
        parameters["bias"] = to.optional_address(op.bias)
    for groups, uses in row_blocks([_without_columns(target), _without_columns(source)], [target, source]):
        to.emit(
            op.mnemonic(),
            dst=uses[0],
            a=uses[1],
            **parameters,
            epsilon=op.epsilon.value.data,
            unit_offset=int(op.unit_offset is not None),
            groups=groups,
            columns=source.dims[-1],
            rows=to.rows_register(target.rows),
        )


@lowers(lpu.RotaryOp)
def lower_rotary(to: FunctionLowering, op: lpu.RotaryOp) -> None:
    """One `rotary`."""
    source = _with_columns(to, op.x)
    cos, sin = to.use(op.cos), to.use(op.sin)
    target = to.result(op.res, source.rows)
    for groups, uses in row_blocks([_without_columns(target), _without_columns(source)], [target, source]):
        to.emit(
            "rotary",
            dst=uses[0],
            a=uses[1],
            cos=cos,
            sin=sin,
            style=op.style.data,
            turned=shape_of(op.cos)[1],
            groups=groups,
            columns=source.dims[-1],
            rows=to.rows_register(target.rows),
        )


# ---------------------------------------------------------------------------------------------------- movement
@lowers(lpu.ReshapeOp)
def lower_reshape(to: FunctionLowering, op: lpu.ReshapeOp) -> None:
    """Another view; a copy when the elements lie too far apart for that."""
    place = to.place(op.x)
    if not isinstance(place, View):
        to.places[op.res] = place
        return
    if DYNAMIC_INDEX in shape_of(op.x) and (shape_of(op.x)[0], shape_of(op.res)[0]) != (DYNAMIC_INDEX,) * 2:
        raise to.error("must be token-major")
    view = place.reshaped(features(op.res))
    view = view or to.copied(place, op.res.name_hint).reshaped(features(op.res))
    assert view is not None
    to.places[op.res] = view


@lowers(lpu.TransposeOp)
def lower_transpose(to: FunctionLowering, op: lpu.TransposeOp) -> None:
    """Another view."""
    order = list(op.axes)
    if DYNAMIC_INDEX in shape_of(op.x):
        if order[0] != 0:
            raise to.error("must leave the token dimension first")
        order = [axis - 1 for axis in order[1:]]
    to.places[op.res] = to.view(op.x).permuted(order)


def _feature_dim(op: lpu.SliceOp | lpu.ConcatOp, value: SSAValue) -> int:
    return op.dim.value.data - (1 if DYNAMIC_INDEX in shape_of(value) else 0)


@lowers(lpu.SliceOp)
def lower_slice(to: FunctionLowering, op: lpu.SliceOp) -> None:
    """Another view."""
    _, start, _, step = op.bounds
    dim = _feature_dim(op, op.x)
    to.places[op.res] = to.view(op.x).sliced(dim, start, step, features(op.res)[dim])


@lowers(lpu.ConcatOp)
def lower_concat(to: FunctionLowering, op: lpu.ConcatOp) -> None:
    """A copy of each operand."""
    views = [to.view(value) for value in op.inputs]
    dim = _feature_dim(op, op.res)
    target = to.result(op.res, common_rows(views))
    start = 0
    for view in views:
        extent = view.dims[dim]
        to.copy(view, target.sliced(dim, start, 1, extent))
        start += extent


@lowers(lpu.BroadcastOp)
def lower_broadcast(to: FunctionLowering, op: lpu.BroadcastOp) -> None:
    """Another view, with strides of 0."""
    place = to.place(op.x)
    to.places[op.res] = place.broadcast(features(op.res)) if isinstance(place, View) else place


@lowers(lpu.SelectRowsOp)
def lower_select_rows(to: FunctionLowering, op: lpu.SelectRowsOp) -> None:
    """One `select_rows`."""
    source = to.contiguous(op.x)
    if source.rows != "tokens":
        raise to.error("rows have been selected already")
    target = to.result(op.res, "head")
    to.emit(
        "select_rows",
        dst=LmuUse(target.buffer, target.offset),
        src=LmuUse(source.buffer, source.offset),
        first=FIRST_ROW,
        columns=source.columns,
        rows=to.rows_register("head"),
    )
