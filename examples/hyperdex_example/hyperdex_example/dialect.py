"""The dialect `example`."""

from xdsl.dialects.builtin import TensorType
from xdsl.ir import Dialect, SSAValue
from xdsl.irdl import IRDLOperation, irdl_op_definition, operand_def, result_def, traits_def
from xdsl.traits import Pure


@irdl_op_definition
class SquareOp(IRDLOperation):
    """x * x, for each number of a tensor."""

    name = "example.square"
    x = operand_def(TensorType)
    res = result_def(TensorType)
    traits = traits_def(Pure())
    assembly_format = "$x attr-dict `:` type($x) `->` type($res)"

    def __init__(self, x: SSAValue):
        super().__init__(operands=[x], result_types=[x.type])


EXAMPLE = Dialect("example", [SquareOp])
