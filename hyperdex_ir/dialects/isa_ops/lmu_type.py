"""Buffers in the LMU: their type, and how an instruction refers to a part of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import IntAttr, NoneAttr, StringAttr
from xdsl.ir import Attribute, Operation, ParametrizedAttribute, SSAValue, TypeAttribute
from xdsl.irdl import IRDLOperation, irdl_attr_definition, irdl_op_definition, result_def, traits_def
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.traits import EffectInstance, MemoryEffect, MemoryEffectKind
from xdsl.utils.exceptions import VerifyException

from hyperdex_ir.isa.operands import LMU_ADDRESS_BITS

#: Row counts that are known only when a program runs: the tokens in flight, and the rows whose logits are wanted.
ROW_KINDS = ("tokens", "head")
LMU_WORDS = 1 << LMU_ADDRESS_BITS

Rows = int | str


@irdl_attr_definition
class LmuType(ParametrizedAttribute, TypeAttribute):
    """A buffer of rows of 32-bit words in the LMU, at a word address once it is allocated.

    `!isa.lmu<tokens x 576>`, `!isa.lmu<head x 49152 at 4096>`, `!isa.lmu<1 x 64>`
    """

    name = "isa.lmu"
    row_count: IntAttr | StringAttr
    row_words: IntAttr
    place: IntAttr | NoneAttr

    def __init__(self, rows: Rows, width: int, address: int | None = None):
        super().__init__(
            IntAttr(rows) if isinstance(rows, int) else StringAttr(rows),
            IntAttr(width),
            NoneAttr() if address is None else IntAttr(address),
        )

    @property
    def rows(self) -> Rows:
        """A number, `tokens` or `head`."""
        return self.row_count.data

    @property
    def width(self) -> int:
        """Words in a row."""
        return self.row_words.data

    @property
    def address(self) -> int | None:
        """Word address of the first row; None before allocation."""
        return None if isinstance(self.place, NoneAttr) else self.place.data

    @property
    def row_stride(self) -> int:
        """Words from row to row: 0 when there is a single row, which then is used as every row."""
        return 0 if self.rows == 1 else self.width

    def at(self, address: int | None) -> LmuType:
        """The same buffer at another address, or without one."""
        return LmuType(self.rows, self.width, address)

    def words(self, chunk: int, head_rows: int) -> int:
        """Size in words when at most `chunk` tokens are in flight and `head_rows` rows are wanted."""
        rows = self.rows
        count = rows if isinstance(rows, int) else {"tokens": chunk, "head": head_rows}[rows]
        return count * self.width

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            rows: IntAttr | StringAttr
            if (keyword := parser.parse_optional_keyword_in(ROW_KINDS)) is not None:
                rows = StringAttr(keyword)
            else:
                rows = IntAttr(parser.parse_integer(allow_boolean=False, context_msg=": rows, tokens or head"))
            parser.parse_keyword("x", ": <rows> x <words>")
            width = IntAttr(parser.parse_integer(allow_boolean=False))
            place: IntAttr | NoneAttr = NoneAttr()
            if parser.parse_optional_keyword("at") is not None:
                place = IntAttr(parser.parse_integer(allow_boolean=False))
        return rows, width, place

    def print_parameters(self, printer: Printer) -> None:
        place = "" if self.address is None else f" at {self.address}"
        printer.print_string(f"<{self.rows} x {self.width}{place}>")

    def verify(self) -> None:
        if isinstance(self.rows, str) and self.rows not in ROW_KINDS:
            raise VerifyException(f"isa.lmu: rows are {self.rows!r}, must be a number, tokens or head")
        if isinstance(self.rows, int) and self.rows < 1:
            raise VerifyException(f"isa.lmu: {self.rows} rows, must be at least 1")
        if not 1 <= self.width < LMU_WORDS:
            raise VerifyException(f"isa.lmu: {self.width} words in a row, must be in 1..{LMU_WORDS - 1}")
        if self.address is not None and not 0 <= self.address < LMU_WORDS:
            raise VerifyException(f"isa.lmu: address {self.address}, must be in 0..{LMU_WORDS - 1}")


def buffer_type(value: SSAValue) -> LmuType:
    """The type of a buffer value. Raises VerifyException when it is not a buffer."""
    if not isinstance(value.type, LmuType):
        raise VerifyException(f"expected a buffer !isa.lmu<...>, got {value.type}")
    return value.type


class _Allocates(MemoryEffect):
    """Memory effect of an operation that allocates its result: it may be erased when unused, and is never merged with
    another."""

    @classmethod
    def get_effects(cls, op: Operation) -> frozenset[EffectInstance]:
        return frozenset({EffectInstance(MemoryEffectKind.ALLOC, value=op.results[0])})


@irdl_op_definition
class BufferOp(IRDLOperation):
    """A buffer in the LMU. Its contents are undefined until an instruction writes them."""

    name = "isa.buffer"
    res = result_def(LmuType)
    traits = traits_def(_Allocates())
    assembly_format = "attr-dict `:` type($res)"

    def __init__(self, type: LmuType):
        super().__init__(result_types=[type])


@dataclass(frozen=True)
class LmuUse:
    """Rows of a buffer from word `offset + R[register]` of each row on."""

    buffer: SSAValue
    offset: int = 0
    register: int = 0


@dataclass(frozen=True)
class ViewUse:
    """A strided view of a buffer's rows: element (group, column) of a row is its word
    `offset + R[register] + group * group_stride + column * column_stride`. `broadcast_rows`: all rows are the first.
    """

    buffer: SSAValue
    offset: int = 0
    register: int = 0
    group_stride: int = 0
    column_stride: int = 1
    broadcast_rows: bool = False
