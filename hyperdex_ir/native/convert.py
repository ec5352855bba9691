"""Between f32 and the matrix types f16 and bf16, on LLVM vectors: docs/arithmetic.md, section 1.

Elements of a matrix type are i16 lanes holding their bits. Where the processor converts f16 itself (`has_half`), that
is used; elsewhere LLVM would call a C library that is not there, so the bits are made with integer operations.
"""

from __future__ import annotations

from hyperdex_ir.native.emit import F16, F32, I16, I32, Emitter, V, vector

_MAGNITUDE, _SIGN = 0x7FFF, 0x8000
_INFINITY, _SMALLEST_NORMAL = 0x7C00, 0x0400  # of f16
_REBIAS = (127 - 15) << 23  # between the exponents of f16 and f32, in place
_F32_MAGNITUDE = 0x7FFFFFFF
_F32_INFINITY = 0x7F800000
_BEYOND_F16 = 0x47800000  # 2^16 as f32: everything from 65520 on rounds as this does, to infinity
_NORMAL_F16 = 0x38800000  # 2^-14, the smallest normal f16
_HALF = 0x3F000000  # 0.5: its last bit stands for 2^-24, as that of a subnormal f16
_TWO_TO_MINUS_24 = 0x33800000
_NAN = {"f16": 0x7E00, "bf16": 0x7FC0}


def widen(e: Emitter, bits: V, matrix_type: str) -> V:
    """<n x i16> elements of the matrix type as <n x f32>; exact."""
    if matrix_type == "bf16":
        wide = e.builder.zext(bits, vector(I32, bits.type.count))
        return e.builder.bitcast(e.builder.shl(wide, _all(e, bits, 16)), vector(F32, bits.type.count))
    if e.features.has_half:
        halves = e.builder.bitcast(bits, vector(F16, bits.type.count))
        return e.builder.fpext(halves, vector(F32, bits.type.count))
    return _widen_f16(e, bits)


def narrow(e: Emitter, x: V, matrix_type: str) -> V:
    """<n x f32> rounded to the matrix type, to nearest, ties to even: <n x i16>."""
    if matrix_type == "bf16":
        return _narrow_bf16(e, x)
    if e.features.has_half:
        halves = e.builder.fptrunc(x, vector(F16, x.type.count))
        return e.builder.bitcast(halves, vector(I16, x.type.count))
    return _narrow_f16(e, x)


def rounded(e: Emitter, x: V, matrix_type: str) -> V:
    """<n x f32> as the matrix type holds them: `narrow`, then `widen`."""
    return widen(e, narrow(e, x, matrix_type), matrix_type)


def load_widened(e: Emitter, pointer: V, lanes: int, matrix_type: str) -> V:
    """`lanes` neighbouring elements of the matrix type in memory, aligned to 2 bytes, as <lanes x f32>."""
    return widen(e, e.load(pointer, vector(I16, lanes)), matrix_type)


def _all(e: Emitter, like: V, value: int) -> V:
    """An i32 constant in as many lanes as `like` has."""
    return e.lanes(I32, [value & 0xFFFFFFFF] * like.type.count)


def _widen_f16(e: Emitter, bits: V) -> V:
    b, floats = e.builder, vector(F32, bits.type.count)
    wide = b.zext(bits, vector(I32, bits.type.count))
    magnitude = b.and_(wide, _all(e, bits, _MAGNITUDE))
    normal = b.add(b.shl(magnitude, _all(e, bits, 13)), _all(e, bits, _REBIAS))
    infinite = b.icmp_signed(">=", magnitude, _all(e, bits, _INFINITY))
    normal = b.select(infinite, b.add(normal, _all(e, bits, _REBIAS)), normal)
    scale = b.bitcast(_all(e, bits, _TWO_TO_MINUS_24), floats)
    small = b.bitcast(b.fmul(b.sitofp(magnitude, floats), scale), normal.type)
    value = b.select(b.icmp_signed("<", magnitude, _all(e, bits, _SMALLEST_NORMAL)), small, normal)
    sign = b.shl(b.and_(wide, _all(e, bits, _SIGN)), _all(e, bits, 16))
    return b.bitcast(b.or_(value, sign), floats)


def _narrow_f16(e: Emitter, x: V) -> V:
    b, integers = e.builder, vector(I32, x.type.count)
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
    return _signed(e, value, bits, magnitude, "f16")


def _narrow_bf16(e: Emitter, x: V) -> V:
    b = e.builder
    bits = b.bitcast(x, vector(I32, x.type.count))
    magnitude = b.and_(bits, _all(e, x, _F32_MAGNITUDE))
    odd = b.and_(b.lshr(magnitude, _all(e, x, 16)), _all(e, x, 1))
    nearest = b.add(b.add(magnitude, _all(e, x, 0x7FFF)), odd)
    return _signed(e, b.lshr(nearest, _all(e, x, 16)), bits, magnitude, "bf16")


def _signed(e: Emitter, value: V, bits: V, magnitude: V, matrix_type: str) -> V:
    """The magnitude `value` (or that of a NaN, where f32 `magnitude` says so) with the sign of `bits`, as i16."""
    b = e.builder
    is_nan = b.icmp_signed(">", magnitude, _all(e, value, _F32_INFINITY))
    sign = b.and_(b.lshr(bits, _all(e, value, 16)), _all(e, value, _SIGN))
    result = b.select(is_nan, _all(e, value, _NAN[matrix_type]), b.or_(value, sign))
    return b.trunc(result, vector(I16, value.type.count))
