"""Outlined layers: a function a distinct layer, run again and again."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import I64, IntegerAttr, StringAttr, SymbolRefAttr
from xdsl.ir import Attribute, Block, Region, SSAValue
from xdsl.irdl import (
    AnyAttr,
    IRDLOperation,
    irdl_op_definition,
    lazy_traits_def,
    prop_def,
    region_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import HasParent, IsTerminator, SingleBlockImplicitTerminator

from hyperdex_ir.dialects.lpu_ops.base import require


@irdl_op_definition
class YieldOp(IRDLOperation):
    """Hands the loop-carried values to the next trip."""

    name = "lpu.yield"
    values = var_operand_def(AnyAttr())
    traits = lazy_traits_def(lambda: (IsTerminator(), HasParent(RepeatOp)))
    assembly_format = "attr-dict ($values^ `:` type($values))?"

    def __init__(self, *values: SSAValue):
        super().__init__(operands=[values])


@irdl_op_definition
class RepeatOp(IRDLOperation):
    """Runs its body `trip_count` times; values go round through `lpu.yield`."""

    name = "lpu.repeat"
    trip_count = prop_def(IntegerAttr[I64])
    inputs = var_operand_def(AnyAttr())
    res = var_result_def(AnyAttr())
    body = region_def("single_block")
    traits = traits_def(SingleBlockImplicitTerminator(YieldOp))

    def __init__(self, trip_count: int, inputs: Sequence[SSAValue], body: Region):
        super().__init__(
            operands=[inputs],
            properties={"trip_count": IntegerAttr(trip_count, 64)},
            result_types=[[v.type for v in inputs]],
            regions=[body],
        )

    @classmethod
    def parse(cls, parser: Parser) -> RepeatOp:
        """`lpu.repeat 30 (%h = %x : tensor<?x576xf32>) { ... }`"""
        count = parser.parse_integer(allow_boolean=False, allow_negative=False)
        pairs: list[tuple[Parser.Argument, SSAValue]] = []

        def parse_pair() -> None:
            argument = parser.parse_argument(expect_type=False)
            parser.parse_punctuation("=")
            operand = parser.parse_unresolved_operand()
            parser.parse_punctuation(":")
            type_ = parser.parse_type()
            pairs.append((argument.resolve(type_), parser.resolve_operand(operand, type_)))

        parser.parse_comma_separated_list(Parser.Delimiter.PAREN, parse_pair)
        attributes = parser.parse_optional_attr_dict_with_keyword()
        region = parser.parse_region([argument for argument, _ in pairs])
        op = cls(count, [value for _, value in pairs], region)
        if attributes is not None:
            op.attributes.update(attributes.data)
        return op

    def print(self, printer: Printer) -> None:
        printer.print_string(f" {self.trip_count.value.data} (")

        def print_pair(pair: tuple[SSAValue, SSAValue]) -> None:
            printer.print_ssa_value(pair[0])
            printer.print_string(" = ")
            printer.print_ssa_value(pair[1])
            printer.print_string(" : ")
            printer.print_attribute(pair[1].type)

        printer.print_list(list(zip(self.body.block.args, self.inputs, strict=True)), print_pair)
        printer.print_string(")")
        printer.print_op_attributes(self.attributes, print_keyword=True)
        printer.print_string(" ")
        printer.print_region(self.body, print_entry_block_args=False)

    def verify_(self) -> None:
        require(self.trip_count.value.data > 0, "lpu.repeat: the trip count must be positive")
        types = [v.type for v in self.inputs]
        require([a.type for a in self.body.block.args] == types, "lpu.repeat: body arguments have the inputs' types")
        require([r.type for r in self.res] == types, "lpu.repeat: results have the inputs' types")
        last = self.body.block.last_op
        require(
            isinstance(last, YieldOp) and [v.type for v in last.values] == types,
            "lpu.repeat: must yield its inputs' types",
        )


@irdl_op_definition
class LayerOp(IRDLOperation):
    """Runs a function as the next layer: `*` in its keys is the layer's number, which grows by one afterwards.

    Its KV slots follow those of the layers before it.
    """

    name = "lpu.layer"
    callee = prop_def(SymbolRefAttr)
    inputs = var_operand_def(AnyAttr())
    res = var_result_def(AnyAttr())
    assembly_format = "$callee `(` $inputs `)` attr-dict `:` functional-type($inputs, $res)"

    def __init__(self, callee: str, inputs: Sequence[SSAValue], results: Sequence[Attribute]):
        super().__init__(
            operands=[inputs], properties={"callee": SymbolRefAttr(StringAttr(callee))}, result_types=[results]
        )

    @property
    def function(self) -> str:
        return self.callee.root_reference.data


def repeat_body(types: Sequence[Attribute]) -> tuple[Region, Block]:
    """An empty body for RepeatOp with one argument a type."""
    block = Block(arg_types=types)
    return Region(block), block
