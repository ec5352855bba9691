"""Elementwise operations and reductions: the functions of the vector engine, one class each.

`interpreter/functions.py` defines what they compute.
"""

from __future__ import annotations

from abc import ABC
from typing import ClassVar

from xdsl.dialects.builtin import DYNAMIC_INDEX, TensorType, f32
from xdsl.ir import Operation, SSAValue
from xdsl.irdl import VarConstraint, operand_def, result_def, traits_def
from xdsl.traits import Pure

from hyperdex_ir.dialects.lpu_ops.base import (
    OPERATIONS,
    TENSOR,
    LpuOp,
    broadcast_shapes,
    element_of,
    require,
    shape_of,
    shape_text,
)
from hyperdex_ir.dialects.lpu_ops.traits import Elementwise, KeepsZeros, RowWise
from hyperdex_ir.isa.functions import BY_NAME, FUNCTIONS, Function, check_complete


class FunctionOp(LpuOp, ABC):
    """A function of the vector engine, of the same name."""

    @property
    def function(self) -> Function:
        return BY_NAME[self.mnemonic()]


class BinaryOp(FunctionOp, ABC):
    """Elementwise, one f32 operation an element, NumPy broadcasting."""

    lhs = operand_def(TENSOR)
    rhs = operand_def(TENSOR)
    res = result_def(TENSOR)
    traits = traits_def(Pure(), Elementwise())
    assembly_format = "$lhs `,` $rhs attr-dict `:` functional-type(operands, results)"

    def __init__(self, lhs: SSAValue | Operation, rhs: SSAValue | Operation):
        a, b = SSAValue.get(lhs), SSAValue.get(rhs)
        shape = broadcast_shapes(shape_of(a), shape_of(b))
        super().__init__(operands=[a, b], result_types=[TensorType(element_of(a), shape)])

    def verify_(self) -> None:
        require(element_of(self.lhs) == element_of(self.rhs) == element_of(self.res), f"{self.name}: element types")
        expected = broadcast_shapes(shape_of(self.lhs), shape_of(self.rhs))
        require(shape_of(self.res) == expected, f"{self.name}: result shape must be {shape_text(expected)}")


class UnaryOp(FunctionOp, ABC):
    """Elementwise on f32; the result has the operand's shape."""

    T: ClassVar = VarConstraint("T", TENSOR)
    x = operand_def(T)
    res = result_def(T)
    traits = traits_def(Pure(), Elementwise())
    assembly_format = "$x attr-dict `:` type($res)"

    def __init__(self, x: SSAValue | Operation):
        value = SSAValue.get(x)
        super().__init__(operands=[value], result_types=[value.type])


class AddOp(BinaryOp):
    name = "lpu.add"


class SubOp(BinaryOp):
    name = "lpu.sub"


class MulOp(BinaryOp):
    name = "lpu.mul"


class DivOp(BinaryOp):
    name = "lpu.div"


class MaxOp(BinaryOp):
    name = "lpu.max"


class MinOp(BinaryOp):
    name = "lpu.min"


class NegOp(UnaryOp):
    name = "lpu.neg"


class ExpOp(UnaryOp):
    name = "lpu.exp"


class TanhOp(UnaryOp):
    name = "lpu.tanh"


class ErfOp(UnaryOp):
    name = "lpu.erf"


class SqrtOp(UnaryOp):
    name = "lpu.sqrt"


class RsqrtOp(UnaryOp):
    name = "lpu.rsqrt"


class ReluOp(UnaryOp):
    name = "lpu.relu"


class SigmoidOp(UnaryOp):
    name = "lpu.sigmoid"


class SiluOp(UnaryOp):
    name = "lpu.silu"


class GeluOp(UnaryOp):
    name = "lpu.gelu"


class GeluTanhOp(UnaryOp):
    name = "lpu.gelu_tanh"


class ReduceOp(FunctionOp, KeepsZeros, ABC):
    """Reduces the last dimension, which stays with size 1. Sums fold in the order of the MAC tree."""

    x = operand_def(TENSOR)
    res = result_def(TENSOR)
    traits = traits_def(Pure(), RowWise())
    assembly_format = "$x attr-dict `:` functional-type(operands, results)"

    def __init__(self, x: SSAValue | Operation):
        value = SSAValue.get(x)
        super().__init__(operands=[value], result_types=[TensorType(f32, [*shape_of(value)[:-1], 1])])

    def zeros_from(self) -> tuple[SSAValue, ...]:
        return (self.x,)

    def verify_(self) -> None:
        shape = shape_of(self.x)
        require(len(shape) > 0 and shape[-1] != DYNAMIC_INDEX, f"{self.name}: the last dimension must be static")
        require(shape_of(self.res) == (*shape[:-1], 1), f"{self.name}: the result keeps the dimension with size 1")


class SumOp(ReduceOp):
    name = "lpu.sum"


class MeanOp(ReduceOp):
    name = "lpu.mean"


class RowMaxOp(ReduceOp):
    name = "lpu.row_max"


check_complete(
    (op.mnemonic() for op in OPERATIONS if issubclass(op, FunctionOp)),
    (function.name for function in FUNCTIONS if function.is_operation),
)
