"""The kinds of operand an instruction can have, and the bit fields that each occupies.

An operand is what an assembly programmer writes; its fields are the runs of bits that encode it. Everything about the
encoding (encoder, decoder, assembler, verifier ranges, reference page) follows from these classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hyperdex_ir.targets import MOST_LMU_WORDS

REGISTERS = 32
REGISTER_BITS = 5
LMU_ADDRESS_BITS = (MOST_LMU_WORDS - 1).bit_length()
HBM_OFFSET_BITS = 40
#: The last position that an instruction counts: the engine makes float32 numbers of positions in 32 bits.
MOST_POSITION = (1 << 31) - 1
#: Messages that a device may have sent beyond those that it has received; programs of models get 2 ahead.
MOST_AHEAD = 1024


class FieldKind(StrEnum):
    """How the bits of a field are read."""

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
    """Base of all operand kinds. An absent optional operand has the value None."""

    name: str
    doc: str = ""
    optional: bool = False

    def fields(self) -> tuple[Field, ...]:
        """The operand's fields, lowest bits first; the presence bit of an optional operand comes first."""
        present = (Field(f"{self.name}.present", 1),) if self.optional else ()
        return present + self.value_fields()

    def value_fields(self) -> tuple[Field, ...]:
        raise NotImplementedError


@dataclass(frozen=True)
class Lmu(Operand):
    """An LmuRef."""

    def value_fields(self) -> tuple[Field, ...]:
        return (
            Field(f"{self.name}.address", LMU_ADDRESS_BITS),
            Field(f"{self.name}.stride", LMU_ADDRESS_BITS),
            Field(f"{self.name}.register", REGISTER_BITS, FieldKind.REGISTER),
        )


@dataclass(frozen=True)
class View(Operand):
    """A ViewRef."""

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
    """An HbmRef."""

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
