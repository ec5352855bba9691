"""Outlined layers: one function for each distinct layer, run repeatedly."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import I64, ArrayAttr, DenseArrayBase, IntegerAttr, StringAttr, SymbolRefAttr, i64
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Operation, Region, SSAValue
from xdsl.irdl import (
    AnyAttr,
    lazy_traits_def,
    prop_def,
    region_def,
    result_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import (
    HasParent,
    IsTerminator,
    SingleBlockImplicitTerminator,
    SymbolTable,
    SymbolUserOpInterface,
)
from xdsl.utils.exceptions import VerifyException

from hyperdex_ir.dialects.lpu_ops.base import LpuOp, require
from hyperdex_ir.dialects.lpu_ops.traits import HoldsTable


class YieldOp(LpuOp):
    """Hands the loop-carried values to the next trip."""

    name = "lpu.yield"
    values = var_operand_def(AnyAttr())
    traits = lazy_traits_def(lambda: (IsTerminator(), HasParent(RepeatOp)))
    assembly_format = "attr-dict ($values^ `:` type($values))?"

    def __init__(self, *values: SSAValue):
        super().__init__(operands=[values])


class RepeatOp(LpuOp):
    """Runs its body `trip_count` times; `lpu.yield` carries values from trip to trip."""

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


class _CalleesMatch(SymbolUserOpInterface):
    """Every callee is a function that takes the types of the operands and gives those of the results."""

    def verify(self, op: Operation) -> None:
        assert isinstance(op, LayerOp | LayersOp)
        given = tuple(v.type for v in op.inputs), tuple(v.type for v in op.results)
        for name in op.functions:
            callee = SymbolTable.lookup_symbol(op, StringAttr(name))
            if not isinstance(callee, FuncOp):
                raise VerifyException(f"{op.name}: no function @{name}")
            expected = callee.function_type.inputs.data, callee.function_type.outputs.data
            require(given == expected, f"{op.name}: @{name} is {_signature(*expected)}, used as {_signature(*given)}")


def _signature(inputs: Sequence[Attribute], outputs: Sequence[Attribute]) -> str:
    return f"({', '.join(map(str, inputs))}) -> ({', '.join(map(str, outputs))})"


class LayerOp(LpuOp):
    """Runs a function as the next layer: `*` in its keys is the layer's number, which grows by one afterwards.

    Its KV slots follow those of the layers before it.
    """

    name = "lpu.layer"
    callee = prop_def(SymbolRefAttr)
    inputs = var_operand_def(AnyAttr())
    res = var_result_def(AnyAttr())
    traits = traits_def(_CalleesMatch())
    assembly_format = "$callee `(` $inputs `)` attr-dict `:` functional-type($inputs, $res)"

    def __init__(self, callee: str, inputs: Sequence[SSAValue], results: Sequence[Attribute]):
        super().__init__(
            operands=[inputs], properties={"callee": SymbolRefAttr(StringAttr(callee))}, result_types=[results]
        )

    @property
    def function(self) -> str:
        return self.callee.root_reference.data

    @property
    def functions(self) -> tuple[str, ...]:
        return (self.function,)


class LayersOp(HoldsTable):
    """Runs layer after layer, each by the function whose number is in a table; the first operand is carried from layer
    to layer.

    It stands for one `lpu.layer` for each entry of the table. `key` names the table in memory.
    """

    name = "lpu.layers"
    key = prop_def(StringAttr)
    order = prop_def(DenseArrayBase.constr(i64))
    callees = prop_def(ArrayAttr[SymbolRefAttr])
    inputs = var_operand_def(AnyAttr())
    res = result_def(AnyAttr())
    traits = traits_def(_CalleesMatch())

    def __init__(self, key: str, order: Sequence[int], callees: Sequence[str], inputs: Sequence[SSAValue]):
        super().__init__(
            operands=[inputs],
            properties={
                "key": StringAttr(key),
                "order": DenseArrayBase.from_list(i64, list(order)),
                "callees": ArrayAttr([SymbolRefAttr(StringAttr(name)) for name in callees]),
            },
            result_types=[inputs[0].type],
        )

    @property
    def key_name(self) -> str:
        return self.key.data

    @property
    def table(self) -> tuple[str, tuple[int, ...]]:
        return self.key_name, self.numbers

    @property
    def numbers(self) -> tuple[int, ...]:
        """For each layer, the number of its function in `functions`."""
        return tuple(self.order.get_values())

    @property
    def functions(self) -> tuple[str, ...]:
        return tuple(callee.root_reference.data for callee in self.callees)

    @classmethod
    def parse(cls, parser: Parser) -> LayersOp:
        """`lpu.layers "order" [0, 1, 1] @a, @b (%h : tensor<?x576xf32>, %c : tensor<?x64xf32>)`"""
        key = parser.parse_str_literal()
        order = parser.parse_comma_separated_list(
            Parser.Delimiter.SQUARE, lambda: parser.parse_integer(allow_boolean=False)
        )
        names = parser.parse_comma_separated_list(Parser.Delimiter.NONE, parser.parse_symbol_name)
        inputs = parser.parse_comma_separated_list(Parser.Delimiter.PAREN, lambda: _parse_typed_operand(parser))
        if not inputs:
            parser.raise_error("lpu.layers: the first operand is the value that goes round")
        op = cls(key, order, [name.data for name in names], inputs)
        attributes = parser.parse_optional_attr_dict_with_keyword()
        if attributes is not None:
            op.attributes.update(attributes.data)
        return op

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_string_literal(self.key_name)
        printer.print_string(f" [{', '.join(map(str, self.numbers))}] ")
        printer.print_list(self.functions, printer.print_symbol_name)
        printer.print_string(" (")

        def print_input(value: SSAValue) -> None:
            printer.print_ssa_value(value)
            printer.print_string(" : ")
            printer.print_attribute(value.type)

        printer.print_list(self.inputs, print_input)
        printer.print_string(")")
        printer.print_op_attributes(self.attributes, print_keyword=True)

    def verify_(self) -> None:
        require(
            bool(self.inputs) and self.res.type == self.inputs[0].type, "lpu.layers: gives its first operand's type"
        )
        require(len(self.functions) > 0, "lpu.layers: needs at least one function")
        require(len(set(self.functions)) == len(self.functions), "lpu.layers: a function stands twice")
        require(len(self.numbers) > 0, "lpu.layers: the table is empty")
        require(
            all(0 <= number < len(self.functions) for number in self.numbers),
            f"lpu.layers: the table's numbers must be in 0..{len(self.functions) - 1}",
        )
        require("*" not in self.key_name, "lpu.layers: the table belongs to no layer, its key must not have a *")


def _parse_typed_operand(parser: Parser) -> SSAValue:
    operand = parser.parse_unresolved_operand()
    parser.parse_punctuation(":")
    return parser.resolve_operand(operand, parser.parse_type())
