"""Control structure: repeats, skips and calls. The end of a function is `func.return`."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import I64, IntegerAttr, LocationAttr, StringAttr, SymbolRefAttr
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.irdl import IRDLOperation, irdl_op_definition, prop_def, region_def, traits_def, var_operand_def
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import NoTerminator, SymbolTable, SymbolUserOpInterface
from xdsl.utils.exceptions import VerifyException

from hyperdex_ir.dialects.isa_ops.lmu_type import LmuType
from hyperdex_ir.isa.fields import field_range, register_name, register_number
from hyperdex_ir.isa.instructions import BY_NAME

_LARGEST_COUNT = field_range(BY_NAME["repeat"].fields()[0])[1]
_REGISTERS = field_range(BY_NAME["skip_unless"].fields()[0])
_VALUES = field_range(BY_NAME["skip_unless"].fields()[1])


@irdl_op_definition
class RepeatOp(IRDLOperation):
    """Runs its body `trip_count` times. Only the machine's state is carried from trip to trip."""

    name = "isa.repeat"
    trip_count = prop_def(IntegerAttr[I64])
    body = region_def("single_block")
    traits = traits_def(NoTerminator())

    def __init__(self, trip_count: int, body: Region | None = None, *, location: LocationAttr | None = None):
        super().__init__(
            properties={"trip_count": IntegerAttr(trip_count, 64)},
            regions=[Region(Block()) if body is None else body],
        )
        if location is not None:
            self.location = location

    @property
    def count(self) -> int:
        return self.trip_count.value.data

    @classmethod
    def parse(cls, parser: Parser) -> RepeatOp:
        """`isa.repeat 30 { ... }`"""
        count = parser.parse_integer(allow_boolean=False)
        body, attributes = _parse_body(parser)
        op = cls(count, body)
        op.attributes.update(attributes)
        return op

    def print(self, printer: Printer) -> None:
        printer.print_string(f" {self.count}")
        _print_body(printer, self)

    def verify_(self) -> None:
        if not 1 <= self.count <= _LARGEST_COUNT:
            raise VerifyException(f"isa.repeat: trip count {self.count}, must be in 1..{_LARGEST_COUNT}")
        if self.body.block.args:
            raise VerifyException("isa.repeat: the body takes no arguments")


@irdl_op_definition
class RepeatRowsOp(IRDLOperation):
    """Runs its body once for each row in flight; a register holds the number of trips."""

    name = "isa.repeat_rows"
    rows = prop_def(IntegerAttr[I64])
    body = region_def("single_block")
    traits = traits_def(NoTerminator())

    def __init__(self, rows: int, body: Region | None = None, *, location: LocationAttr | None = None):
        super().__init__(
            properties={"rows": IntegerAttr(rows, 64)},
            regions=[Region(Block()) if body is None else body],
        )
        if location is not None:
            self.location = location

    @property
    def register(self) -> int:
        """The number of the register that holds the number of rows."""
        return self.rows.value.data

    @classmethod
    def parse(cls, parser: Parser) -> RepeatRowsOp:
        """`isa.repeat_rows tokens { ... }`"""
        register = _parse_register(parser)
        body, attributes = _parse_body(parser)
        op = cls(register, body)
        op.attributes.update(attributes)
        return op

    def print(self, printer: Printer) -> None:
        printer.print_string(f" {register_name(self.register)}")
        _print_body(printer, self)

    def verify_(self) -> None:
        low, high = _REGISTERS
        if not low <= self.register <= high:
            raise VerifyException(f"isa.repeat_rows: register {self.register}, must be in {low}..{high}")
        if self.body.block.args:
            raise VerifyException("isa.repeat_rows: the body takes no arguments")


@irdl_op_definition
class SkipUnlessOp(IRDLOperation):
    """Runs its body when a register holds a value, otherwise skips it."""

    name = "isa.skip_unless"
    a = prop_def(IntegerAttr[I64])
    value = prop_def(IntegerAttr[I64])
    body = region_def("single_block")
    traits = traits_def(NoTerminator())

    def __init__(self, a: int, value: int, body: Region | None = None, *, location: LocationAttr | None = None):
        super().__init__(
            properties={"a": IntegerAttr(a, 64), "value": IntegerAttr(value, 64)},
            regions=[Region(Block()) if body is None else body],
        )
        if location is not None:
            self.location = location

    @property
    def register(self) -> int:
        """The number of the register that is compared."""
        return self.a.value.data

    @property
    def wanted(self) -> int:
        """The value for which the body runs."""
        return self.value.value.data

    @classmethod
    def parse(cls, parser: Parser) -> SkipUnlessOp:
        """`isa.skip_unless r14 = 1 { ... }`"""
        register = _parse_register(parser)
        parser.parse_punctuation("=")
        value = parser.parse_integer(allow_boolean=False)
        body, attributes = _parse_body(parser)
        op = cls(register, value, body)
        op.attributes.update(attributes)
        return op

    def print(self, printer: Printer) -> None:
        printer.print_string(f" {register_name(self.register)} = {self.wanted}")
        _print_body(printer, self)

    def verify_(self) -> None:
        for name, number, (low, high) in (("register", self.register, _REGISTERS), ("value", self.wanted, _VALUES)):
            if not low <= number <= high:
                raise VerifyException(f"isa.skip_unless: {name} {number}, must be in {low}..{high}")
        if self.body.block.args:
            raise VerifyException("isa.skip_unless: the body takes no arguments")


def _parse_register(parser: Parser) -> int:
    name = parser.parse_identifier()
    if (register := register_number(name)) is None:
        parser.raise_error(f"no register {name!r}; there are zero, tokens, ..., r0 to r31")
    return register


def _parse_body(parser: Parser) -> tuple[Region, dict[str, Attribute]]:
    """`attributes {...} { ... }`: the body, which has a block even when it is empty, and the attributes."""
    attributes = parser.parse_optional_attr_dict_with_keyword()
    body = parser.parse_region()
    if not body.blocks:
        body.add_block(Block())
    return body, {} if attributes is None else dict(attributes.data)


def _print_body(printer: Printer, op: RepeatOp | RepeatRowsOp | SkipUnlessOp) -> None:
    printer.print_op_attributes(op.attributes, print_keyword=True)
    printer.print_string(" ")
    printer.print_region(op.body, print_empty_block=False)


class _CalleeMatches(SymbolUserOpInterface):
    """The callee is a function without results whose arguments have the types of the buffers passed."""

    def verify(self, op: Operation) -> None:
        assert isinstance(op, CallOp)
        callee = SymbolTable.lookup_symbol(op, op.callee)
        if not isinstance(callee, FuncOp):
            raise VerifyException(f"isa.call: no function @{op.function}")
        expected, passed = callee.function_type.inputs.data, tuple(value.type for value in op.buffers)
        if expected != passed:
            raise VerifyException(f"isa.call: @{op.function} takes {_types(expected)}, is passed {_types(passed)}")
        if callee.function_type.outputs.data:
            raise VerifyException(f"isa.call: @{op.function} has results; a function of instructions has none")


def _types(types: Sequence[object]) -> str:
    return f"({', '.join(str(type_) for type_ in types)})"


@irdl_op_definition
class CallOp(IRDLOperation):
    """Runs a function on the caller's buffers: its arguments are these buffers, not copies of them."""

    name = "isa.call"
    callee = prop_def(SymbolRefAttr)
    buffers = var_operand_def(LmuType)
    traits = traits_def(_CalleeMatches())
    assembly_format = "$callee `(` $buffers `)` attr-dict (`:` type($buffers)^)?"

    def __init__(self, callee: str, buffers: Sequence[SSAValue] = (), *, location: LocationAttr | None = None):
        super().__init__(operands=[buffers], properties={"callee": SymbolRefAttr(StringAttr(callee))})
        if location is not None:
            self.location = location

    @property
    def function(self) -> str:
        """Name of the function."""
        return self.callee.root_reference.data
