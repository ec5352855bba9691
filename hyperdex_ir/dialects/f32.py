"""float32 attributes: made from Python numbers, and as text that reads back as the same bits."""

from __future__ import annotations

from xdsl.dialects.builtin import Float32Type, FloatAttr, f32
from xdsl.irdl import IRDLOperation
from xdsl.irdl.declarative_assembly_format import (
    AttributeVariable,
    CustomDirective,
    ParsingState,
    PrintingState,
    irdl_custom_directive,
)
from xdsl.parser import Parser
from xdsl.printer import Printer

from hyperdex_ir.errors import CapacityError
from hyperdex_ir.isa.fields import f32_value


def f32_attr(value: float) -> FloatAttr[Float32Type]:
    """The nearest float32. Raises CapacityError when that is an infinity and the value is not."""
    try:
        return FloatAttr(float(value), f32)
    except OverflowError:
        raise CapacityError(f"the number {value:g} is outside float32", "the model's configuration holds it") from None


@irdl_custom_directive
class F32(CustomDirective):
    """`custom<F32>($scale)`: a decimal number with a point, or the 32 bits in hex.

    xDSL prints whole numbers of more than six digits, infinities and NaNs in hex, and would not read them back.
    """

    value: AttributeVariable

    def is_anchorable(self) -> bool:
        return self.value.is_anchorable()

    def is_present(self, op: IRDLOperation) -> bool:
        return self.value.is_present(op)

    def set_empty(self, state: ParsingState) -> None:
        """An absent property is simply not there."""

    def parse(self, parser: Parser, state: ParsingState) -> None:
        start = parser.pos
        number = parser.parse_number()
        if isinstance(number, float):
            try:
                self.value.set(state, f32_attr(number))
            except CapacityError:
                parser.raise_error("outside float32", start, parser.pos)
            return
        if parser.lexer.input.slice(start, start + 2) != "0x" or not 0 <= number < 1 << 32:
            parser.raise_error("expected a number with a point, or the bits of a float32 in hex", start, parser.pos)
        self.value.set(state, FloatAttr(f32_value(number), f32))

    def print(self, printer: Printer, state: PrintingState, op: IRDLOperation) -> None:
        state.print_whitespace(printer)
        attribute = self.value.get(op)
        assert isinstance(attribute, FloatAttr)
        attribute.print_without_type(printer)
