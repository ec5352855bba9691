"""The kinds of operand an instruction can have, and the bit fields that each occupies.

An operand is the value that an assembly programmer writes; its fields are the runs of bits that encode it. Everything
about the
encoding (encoder, decoder, assembler, verifier ranges, reference page) follows from these classes. An operand also says
whether the instruction reads or writes it: footprints, dependences, the estimate and the reference page follow from
that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from enum import StrEnum
from typing import Any

from hyperdex_ir.isa.shapes import Columns, Shape
from hyperdex_ir.targets import MOST_LMU_WORDS

REGISTERS = 32
REGISTER_BITS = 5
LMU_ADDRESS_BITS = (MOST_LMU_WORDS - 1).bit_length()
HBM_OFFSET_BITS = 40
#: The last position that an instruction counts: the native executor converts positions from 32 bits to float32.
MOST_POSITION = (1 << 31) - 1
#: Messages that a device may have sent beyond those that it has received; programs of models are at most 2 ahead.
MOST_AHEAD = 1024


class Area(StrEnum):
    """Parts of HBM that the order of instructions tells apart; addresses are not compared."""

    MEMORY = "memory"  # parameters, tokens, logits: everything outside the other areas
    KEYS = "keys"
    VALUES = "values"
    STATES = "states"
    SETTINGS = "settings"


class Holds(StrEnum):
    """Kinds of parameters, the strongest first: a tied embedding, which a matmul reads too, is an embedding."""

    EMBEDDING = "embedding"
    MATRIX = "matrix"
    TABLE = "table"
    VECTOR = "vector"


class FieldKind(StrEnum):
    """Interpretation of the bits of a field."""

    UNSIGNED = "unsigned"
    SIGNED = "signed"
    REGISTER = "register"
    FLOAT = "f32"
    ENUM = "enum"


@dataclass(frozen=True)
class Field:
    """A run of bits. `name` is the operand's name, or operand.part."""

    name: str
    width: int
    kind: FieldKind = FieldKind.UNSIGNED
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class LmuRef:
    """Rows in the LMU: row r starts at word `address + R[register] + r * stride`; words are 32 bits."""

    address: int
    stride: int = 0
    register: int = 0


@dataclass(frozen=True)
class ViewRef:
    """A strided view of the LMU: element (row, group, column) is at word
    `address + R[register] + row * stride + group * group_stride + column * column_stride`."""

    address: int
    stride: int = 0
    group_stride: int = 0
    column_stride: int = 1
    register: int = 0


@dataclass(frozen=True)
class HbmRef:
    """A byte address in HBM: `offset + R[register]`."""

    offset: int
    register: int = 0


Value = int | float | str | LmuRef | ViewRef | HbmRef | None


@dataclass(frozen=True)
class Operand:
    """Base of all operand kinds. An absent optional operand has the value None.

    writes: the instruction writes the words that the operand refers to, and does not read them. epilogue: the operand
    belongs to what is done with the result of a matrix or a table; its words are needed only when columns are finished.
    """

    name: str
    doc: str = ""
    _: KW_ONLY
    optional: bool = False
    writes: bool = False
    epilogue: bool = False

    def fields(self) -> tuple[Field, ...]:
        """The operand's fields, lowest bits first; the presence bit of an optional operand comes first."""
        present = (Field(f"{self.name}.present", 1),) if self.optional else ()
        return present + self.value_fields()

    def value_fields(self) -> tuple[Field, ...]:
        raise NotImplementedError


@dataclass(frozen=True)
class Lmu(Operand):
    """An LmuRef to rows of `columns`."""

    _: KW_ONLY
    columns: Shape

    def immediates(self) -> tuple[str, ...]:
        """Names of the immediates that its shape depends on."""
        return self.columns.factors

    def row_words(self, use: Any, values: Mapping[str, Any]) -> int | None:
        """Words of a row from its first word to the last one touched. None: it depends on the position.

        use: the reference, or the use of a buffer; only its strides count. values: the immediates of the instruction.
        """
        return self.columns.words(values)

    def row_span(self, use: Any, values: Mapping[str, Any], rows: int, position: int) -> tuple[int, int]:
        """First and last (excluded) of the words touched in a row, for `rows` rows, the first at `position`."""
        return self.columns.span(values, rows, position)

    def value_fields(self) -> tuple[Field, ...]:
        return (
            Field(f"{self.name}.address", LMU_ADDRESS_BITS),
            Field(f"{self.name}.stride", LMU_ADDRESS_BITS),
            Field(f"{self.name}.register", REGISTER_BITS, FieldKind.REGISTER),
        )


@dataclass(frozen=True)
class View(Operand):
    """A ViewRef to rows of `groups` groups of `columns`."""

    _: KW_ONLY
    groups: str = "groups"
    columns: Columns = Columns(("columns",))

    def immediates(self) -> tuple[str, ...]:
        """As for Lmu."""
        return self.groups, *self.columns.factors

    def row_words(self, use: Any, values: Mapping[str, Any]) -> int:
        """As for Lmu; never None."""
        columns = self.columns.words(values)
        return max(values[self.groups] - 1, 0) * use.group_stride + max(columns - 1, 0) * use.column_stride + 1

    def row_span(self, use: Any, values: Mapping[str, Any], rows: int, position: int) -> tuple[int, int]:
        """As for Lmu."""
        return 0, self.row_words(use, values)

    def value_fields(self) -> tuple[Field, ...]:
        return (
            Field(f"{self.name}.address", LMU_ADDRESS_BITS),
            Field(f"{self.name}.stride", LMU_ADDRESS_BITS),
            Field(f"{self.name}.group_stride", LMU_ADDRESS_BITS),
            Field(f"{self.name}.column_stride", 2),
            Field(f"{self.name}.register", REGISTER_BITS, FieldKind.REGISTER),
        )


@dataclass(frozen=True)
class Hbm(Operand):
    """An HbmRef. areas: where it may lie. holds: the kind of parameter; None: it is not a parameter."""

    _: KW_ONLY
    areas: tuple[Area, ...] = (Area.MEMORY,)
    holds: Holds | None = None

    def value_fields(self) -> tuple[Field, ...]:
        return (
            Field(f"{self.name}.offset", HBM_OFFSET_BITS),
            Field(f"{self.name}.register", REGISTER_BITS, FieldKind.REGISTER),
        )


@dataclass(frozen=True)
class Reg(Operand):
    """A register number."""

    def value_fields(self) -> tuple[Field, ...]:
        return (Field(self.name, REGISTER_BITS, FieldKind.REGISTER),)


@dataclass(frozen=True)
class Imm(Operand):
    """An integer of `width` bits."""

    width: int = 24
    signed: bool = False
    default: int | None = None

    def value_fields(self) -> tuple[Field, ...]:
        return (Field(self.name, self.width, FieldKind.SIGNED if self.signed else FieldKind.UNSIGNED),)


@dataclass(frozen=True)
class F32(Operand):
    """A float32, by its bits."""

    default: float | None = None

    def value_fields(self) -> tuple[Field, ...]:
        return (Field(self.name, 32, FieldKind.FLOAT),)


@dataclass(frozen=True)
class Enum(Operand):
    """One of a list of words, encoded by position. The list only ever grows at its end."""

    choices: tuple[str, ...] = ()
    width: int = 6
    default: str | None = None

    def value_fields(self) -> tuple[Field, ...]:
        return (Field(self.name, self.width, FieldKind.ENUM, self.choices),)
