"""Operations that move elements and compute nothing."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from math import prod
from typing import ClassVar

from xdsl.dialects.builtin import DYNAMIC_INDEX, I64, DenseArrayBase, IntegerAttr, TensorType, i64
from xdsl.interfaces import HasCanonicalizationPatternsInterface
from xdsl.ir import Operation, SSAValue
from xdsl.irdl import (
    ParsePropInAttrDict,
    VarConstraint,
    operand_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern
from xdsl.traits import Pure

from hyperdex_ir.dialects.lpu_ops.base import TENSOR, LpuOp, broadcast_shapes, element_of, require, shape_of, shape_text
from hyperdex_ir.dialects.lpu_ops.traits import IsView, MovesData, RowWise


class ReshapingOp(LpuOp, HasCanonicalizationPatternsInterface, ABC):
    """Another order, choice or repetition of one operand's elements."""

    x = operand_def(TENSOR)
    res = result_def(TENSOR)
    traits = traits_def(Pure(), RowWise(), IsView())

    @classmethod
    def get_canonicalization_patterns(cls) -> tuple[RewritePattern, ...]:
        return (DropIdentity(), JoinReshapes())


class ReshapeOp(ReshapingOp):
    """Same elements in row-major order, another shape."""

    name = "lpu.reshape"
    assembly_format = "$x attr-dict `:` functional-type(operands, results)"

    def __init__(self, x: SSAValue | Operation, shape: Sequence[int]):
        value = SSAValue.get(x)
        super().__init__(operands=[value], result_types=[TensorType(element_of(value), shape)])

    def verify_(self) -> None:
        source, result = shape_of(self.x), shape_of(self.res)
        require(
            source.count(DYNAMIC_INDEX) == result.count(DYNAMIC_INDEX), "lpu.reshape: must keep the token dimension"
        )
        require(abs(prod(source)) == abs(prod(result)), "lpu.reshape: element counts differ")


class TransposeOp(ReshapingOp):
    """Result dimension i is operand dimension permutation[i]."""

    name = "lpu.transpose"
    permutation = prop_def(DenseArrayBase.constr(i64))
    assembly_format = "$x $permutation attr-dict `:` functional-type(operands, results)"

    def __init__(self, x: SSAValue | Operation, permutation: Sequence[int]):
        value = SSAValue.get(x)
        shape = shape_of(value)
        super().__init__(
            operands=[value],
            properties={"permutation": DenseArrayBase.from_list(i64, permutation)},
            result_types=[TensorType(element_of(value), [shape[i] for i in permutation])],
        )

    @property
    def axes(self) -> tuple[int, ...]:
        return tuple(int(i) for i in self.permutation.get_values())

    def verify_(self) -> None:
        shape = shape_of(self.x)
        require(sorted(self.axes) == list(range(len(shape))), "lpu.transpose: not a permutation of the dimensions")
        require(shape_of(self.res) == tuple(shape[i] for i in self.axes), "lpu.transpose: result shape")


class SliceOp(ReshapingOp):
    """Elements start, start + step, ... below stop of one static dimension."""

    name = "lpu.slice"
    dim = prop_def(IntegerAttr[I64])
    start = prop_def(IntegerAttr[I64])
    stop = prop_def(IntegerAttr[I64])
    step = prop_def(IntegerAttr[I64], default_value=IntegerAttr(1, 64))
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$x `dim` $dim `from` $start `to` $stop attr-dict `:` functional-type(operands, results)"

    def __init__(self, x: SSAValue | Operation, dim: int, start: int, stop: int, step: int = 1):
        value = SSAValue.get(x)
        shape = list(shape_of(value))
        shape[dim] = len(range(start, stop, step))
        numbers = {"dim": dim, "start": start, "stop": stop, "step": step}
        super().__init__(
            operands=[value],
            properties={name: IntegerAttr(number, 64) for name, number in numbers.items()},
            result_types=[TensorType(element_of(value), shape)],
        )

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """(dim, start, stop, step)"""
        return self.dim.value.data, self.start.value.data, self.stop.value.data, self.step.value.data

    def verify_(self) -> None:
        shape = list(shape_of(self.x))
        dim, start, stop, step = self.bounds
        require(0 <= dim < len(shape) and shape[dim] != DYNAMIC_INDEX, "lpu.slice: needs a static dimension")
        require(0 <= start < stop <= shape[dim] and step > 0, f"lpu.slice: bounds outside 0..{shape[dim]}")
        shape[dim] = len(range(start, stop, step))
        require(shape_of(self.res) == tuple(shape), f"lpu.slice: result shape must be {shape_text(shape)}")


class ConcatOp(LpuOp):
    """Operands one after another along a static dimension."""

    name = "lpu.concat"
    inputs = var_operand_def(TENSOR)
    dim = prop_def(IntegerAttr[I64])
    res = result_def(TENSOR)
    traits = traits_def(Pure(), RowWise(), MovesData())
    assembly_format = "$inputs `dim` $dim attr-dict `:` functional-type(operands, results)"

    def __init__(self, inputs: Sequence[SSAValue | Operation], dim: int):
        values = [SSAValue.get(v) for v in inputs]
        shape = list(shape_of(values[0]))
        shape[dim] = sum(shape_of(v)[dim] for v in values)
        super().__init__(
            operands=[values],
            properties={"dim": IntegerAttr(dim, 64)},
            result_types=[TensorType(element_of(values[0]), shape)],
        )

    def verify_(self) -> None:
        dim = self.dim.value.data
        shapes = [list(shape_of(v)) for v in self.inputs]
        require(bool(shapes) and 0 <= dim < len(shapes[0]), "lpu.concat: no such dimension")
        total = sum(s[dim] for s in shapes)
        rest = {tuple(s[:dim] + s[dim + 1 :]) for s in shapes}
        require(len(rest) == 1 and all(s[dim] >= 0 for s in shapes), "lpu.concat: other dimensions must agree")
        expected = (*shapes[0][:dim], total, *shapes[0][dim + 1 :])
        require(shape_of(self.res) == expected, f"lpu.concat: result shape must be {shape_text(expected)}")


class BroadcastOp(ReshapingOp):
    """Repeats dimensions of size 1 up to the result's shape (NumPy rules)."""

    name = "lpu.broadcast"
    assembly_format = "$x attr-dict `:` functional-type(operands, results)"

    def __init__(self, x: SSAValue | Operation, shape: Sequence[int]):
        value = SSAValue.get(x)
        super().__init__(operands=[value], result_types=[TensorType(element_of(value), shape)])

    def verify_(self) -> None:
        expected = broadcast_shapes(shape_of(self.x), shape_of(self.res))
        require(expected == shape_of(self.res), "lpu.broadcast: does not broadcast to the result shape")


class SelectRowsOp(LpuOp):
    """The rows of the tokens whose logits are wanted: from the *first row* (a register) to the last."""

    name = "lpu.select_rows"
    assembly_format = "$x attr-dict `:` type($x)"
    T: ClassVar = VarConstraint("T", TENSOR)
    x = operand_def(T)
    res = result_def(T)
    traits = traits_def(Pure(), MovesData())

    def __init__(self, x: SSAValue | Operation):
        value = SSAValue.get(x)
        super().__init__(operands=[value], result_types=[value.type])

    def verify_(self) -> None:
        require(shape_of(self.x)[0] == DYNAMIC_INDEX, "lpu.select_rows: the token dimension must come first")


# ---------------------------------------------------------------------------------------------- canonicalization
class DropIdentity(RewritePattern):
    """A reshape, transpose or broadcast whose result is its operand."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: ReshapingOp, rewriter: PatternRewriter, /) -> None:
        if op.x.type != op.res.type:
            return
        moves_nothing = isinstance(op, ReshapeOp | BroadcastOp)
        if moves_nothing or (isinstance(op, TransposeOp) and list(op.axes) == sorted(op.axes)):
            rewriter.replace(op, (), (op.x,))


class JoinReshapes(RewritePattern):
    """reshape(reshape(x)) is reshape(x)."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: ReshapeOp, rewriter: PatternRewriter, /) -> None:
        if isinstance(inner := op.x.owner, ReshapeOp):
            joined = ReshapeOp(inner.x, shape_of(op.res))
            joined.location = op.location
            rewriter.replace(op, joined)
