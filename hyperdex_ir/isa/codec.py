"""Instructions and programs as bytes: 64 for each instruction, as the table lays them out. Decoding checks everything:
reserved bits, absent operands, enumerations and the program's structure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from hyperdex_ir.errors import COMPILE_AGAIN, AssemblyError, CapacityError, FileFormatError
from hyperdex_ir.isa.fields import (
    Part,
    decode_field,
    default_value,
    encode_field,
    join_value,
    split_value,
)
from hyperdex_ir.isa.instructions import BY_NAME, BY_OPCODE, OPCODE_BITS, WORD_BITS, WORD_BYTES, Spec
from hyperdex_ir.isa.operands import Field, Operand, Value
from hyperdex_ir.isa.program import Instruction, Program
from hyperdex_ir.isa.structure import MAX_INSTRUCTIONS, StructureError, check_structure

_OPCODE_MASK = (1 << OPCODE_BITS) - 1


@dataclass(frozen=True)
class Place:
    """A field and its lowest bit in the word."""

    field: Field
    low: int

    @property
    def high(self) -> int:
        """Its highest bit."""
        return self.low + self.field.width - 1

    def read(self, word: int) -> int:
        """Its bits in a word."""
        return word >> self.low & (1 << self.field.width) - 1


@dataclass(frozen=True)
class OperandPlaces:
    """An operand with the places of its fields; `present` is the presence bit of an optional one."""

    operand: Operand
    present: Place | None
    fields: tuple[Place, ...]


@cache
def operand_places(spec: Spec) -> tuple[OperandPlaces, ...]:
    """The places of an instruction's operands in its word, from the opcode up without gaps."""
    places: list[OperandPlaces] = []
    low = OPCODE_BITS
    for operand in spec.operands:
        fields: list[Place] = []
        for field in operand.fields():
            fields.append(Place(field, low))
            low += field.width
        present = fields.pop(0) if operand.optional else None
        places.append(OperandPlaces(operand, present, tuple(fields)))
    return tuple(places)


@cache
def used_bits(spec: Spec) -> int:
    """Bits of the word that the instruction uses, opcode included; all above are zero."""
    return OPCODE_BITS + sum(field.width for field in spec.fields())


def encode(instruction: Instruction) -> bytes:
    """The 64 bytes of an instruction. Operands that are missing have the table's default, or are absent.

    Raises CapacityError for a number outside its field, AssemblyError for an operand that is unknown, missing or of
    another kind.
    """
    spec = BY_NAME.get(instruction.name)
    if spec is None:
        raise AssemblyError(f"no instruction {instruction.name!r}")
    names = [operand.name for operand in spec.operands]
    if unknown := [name for name in instruction.values if name not in names]:
        raise AssemblyError(f"{spec.name}: no operand {unknown[0]!r}; there are {', '.join(names) or 'none'}")
    word = spec.opcode
    for places in operand_places(spec):
        value = instruction.values.get(places.operand.name)
        word |= _encode_operand(spec.name, places, default_value(places.operand) if value is None else value)
    return word.to_bytes(WORD_BYTES, "little")


def _encode_operand(owner: str, places: OperandPlaces, value: Value) -> int:
    if value is None:
        if places.present is None:
            raise AssemblyError(f"{owner}: operand {places.operand.name} is missing")
        return 0
    bits = 0 if places.present is None else 1 << places.present.low
    parts = split_value(owner, places.operand, value)
    for place, part in zip(places.fields, parts, strict=True):
        bits |= encode_field(owner, place.field, part) << place.low
    return bits


def decode(data: bytes) -> Instruction:
    """The instruction in 64 bytes, every operand with its value. `encode` gives the same bytes back.

    Raises FileFormatError for an unknown opcode, reserved bits that are not zero, an absent operand with bits, or a
    choice that does not exist.
    """
    if len(data) != WORD_BYTES:
        raise FileFormatError(f"an instruction of {len(data)} bytes, must have {WORD_BYTES}")
    word = int.from_bytes(data, "little")
    spec = BY_OPCODE.get(word & _OPCODE_MASK)
    if spec is None:
        raise FileFormatError(f"unknown opcode 0x{word & _OPCODE_MASK:02x}")
    if reserved := word >> used_bits(spec):
        bit = used_bits(spec) + (reserved & -reserved).bit_length() - 1
        raise FileFormatError(f"{spec.name}: bit {bit} is set, bits {used_bits(spec)} to {WORD_BITS - 1} must be zero")
    return Instruction(spec.name, {p.operand.name: _decode_operand(spec.name, p, word) for p in operand_places(spec)})


def _decode_operand(owner: str, places: OperandPlaces, word: int) -> Value:
    if places.present is not None and not places.present.read(word):
        for place in places.fields:
            if bits := place.read(word):
                raise FileFormatError(f"{owner}: {place.field.name} is 0x{bits:x}, but the operand is absent")
        return None
    parts: list[Part] = []
    for place in places.fields:
        try:
            parts.append(decode_field(place.field, place.read(word)))
        except ValueError as error:
            raise FileFormatError(f"{owner}: {error}") from None
    return join_value(places.operand, tuple(parts))


def encode_program(instructions: Sequence[Instruction]) -> bytes:
    """The words of a program, one after another: the payload of an instruction file.

    Raises AssemblyError or CapacityError, with the instruction's index, when the program is not valid.
    """
    words: list[bytes] = []
    for index, instruction in enumerate(instructions):
        try:
            words.append(encode(instruction))
        except AssemblyError as error:
            raise AssemblyError(f"instruction {index}: {error}", error.hint) from None
        except CapacityError as error:
            raise CapacityError(f"instruction {index}: {error}", error.hint) from None
    try:
        check_structure(instructions)
    except StructureError as error:
        raise AssemblyError(f"instruction {error.index}: {error}") from None
    return b"".join(words)


def decode_program(payload: bytes) -> Program:
    """The program in the payload of an instruction file. `encode_program` gives the same bytes back.

    Raises FileFormatError, with the instruction's index, when it is not valid.
    """
    if len(payload) % WORD_BYTES:
        raise FileFormatError(f"a program of {len(payload)} bytes, must be a multiple of {WORD_BYTES}")
    if (count := len(payload) // WORD_BYTES) > MAX_INSTRUCTIONS:
        raise FileFormatError(f"a program of {count} instructions, the most is {MAX_INSTRUCTIONS}")
    instructions: list[Instruction] = []
    for start in range(0, len(payload), WORD_BYTES):
        try:
            instructions.append(decode(payload[start : start + WORD_BYTES]))
        except FileFormatError as error:
            raise FileFormatError(f"instruction {start // WORD_BYTES}: {error}", COMPILE_AGAIN) from None
    try:
        check_structure(instructions)
    except StructureError as error:
        raise FileFormatError(f"instruction {error.index}: {error}", COMPILE_AGAIN) from None
    return Program(tuple(instructions))
