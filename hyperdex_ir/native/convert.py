"""Conversions between f32 and the matrix formats, on LLVM vectors, two functions for each: docs/arithmetic.md, section
1.

Elements of f16 and bf16 are i16 lanes holding their bits. Where the processor converts f16 itself (`has_half`), that
is used; elsewhere LLVM would call a C library that is not there, so the bits are made with integer operations.
"""

from __future__ import annotations

from hyperdex_ir.isa.formats import BF16, F16, FORMATS
from hyperdex_ir.native.emit import F32, HALF, I16, I32, Emitter, V, vector

_MAGNITUDE, _SIGN = 0x7FFF, 0x8000
_REBIAS = (127 - F16.bias) << 23  # between the exponents of f16 and f32, in place
_F32_MAGNITUDE = 0x7FFFFFFF
_F32_INFINITY = 0x7F800000
_BEYOND_F16 = 0x47800000  # 2^16 as f32: everything from 65520 on rounds as this does, to infinity
_NORMAL_F16 = 0x38800000  # 2^-14, the smallest normal f16
_HALF = 0x3F000000  # 0.5: its last bit stands for 2^-24, as that of a subnormal f16
_TWO_TO_MINUS_24 = 0x33800000


def widen(e: Emitter, bits: V, matrix_type: str) -> V:
    """<n x i16> elements of the matrix type as <n x f32>; exact."""
    return _EMITTERS[matrix_type][0](e, bits)


def narrow(e: Emitter, x: V, matrix_type: str) -> V:
    """<n x f32> rounded to the matrix type, to nearest, ties to even: <n x i16>."""
    return _EMITTERS[matrix_type][1](e, x)


def rounded(e: Emitter, x: V, matrix_type: str) -> V:
    """<n x f32> as the matrix type holds them: `narrow`, then `widen`."""
    return widen(e, narrow(e, x, matrix_type), matrix_type)


def load_widened(e: Emitter, pointer: V, first: int, lanes: int, matrix_type: str) -> V:
    """Elements `first` and on of those in memory at `pointer`, aligned to 2 bytes, as <lanes x f32>."""
    return widen(e, e.load(e.offset(pointer, FORMATS[matrix_type].bytes_of(first)), vector(I16, lanes)), matrix_type)


def _all(e: Emitter, like: V, value: int) -> V:
    """An i32 constant in as many lanes as `like` has."""
    return e.lanes(I32, [value & 0xFFFFFFFF] * like.type.count)


def _widen_f16(e: Emitter, bits: V) -> V:
    b, floats = e.builder, vector(F32, bits.type.count)
    if e.features.has_half:
        return b.fpext(b.bitcast(bits, vector(HALF, bits.type.count)), floats)
    wide = b.zext(bits, vector(I32, bits.type.count))
    magnitude = b.and_(wide, _all(e, bits, _MAGNITUDE))
    normal = b.add(b.shl(magnitude, _all(e, bits, 13)), _all(e, bits, _REBIAS))
    infinite = b.icmp_signed(">=", magnitude, _all(e, bits, F16.infinity))
    normal = b.select(infinite, b.add(normal, _all(e, bits, _REBIAS)), normal)
    scale = b.bitcast(_all(e, bits, _TWO_TO_MINUS_24), floats)
    small = b.bitcast(b.fmul(b.sitofp(magnitude, floats), scale), normal.type)
    value = b.select(b.icmp_signed("<", magnitude, _all(e, bits, 1 << F16.mantissa_bits)), small, normal)
    sign = b.shl(b.and_(wide, _all(e, bits, _SIGN)), _all(e, bits, 16))
    return b.bitcast(b.or_(value, sign), floats)


def _narrow_f16(e: Emitter, x: V) -> V:
    b, integers = e.builder, vector(I32, x.type.count)
    if e.features.has_half:
        return b.bitcast(b.fptrunc(x, vector(HALF, x.type.count)), vector(I16, x.type.count))
    bits = b.bitcast(x, integers)
    magnitude = b.and_(bits, _all(e, x, _F32_MAGNITUDE))
    limited = b.select(b.icmp_signed(">", magnitude, _all(e, x, _BEYOND_F16)), _all(e, x, _BEYOND_F16), magnitude)
    odd = b.and_(b.lshr(limited, _all(e, x, 13)), _all(e, x, 1))
    nearest = b.add(b.add(limited, _all(e, x, 0xFFF)), odd)
    normal = b.lshr(b.sub(nearest, _all(e, x, _REBIAS)), _all(e, x, 13))
    # A subnormal is a multiple of 2^-24: adding 0.5 rounds to one, which the low bits of the sum then count.
    half = _all(e, x, _HALF)
    small = b.fadd(b.bitcast(limited, x.type), b.bitcast(half, x.type))
    small = b.sub(b.bitcast(small, integers), half)
    value = b.select(b.icmp_signed("<", magnitude, _all(e, x, _NORMAL_F16)), small, normal)
    return _signed(e, value, bits, magnitude, F16.nan)


def _widen_bf16(e: Emitter, bits: V) -> V:
    wide = e.builder.zext(bits, vector(I32, bits.type.count))
    return e.builder.bitcast(e.builder.shl(wide, _all(e, bits, 16)), vector(F32, bits.type.count))


def _narrow_bf16(e: Emitter, x: V) -> V:
    b = e.builder
    bits = b.bitcast(x, vector(I32, x.type.count))
    magnitude = b.and_(bits, _all(e, x, _F32_MAGNITUDE))
    odd = b.and_(b.lshr(magnitude, _all(e, x, 16)), _all(e, x, 1))
    nearest = b.add(b.add(magnitude, _all(e, x, 0x7FFF)), odd)
    return _signed(e, b.lshr(nearest, _all(e, x, 16)), bits, magnitude, BF16.nan)


def _signed(e: Emitter, value: V, bits: V, magnitude: V, nan: int) -> V:
    """The magnitude `value` (or `nan`, where f32 `magnitude` says so) with the sign of `bits`, as i16."""
    b = e.builder
    is_nan = b.icmp_signed(">", magnitude, _all(e, value, _F32_INFINITY))
    sign = b.and_(b.lshr(bits, _all(e, value, 16)), _all(e, value, _SIGN))
    result = b.select(is_nan, _all(e, value, nan), b.or_(value, sign))
    return b.trunc(result, vector(I16, value.type.count))


_EMITTERS = {"f16": (_widen_f16, _narrow_f16), "bf16": (_widen_bf16, _narrow_bf16)}
if _EMITTERS.keys() != FORMATS.keys():
    raise ImportError(f"native code for the matrix formats {', '.join(_EMITTERS)}, there are {', '.join(FORMATS)}")
