"""Sources of values: parameters by key, and constants."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    ArrayAttr,
    DenseArrayBase,
    Float32Type,
    FloatAttr,
    StringAttr,
    TensorType,
    f32,
)
from xdsl.irdl import opt_prop_def, prop_def, result_def, traits_def
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import Pure

from hyperdex_ir.dialects.f32 import F32, f32_attr
from hyperdex_ir.dialects.lpu_ops.base import TENSOR, LpuOp, element_of, is_matrix_element, require, shape_of
from hyperdex_ir.dialects.lpu_ops.sharding import ShardingAttr
from hyperdex_ir.dialects.lpu_ops.traits import HoldsParameter, Source
from hyperdex_ir.isa.fields import format_f32


def shared_module(keys: Sequence[str]) -> str:
    """The longest module path, without its last dot, that all of several keys start with; empty for a single key."""
    if len(keys) < 2:
        return ""
    parts = [key.split(".")[:-1] for key in keys]
    count = 0
    while all(len(part) > count and part[count] == parts[0][count] for part in parts):
        count += 1
    return ".".join(parts[0][:count])


class WeightOp(HoldsParameter):
    """A parameter, by checkpoint key. `*` in a key stands for the number of the layer that is running.

    Several keys are the rows of their tensors one after another. The element type is that of the stored parameter: f16
    or bf16 for parameters that the MAC trees stream, f32 for the rest, i64 for tables of numbers.
    shards: for each key, the part of its tensor that a device holds, one segment of rows or columns; the result then
    has the local shape. A key may appear several times, with several parts: of rows, or, where the tensor has a matrix
    or a row for each expert, of dimension 1. Absent: every device holds the whole tensor.
    """

    name = "lpu.weight"
    keys = prop_def(ArrayAttr[StringAttr])
    shards = opt_prop_def(ArrayAttr[ShardingAttr])
    traits = traits_def(Pure(), Source())

    def __init__(self, keys: Sequence[str], type: TensorType, shards: Sequence[ShardingAttr] | None = None):
        properties = {
            "keys": ArrayAttr([StringAttr(k) for k in keys]),
            "shards": None if shards is None else ArrayAttr(shards),
        }
        super().__init__(properties=properties, result_types=[type])

    @property
    def key_names(self) -> tuple[str, ...]:
        return tuple(k.data for k in self.keys)

    @property
    def is_of_experts(self) -> bool:
        """True if the parameter has a matrix, or a row, for each of several experts."""
        return len(shape_of(self.res)) == (3 if is_matrix_element(element_of(self.res)) else 2)

    @classmethod
    def parse(cls, parser: Parser) -> WeightOp:
        """`lpu.weight "q.weight" : type`, or several keys, which may share a module: `"k.bias", "q.bias" in "attn"`.

        Their shards follow: `shards [#lpu.sharding<0, 2 of 4 at [0, 2]>, ...]`.
        """
        keys = parser.parse_comma_separated_list(Parser.Delimiter.NONE, parser.parse_str_literal)
        if parser.parse_optional_keyword("in") is not None:
            shared = parser.parse_str_literal()
            keys = [f"{shared}.{key}" for key in keys]
        shards = None
        if parser.parse_optional_keyword("shards") is not None:
            shards = parser.parse_comma_separated_list(Parser.Delimiter.SQUARE, lambda: _parse_sharding(parser))
        attributes = parser.parse_optional_attr_dict()
        parser.parse_punctuation(":")
        type_ = parser.parse_type()
        if not isinstance(type_, TensorType):
            parser.raise_error("lpu.weight: expected a tensor type")
        op = cls(keys, type_, shards)
        op.attributes.update(attributes)
        return op

    def print(self, printer: Printer) -> None:
        shared = shared_module(self.key_names)
        start = len(shared) + 1 if shared else 0
        printer.print_string(" ")
        printer.print_list([key[start:] for key in self.key_names], printer.print_string_literal)
        if shared:
            printer.print_string(" in ")
            printer.print_string_literal(shared)
        if self.shards is not None:
            printer.print_string(" shards [")
            printer.print_list(self.shards, printer.print_attribute)
            printer.print_string("]")
        printer.print_op_attributes(self.attributes)
        printer.print_string(" : ")
        printer.print_attribute(self.res.type)

    @property
    def depends_on_device(self) -> bool:
        return self.shards is not None

    def verify_(self) -> None:
        require(len(self.keys) > 0, "lpu.weight: needs at least one key")
        require(all(k.data for k in self.keys), "lpu.weight: empty key")
        require(DYNAMIC_INDEX not in shape_of(self.res), "lpu.weight: a parameter has a static shape")
        if self.shards is not None:
            self._verify_shards(tuple(self.shards))

    def _verify_shards(self, shards: Sequence[ShardingAttr]) -> None:
        shape = shape_of(self.res)
        require(len(shards) == len(self.keys), "lpu.weight: needs a shard for each key")
        require(all(len(shard.segments) == 1 for shard in shards), "lpu.weight: a shard is one segment")
        require(len({shard.devices for shard in shards}) == 1, "lpu.weight: shards for different numbers of devices")
        dims = {shard.dim for shard in shards}
        by_columns = len(shards) == 1 or (len(set(self.key_names)) == 1 and self.is_of_experts)
        require(dims == {0} or (by_columns and dims == {1}), "lpu.weight: shards are rows, or columns of one key")
        dim = shards[0].dim
        held = sum(shard.size for shard in shards)
        require(dim < len(shape) and shape[dim] == held, f"lpu.weight: the shards have {held} elements along {dim}")


def _parse_sharding(parser: Parser) -> ShardingAttr:
    attribute = parser.parse_attribute()
    if not isinstance(attribute, ShardingAttr):
        parser.raise_error("lpu.weight: a shard is an #lpu.sharding")
    return attribute


class ConstantOp(LpuOp):
    """A scalar f32, broadcast to the other operand's shape."""

    name = "lpu.constant"
    value = prop_def(FloatAttr[Float32Type])
    res = result_def(TENSOR)
    traits = traits_def(Pure(), Source())
    custom_directives = (F32,)
    assembly_format = "custom<F32>($value) attr-dict `:` type($res)"

    def __init__(self, value: float):
        super().__init__(properties={"value": f32_attr(value)}, result_types=[TensorType(f32, [])])

    def verify_(self) -> None:
        require(shape_of(self.res) == () and element_of(self.res) == f32, "lpu.constant: must be tensor<f32>")


class LayerConstantOp(HoldsParameter):
    """A scalar f32 that differs from layer to layer: the running layer's number, out of one number for every layer of
    the model.

    It is stored like a parameter, under `key`, in which `*` stands for the number of the layer.
    """

    name = "lpu.layer_constant"
    key = prop_def(StringAttr)
    layer_values = prop_def(DenseArrayBase.constr(f32))
    traits = traits_def(Pure(), Source())

    def __init__(self, key: str, values: Sequence[float]):
        super().__init__(
            properties={"key": StringAttr(key), "layer_values": DenseArrayBase.from_list(f32, list(values))},
            result_types=[TensorType(f32, [])],
        )

    @property
    def key_names(self) -> tuple[str, ...]:
        return (self.key.data,)

    @property
    def values(self) -> tuple[float, ...]:
        """The number of each layer."""
        return tuple(self.layer_values.get_values())

    @classmethod
    def parse(cls, parser: Parser) -> LayerConstantOp:
        """`lpu.layer_constant "model.layers.*.constant0" [0.5, 0.25] : tensor<f32>`"""
        key = parser.parse_str_literal()
        numbers = parser.parse_comma_separated_list(Parser.Delimiter.SQUARE, parser.parse_number)
        attributes = parser.parse_optional_attr_dict()
        parser.parse_punctuation(":")
        type_ = parser.parse_type()
        op = cls(key, [float(number) for number in numbers])
        if op.res.type != type_:
            parser.raise_error("lpu.layer_constant: must be tensor<f32>")
        op.attributes.update(attributes)
        return op

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_string_literal(self.key.data)
        printer.print_string(f" [{', '.join(map(format_f32, self.values))}]")
        printer.print_op_attributes(self.attributes)
        printer.print_string(" : ")
        printer.print_attribute(self.res.type)

    def verify_(self) -> None:
        require("*" in self.key.data, "lpu.layer_constant: the key needs a * for the number of the layer")
        require(len(self.values) > 0, "lpu.layer_constant: needs a number for each layer")
        require(all(map(isfinite, self.values)), "lpu.layer_constant: NaN or infinity")
