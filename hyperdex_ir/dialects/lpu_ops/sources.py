"""Where values come from: parameters by key, and constants."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import DYNAMIC_INDEX, ArrayAttr, Float32Type, FloatAttr, StringAttr, TensorType, f32
from xdsl.irdl import IRDLOperation, irdl_op_definition, prop_def, result_def, traits_def
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import Pure

from hyperdex_ir.dialects.lpu_ops.base import TENSOR, element_of, require, shape_of


@irdl_op_definition
class WeightOp(IRDLOperation):
    """A parameter, by checkpoint key. `*` in a key stands for the number of the layer that is running.

    Several keys are the rows of their tensors one after another. The element type says how it is stored: f16 or bf16
    for what the MAC trees stream, f32 for the rest, i64 for tables of numbers.
    """

    name = "lpu.weight"
    keys = prop_def(ArrayAttr[StringAttr])
    res = result_def(TENSOR)
    traits = traits_def(Pure())

    def __init__(self, keys: Sequence[str], type: TensorType):
        super().__init__(properties={"keys": ArrayAttr([StringAttr(k) for k in keys])}, result_types=[type])

    @property
    def key_names(self) -> tuple[str, ...]:
        return tuple(k.data for k in self.keys)

    @classmethod
    def parse(cls, parser: Parser) -> WeightOp:
        keys = parser.parse_comma_separated_list(Parser.Delimiter.NONE, parser.parse_str_literal)
        attributes = parser.parse_optional_attr_dict()
        parser.parse_punctuation(":")
        type_ = parser.parse_type()
        if not isinstance(type_, TensorType):
            parser.raise_error("lpu.weight: expected a tensor type")
        op = cls(keys, type_)
        op.attributes.update(attributes)
        return op

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_list(self.key_names, printer.print_string_literal)
        printer.print_op_attributes(self.attributes)
        printer.print_string(" : ")
        printer.print_attribute(self.res.type)

    def verify_(self) -> None:
        require(len(self.keys) > 0, "lpu.weight: needs at least one key")
        require(all(k.data for k in self.keys), "lpu.weight: empty key")
        require(DYNAMIC_INDEX not in shape_of(self.res), "lpu.weight: a parameter has a static shape")


@irdl_op_definition
class ConstantOp(IRDLOperation):
    """A scalar f32, broadcast to whatever it meets."""

    name = "lpu.constant"
    value = prop_def(FloatAttr[Float32Type])
    res = result_def(TENSOR)
    traits = traits_def(Pure())
    assembly_format = "$value attr-dict `:` type($res)"

    def __init__(self, value: float):
        super().__init__(properties={"value": FloatAttr(value, f32)}, result_types=[TensorType(f32, [])])

    def verify_(self) -> None:
        require(shape_of(self.res) == () and element_of(self.res) == f32, "lpu.constant: must be tensor<f32>")
