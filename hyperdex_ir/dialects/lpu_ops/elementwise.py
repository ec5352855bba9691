"""Elementwise operations and reductions: the vector engine's work."""

from __future__ import annotations

from abc import ABC
from typing import ClassVar

from xdsl.dialects.builtin import DYNAMIC_INDEX, TensorType, f32
from xdsl.ir import Operation, SSAValue
from xdsl.irdl import IRDLOperation, VarConstraint, irdl_op_definition, operand_def, result_def, traits_def
from xdsl.traits import Pure

from hyperdex_ir.dialects.lpu_ops.base import TENSOR, broadcast_shapes, element_of, require, shape_of, shape_text


class BinaryOp(IRDLOperation, ABC):
    """Elementwise, one f32 operation an element, NumPy broadcasting."""

    lhs = operand_def(TENSOR)
    rhs = operand_def(TENSOR)
    res = result_def(TENSOR)
    traits = traits_def(Pure())
    assembly_format = "$lhs `,` $rhs attr-dict `:` functional-type(operands, results)"

    def __init__(self, lhs: SSAValue | Operation, rhs: SSAValue | Operation):
        a, b = SSAValue.get(lhs), SSAValue.get(rhs)
        shape = broadcast_shapes(shape_of(a), shape_of(b))
        super().__init__(operands=[a, b], result_types=[TensorType(element_of(a), shape)])

    def verify_(self) -> None:
        require(element_of(self.lhs) == element_of(self.rhs) == element_of(self.res), f"{self.name}: element types")
        expected = broadcast_shapes(shape_of(self.lhs), shape_of(self.rhs))
        require(shape_of(self.res) == expected, f"{self.name}: result shape must be {shape_text(expected)}")


class UnaryOp(IRDLOperation, ABC):
    """Elementwise on f32; the result has the operand's shape."""

    T: ClassVar = VarConstraint("T", TENSOR)
    x = operand_def(T)
    res = result_def(T)
    traits = traits_def(Pure())
    assembly_format = "$x attr-dict `:` type($res)"

    def __init__(self, x: SSAValue | Operation):
        value = SSAValue.get(x)
        super().__init__(operands=[value], result_types=[value.type])


@irdl_op_definition
class AddOp(BinaryOp):
    """a + b"""

    name = "lpu.add"


@irdl_op_definition
class SubOp(BinaryOp):
    """a - b"""

    name = "lpu.sub"


@irdl_op_definition
class MulOp(BinaryOp):
    """a * b"""

    name = "lpu.mul"


@irdl_op_definition
class DivOp(BinaryOp):
    """a / b"""

    name = "lpu.div"


@irdl_op_definition
class MaxOp(BinaryOp):
    """a > b ? a : b"""

    name = "lpu.max"


@irdl_op_definition
class MinOp(BinaryOp):
    """a < b ? a : b"""

    name = "lpu.min"


@irdl_op_definition
class NegOp(UnaryOp):
    """-x: the sign bit flipped"""

    name = "lpu.neg"


@irdl_op_definition
class ExpOp(UnaryOp):
    """e to the x"""

    name = "lpu.exp"


@irdl_op_definition
class TanhOp(UnaryOp):
    """hyperbolic tangent"""

    name = "lpu.tanh"


@irdl_op_definition
class ErfOp(UnaryOp):
    """Gauss error function"""

    name = "lpu.erf"


@irdl_op_definition
class SqrtOp(UnaryOp):
    """IEEE square root"""

    name = "lpu.sqrt"


@irdl_op_definition
class RsqrtOp(UnaryOp):
    """1 / sqrt(x): two IEEE operations"""

    name = "lpu.rsqrt"


@irdl_op_definition
class ReluOp(UnaryOp):
    """x > 0 ? x : 0"""

    name = "lpu.relu"


@irdl_op_definition
class SigmoidOp(UnaryOp):
    """1 / (1 + exp(-x))"""

    name = "lpu.sigmoid"


@irdl_op_definition
class SiluOp(UnaryOp):
    """x / (1 + exp(-x))"""

    name = "lpu.silu"


@irdl_op_definition
class GeluOp(UnaryOp):
    """GELU by the error function"""

    name = "lpu.gelu"


@irdl_op_definition
class GeluTanhOp(UnaryOp):
    """GELU by the hyperbolic tangent"""

    name = "lpu.gelu_tanh"


class ReduceOp(IRDLOperation, ABC):
    """Over the last dimension, which stays with size 1. Sums fold in the order of the MAC tree."""

    x = operand_def(TENSOR)
    res = result_def(TENSOR)
    traits = traits_def(Pure())
    assembly_format = "$x attr-dict `:` functional-type(operands, results)"

    def __init__(self, x: SSAValue | Operation):
        value = SSAValue.get(x)
        super().__init__(operands=[value], result_types=[TensorType(f32, [*shape_of(value)[:-1], 1])])

    def verify_(self) -> None:
        shape = shape_of(self.x)
        require(len(shape) > 0 and shape[-1] != DYNAMIC_INDEX, f"{self.name}: the last dimension must be static")
        require(shape_of(self.res) == (*shape[:-1], 1), f"{self.name}: the result keeps the dimension with size 1")


@irdl_op_definition
class SumOp(ReduceOp):
    """sum in MAC-tree order"""

    name = "lpu.sum"


@irdl_op_definition
class MeanOp(ReduceOp):
    """sum in MAC-tree order, divided by the count"""

    name = "lpu.mean"


@irdl_op_definition
class RowMaxOp(ReduceOp):
    """largest element, by max selects in index order"""

    name = "lpu.row_max"
