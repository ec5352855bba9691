"""Values of operands and the raw bits of their fields: ranges, registers by name, floats by their bits."""

from __future__ import annotations

import math
import struct

from hyperdex_ir.errors import AssemblyError, CapacityError
from hyperdex_ir.isa.instructions import REGISTER_NAMES
from hyperdex_ir.isa.operands import (
    F32,
    REGISTERS,
    Enum,
    Field,
    FieldKind,
    Hbm,
    HbmRef,
    Imm,
    Lmu,
    LmuRef,
    Operand,
    Value,
    View,
    ViewRef,
)

Part = int | float | str

_REGISTER_NUMBERS = {name: number for number, name in REGISTER_NAMES.items()} | {
    f"r{number}": number for number in range(REGISTERS)
}
_MANTISSA_SHIFT = 52 - 23
_F32_EXPONENT = 0x7F800000
_F32_QUIET = 0x00400000


def register_name(number: int) -> str:
    """`tokens`, `kv_base`, ... for registers with a fixed meaning, else `r9`."""
    return REGISTER_NAMES.get(number, f"r{number}")


def register_number(name: str) -> int | None:
    """The register of that name (`r1` is `tokens` too), or None when there is none."""
    return _REGISTER_NUMBERS.get(name)


def f32_bits(value: float) -> int:
    """The 32 bits of the nearest float32. A NaN keeps its sign and the upper 23 bits of its payload.

    Raises OverflowError when a finite value rounds outside float32.
    """
    if not math.isnan(value):
        return int.from_bytes(struct.pack("<f", value), "little")
    bits = int.from_bytes(struct.pack("<d", value), "little")
    mantissa = bits >> _MANTISSA_SHIFT & (_F32_QUIET * 2 - 1)
    return bits >> 63 << 31 | _F32_EXPONENT | (mantissa or _F32_QUIET)


def f32_value(bits: int) -> float:
    """The float32 with these bits, as a Python float. `f32_bits` gives the bits back, those of NaNs included."""
    if bits & _F32_EXPONENT != _F32_EXPONENT or not bits & (_F32_QUIET * 2 - 1):
        return struct.unpack("<f", bits.to_bytes(4, "little"))[0]
    wide = bits >> 31 << 63 | 0x7FF << 52 | (bits & (_F32_QUIET * 2 - 1)) << _MANTISSA_SHIFT
    return struct.unpack("<d", wide.to_bytes(8, "little"))[0]


def format_f32(value: float) -> str:
    """Shortest decimal with a point that reads back as the same float32; NaN and infinity as their bits in hex."""
    bits = f32_bits(value)
    if bits & _F32_EXPONENT == _F32_EXPONENT:
        return f"0x{bits:08x}"
    exact = f32_value(bits)
    decimals = (float(f"{exact:.{digits}g}") for digits in range(1, 10))
    text = repr(next(decimal for decimal in decimals if _reads_as(decimal, bits)))
    if "." in text:
        return text
    mantissa, exponent, power = text.partition("e")
    return f"{mantissa}.0{exponent}{power}"


def _reads_as(decimal: float, bits: int) -> bool:
    try:
        return f32_bits(decimal) == bits
    except OverflowError:  # rounded up, beyond the largest float32
        return False


def field_range(field: Field) -> tuple[int, int]:
    """Smallest and largest number that a field of integers, registers or choices holds."""
    if field.kind is FieldKind.SIGNED:
        return -(1 << field.width - 1), (1 << field.width - 1) - 1
    if field.kind is FieldKind.REGISTER:
        return 0, REGISTERS - 1
    if field.kind is FieldKind.ENUM:
        return 0, len(field.choices) - 1
    return 0, (1 << field.width) - 1


def encode_field(owner: str, field: Field, part: Part) -> int:
    """The raw bits of one field; `owner` names the instruction in errors.

    Raises CapacityError for a number outside the field's range, AssemblyError for a value of another kind.
    """
    name = f"{owner}: {field.name}"
    if field.kind is FieldKind.FLOAT:
        return _encode_float(name, part)
    if field.kind is FieldKind.ENUM:
        if part not in field.choices:
            raise AssemblyError(f"{name} is {part!r}, must be one of {', '.join(field.choices)}")
        return field.choices.index(str(part))
    if not isinstance(part, int) or isinstance(part, bool):
        raise AssemblyError(f"{name} is {part!r}, must be an integer")
    low, high = field_range(field)
    if not low <= part <= high:
        raise CapacityError(f"{name} is {part}, must be in {low}..{high}")
    return part & (1 << field.width) - 1


def _encode_float(name: str, part: Part) -> int:
    if isinstance(part, str | bool):
        raise AssemblyError(f"{name} is {part!r}, must be a number")
    try:
        return f32_bits(float(part))
    except OverflowError:
        raise CapacityError(f"{name} is {part}, which is outside float32") from None


def decode_field(field: Field, bits: int) -> Part:
    """The value of one field. Raises ValueError when no choice has that number."""
    if field.kind is FieldKind.FLOAT:
        return f32_value(bits)
    if field.kind is FieldKind.ENUM:
        if bits >= len(field.choices):
            raise ValueError(f"{field.name} is {bits}, must be in 0..{len(field.choices) - 1}")
        return field.choices[bits]
    if field.kind is FieldKind.SIGNED and bits >> field.width - 1:
        return bits - (1 << field.width)
    return bits


def split_value(owner: str, operand: Operand, value: Value) -> tuple[Part, ...]:
    """The values of the operand's fields (without the presence bit), lowest bits first.

    Raises AssemblyError when the value is not of the operand's kind.
    """
    match operand, value:
        case Lmu(), LmuRef(address, stride, register):
            return address, stride, register
        case View(), ViewRef(address, stride, group_stride, column_stride, register):
            return address, stride, group_stride, column_stride, register
        case Hbm(), HbmRef(offset, register):
            return offset, register
        case ((Lmu() | View() | Hbm()), _):
            raise AssemblyError(f"{owner}: {operand.name} is {value!r}, must be {_REFERENCE_NAMES[type(operand)]}")
        case _, (int() | float() | str()):
            return (value,)
    raise AssemblyError(f"{owner}: {operand.name} is {value!r}, must be a number or a word")


_REFERENCE_NAMES: dict[type[Operand], str] = {Lmu: "an LmuRef", View: "a ViewRef", Hbm: "an HbmRef"}
_REFERENCES: dict[type[Operand], type] = {Lmu: LmuRef, View: ViewRef, Hbm: HbmRef}


def join_value(operand: Operand, parts: tuple[Part, ...]) -> Value:
    """The inverse of `split_value`."""
    reference = _REFERENCES.get(type(operand))
    return parts[0] if reference is None else reference(*parts)


def check_operand(owner: str, operand: Operand, value: Value) -> None:
    """Raises CapacityError or AssemblyError unless the value can be encoded."""
    if value is None:
        if not operand.optional:
            raise AssemblyError(f"{owner}: {operand.name} is missing")
        return
    for field, part in zip(operand.value_fields(), split_value(owner, operand, value), strict=True):
        encode_field(owner, field, part)


def default_value(operand: Operand) -> Part | None:
    """The default of an operand that is not written; None when it has no default."""
    return operand.default if isinstance(operand, Imm | F32 | Enum) else None


def is_required(operand: Operand) -> bool:
    """Test that the operand has to be written."""
    return not operand.optional and default_value(operand) is None


def is_default(operand: Operand, value: object) -> bool:
    """Test that the value need not be written; floats are compared by their bits (-0.0 is not 0.0)."""
    default = default_value(operand)
    if value is None or value != default:
        return value is None
    return not isinstance(value, float) or not isinstance(default, float) or f32_bits(value) == f32_bits(default)
