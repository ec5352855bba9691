"""Attributes that are one name of a closed set: `silu` in an operation, `#lpu<activation silu>` in generic form."""

from __future__ import annotations

from abc import ABC
from typing import ClassVar

from xdsl.ir import Data, SpacedOpaqueSyntaxAttribute
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer

from hyperdex_ir.dialects.lpu_ops.base import require
from hyperdex_ir.isa.functions import ACTIVATIONS
from hyperdex_ir.isa.instructions import ROTARY_STYLES


class ChoiceAttr(Data[str], SpacedOpaqueSyntaxAttribute, ABC):
    """Base of such attributes."""

    CHOICES: ClassVar[tuple[str, ...]]

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> str:
        """A name, in quotes or not."""
        start = parser.pos
        name = parser.parse_optional_identifier_or_str_literal()
        if name not in cls.CHOICES:
            parser.raise_error(f"expected one of {', '.join(cls.CHOICES)}", start, parser.pos)
        return name

    def print_parameter(self, printer: Printer) -> None:
        printer.print_string(self.data)

    def verify(self) -> None:
        require(self.data in self.CHOICES, f"{self.name}: {self.data} is none of {', '.join(self.CHOICES)}")


@irdl_attr_definition
class ActivationAttr(ChoiceAttr):
    """A function that a matrix instruction can apply to its result."""

    name = "lpu.activation"
    CHOICES = ACTIVATIONS


@irdl_attr_definition
class RotaryStyleAttr(ChoiceAttr):
    """The order of rotary pairs in a head: (i, i + d/2), or (2i, 2i + 1)."""

    name = "lpu.rotary_style"
    CHOICES = ROTARY_STYLES
