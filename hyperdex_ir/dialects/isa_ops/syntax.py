"""The one-line text of instructions: `name=value` for each operand that is not at its default, in table order.

    isa.matmul dst=%h src=%x[64 + r9] weight=hbm[16384 + param_base] k=576 n=576 type=f16 rows=tokens
    isa.binary function=mul dst=%q[group 64] a=%q[group 64] b=%s[column 0, row 0] groups=9 columns=64 rows=tokens

`[64 + r9]` are words into the row, `group` and `column` the strides of a view (0 and 1 when not written), `row 0` says
that all rows are the first.
"""

from __future__ import annotations

from xdsl.ir import SSAValue
from xdsl.parser import Parser
from xdsl.printer import Printer

from hyperdex_ir.dialects.isa_ops.checks import OperandValue
from hyperdex_ir.dialects.isa_ops.lmu_type import LmuUse, ViewUse
from hyperdex_ir.isa.fields import f32_bits, f32_value, format_f32, register_name, register_number
from hyperdex_ir.isa.operands import F32, Enum, Hbm, HbmRef, Imm, Lmu, Operand, Reg, View


def print_operand(printer: Printer, operand: Operand, value: OperandValue) -> None:
    """Prints ` name=value`."""
    printer.print_string(f" {operand.name}=")
    if isinstance(value, LmuUse | ViewUse):
        printer.print_ssa_value(value.buffer)
        printer.print_string(_places(value))
    else:
        printer.print_string(_scalar_text(operand, value))


def _scalar_text(operand: Operand, value: OperandValue) -> str:
    match operand, value:
        case Hbm(), HbmRef(offset, register):
            return f"hbm[{_sum(offset, register)}]"
        case Reg(), int():
            return register_name(value)
        case F32(), float():
            return format_f32(value)
    return str(value)


def _sum(offset: int, register: int) -> str:
    """`64 + r9`, without the parts that are zero unless both are."""
    if not register:
        return str(offset)
    return f"{offset} + {register_name(register)}" if offset else register_name(register)


def _places(use: LmuUse | ViewUse) -> str:
    parts = [_sum(use.offset, use.register)] if use.offset or use.register else []
    if isinstance(use, ViewUse):
        parts += [f"group {use.group_stride}"] if use.group_stride else []
        parts += [f"column {use.column_stride}"] if use.column_stride != 1 else []
        parts += ["row 0"] if use.broadcast_rows else []
    return f"[{', '.join(parts)}]" if parts else ""


def parse_operand(parser: Parser, operand: Operand) -> OperandValue:
    """Parses the text that `print_operand` prints after the `=`."""
    match operand:
        case Lmu() | View():
            return _parse_use(parser, operand)
        case Hbm():
            parser.parse_keyword("hbm")
            with parser.in_square_brackets():
                return HbmRef(*_parse_sum(parser))
        case Reg():
            return _parse_register(parser)
        case F32():
            return _parse_f32(parser)
        case Enum():
            return parser.parse_keyword_in(operand.choices)
        case Imm():
            return parser.parse_integer(allow_boolean=False)
    raise NotImplementedError(type(operand).__name__)


def _parse_value(parser: Parser) -> SSAValue:
    """Parses a buffer that is already defined, so that its type is known."""
    operand = parser.parse_unresolved_operand()
    values = parser.ssa_values.get(operand.operand_name)
    if values is None or operand.index >= len(values):
        parser.raise_error("buffer used before its definition", operand.span)
    return values[operand.index]


def _parse_register(parser: Parser) -> int:
    name = parser.parse_identifier()
    number = register_number(name)
    if number is None:
        parser.raise_error(f"no register {name!r}; there are zero, tokens, ..., r0 to r31")
    return number


def _parse_sum(parser: Parser) -> tuple[int, int]:
    """`64`, `r9` or `64 + r9`: a number and a register."""
    offset = parser.parse_optional_integer(allow_boolean=False)
    if offset is None:
        return 0, _parse_register(parser)
    return offset, _parse_register(parser) if parser.parse_optional_punctuation("+") else 0


def _parse_f32(parser: Parser) -> float:
    start = parser.pos
    number = parser.parse_number()
    if isinstance(number, int) and parser.lexer.input.slice(start, start + 2) == "0x":
        return f32_value(number & 0xFFFFFFFF)  # the bits of a NaN or an infinity
    try:
        return f32_value(f32_bits(float(number)))
    except OverflowError:
        parser.raise_error("outside float32", start, parser.pos)


def _parse_use(parser: Parser, operand: Operand) -> LmuUse | ViewUse:
    buffer = _parse_value(parser)
    offset, register, strides = _parse_places(parser, isinstance(operand, View))
    if isinstance(operand, Lmu):
        return LmuUse(buffer, offset, register)
    broadcast = "row" in strides
    return ViewUse(buffer, offset, register, strides.get("group", 0), strides.get("column", 1), broadcast)


def _parse_places(parser: Parser, is_view: bool) -> tuple[int, int, dict[str, int]]:
    """Parses the brackets behind a buffer: offset, register, and the strides that are written."""
    offset = register = 0
    strides: dict[str, int] = {}
    if parser.parse_optional_punctuation("[") is None:
        return offset, register, strides
    first = True
    while first or parser.parse_optional_punctuation(","):
        keyword = parser.parse_optional_keyword_in(("group", "column", "row")) if is_view else None
        if keyword is None and not first:
            parser.raise_error("expected group, column or row, with a number")
        if keyword is None:
            offset, register = _parse_sum(parser)
        elif keyword in strides:
            parser.raise_error(f"{keyword} stands twice")
        else:
            strides[keyword] = parser.parse_integer(allow_boolean=False)
        first = False
    if strides.get("row", 0) != 0:
        parser.raise_error("the row stride is the buffer's width, or 0")
    parser.parse_punctuation("]")
    return offset, register, strides
