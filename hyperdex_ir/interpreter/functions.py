"""The functions of the vector engine, each a sequence of IEEE float32 operations: docs/arithmetic.md, section 5.

Constants are float32 bits. No operation may be contracted or reordered: the sequence *is* the definition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hyperdex_ir.interpreter.ops import Ops
from hyperdex_ir.isa import functions
from hyperdex_ir.isa.functions import check_complete

ZERO, HALF, ONE, TWO = 0x00000000, 0x3F000000, 0x3F800000, 0x40000000
FOUR = 0x40800000
SIGN, MAGNITUDE = -0x80000000, 0x7FFFFFFF

LOG2_E = 0x3FB8AA3B
ROUNDER = 0x4B400000  # 1.5 * 2^23: adding it rounds to an integer, which its low bits then hold
LN2_HIGH, LN2_LOW = 0x3F318000, 0xB95E8083  # LN2_HIGH has 10 significant bits: times an exponent it is exact
EXP_MOST, EXP_LEAST = 0x42B20000, 0xC2D00000  # 89 and -104: beyond them the result is infinity or zero
EXP = (0x39509521, 0x3AB6A490, 0x3C088870, 0x3D2AAA72, 0x3E2AAAAB, 0x3F000000)

TANH_SMALL = 0x3F200000  # 0.625
TANH = (0x3B1641E0, 0xBC08B50B, 0x3CB254BB, 0xBD5D0462, 0x3E088875, 0xBEAAAAAB)

ERF = (0x38A52B48, 0xBA522844, 0x3BAA0938, 0xBCDBFD5D, 0x3DE71688, 0xBEC0939F, 0x3E0375D4)
ERFC = (
    0xB5DBBC18, 0x37A6A0CD, 0xB90DEDCF, 0x3A403EFE, 0xBB6A053A, 0x3C86E0ED, 0x3F6C7AF0, 0x408D6193, 0x40ABAD99,
)  # fmt: skip

SQRT_HALF = 0x3F3504F3
GELU_CUBE, GELU_SCALE = 0x3D372713, 0x3F4C422A  # 0.044715 and sqrt(2 / pi)


def horner(o: Ops, x: Any, coefficients: Sequence[int]) -> Any:
    """((c0 * x + c1) * x + c2) ..., one multiplication and one addition a coefficient."""
    result = o.constant(coefficients[0])
    for bits in coefficients[1:]:
        result = o.add(o.mul(result, x), o.constant(bits))
    return result


def neg(o: Ops, x: Any) -> Any:
    """The sign bit flipped."""
    return o.float_of(o.ixor(o.bits(x), o.integer(SIGN)))


def magnitude(o: Ops, x: Any) -> Any:
    """The sign bit cleared."""
    return o.float_of(o.iand(o.bits(x), o.integer(MAGNITUDE)))


def with_sign_of(o: Ops, a: Any, x: Any) -> Any:
    """a, whose sign bit is clear, with the sign bit of x."""
    return o.float_of(o.ior(o.bits(a), o.iand(o.bits(x), o.integer(SIGN))))


def power_of_two(o: Ops, n: Any) -> Any:
    """2^n for an integer n from -126 to 127."""
    return o.float_of(o.shift_left(o.iadd(n, o.integer(127)), 23))


def exp(o: Ops, x: Any) -> Any:
    """e^x = 2^n * e^r with n = round(x / ln 2); 2^n in two factors, so that a subnormal is rounded once."""
    x = o.select(o.greater(x, o.constant(EXP_MOST)), o.constant(EXP_MOST), x)
    x = o.select(o.greater(o.constant(EXP_LEAST), x), o.constant(EXP_LEAST), x)
    shifted = o.add(o.mul(x, o.constant(LOG2_E)), o.constant(ROUNDER))
    n = o.sub(shifted, o.constant(ROUNDER))
    r = o.sub(o.sub(x, o.mul(n, o.constant(LN2_HIGH))), o.mul(n, o.constant(LN2_LOW)))
    y = o.add(o.add(o.mul(horner(o, r, EXP), o.mul(r, r)), r), o.constant(ONE))
    exponent = o.isub(o.bits(shifted), o.integer(ROUNDER))
    half = o.shift_right(exponent, 1)
    return o.mul(o.mul(y, power_of_two(o, half)), power_of_two(o, o.isub(exponent, half)))


def tanh(o: Ops, x: Any) -> Any:
    """a polynomial below 0.625, 1 - 2 / (e^2a + 1) above, a = |x|, with the sign of x."""
    a = magnitude(o, x)
    z = o.mul(a, a)
    small = o.add(a, o.mul(a, o.mul(z, horner(o, z, TANH))))
    large = o.sub(o.constant(ONE), o.div(o.constant(TWO), o.add(exp(o, o.add(a, a)), o.constant(ONE))))
    return with_sign_of(o, o.select(o.greater(o.constant(TANH_SMALL), a), small, large), x)


def erf(o: Ops, x: Any) -> Any:
    """a polynomial below 1, 1 - e^-g(a) above, g a polynomial in a - 2, a = min(|x|, 4), with the sign of x."""
    a = magnitude(o, x)
    z = o.mul(a, a)
    small = o.add(a, o.mul(a, horner(o, z, ERF)))
    limited = o.select(o.greater(a, o.constant(FOUR)), o.constant(FOUR), a)
    g = horner(o, o.sub(limited, o.constant(TWO)), ERFC)
    large = o.sub(o.constant(ONE), exp(o, neg(o, g)))
    return with_sign_of(o, o.select(o.greater(o.constant(ONE), a), small, large), x)


def copy(o: Ops, x: Any) -> Any:
    """x"""
    return x


def sqrt(o: Ops, x: Any) -> Any:
    """IEEE square root."""
    return o.sqrt(x)


def rsqrt(o: Ops, x: Any) -> Any:
    """1 / sqrt(x), two operations."""
    return o.div(o.constant(ONE), o.sqrt(x))


def relu(o: Ops, x: Any) -> Any:
    """x > 0 ? x : 0"""
    return o.select(o.greater(x, o.constant(ZERO)), x, o.constant(ZERO))


def sigmoid(o: Ops, x: Any) -> Any:
    """1 / (1 + exp(-x))"""
    return o.div(o.constant(ONE), o.add(o.constant(ONE), exp(o, neg(o, x))))


def silu(o: Ops, x: Any) -> Any:
    """x / (1 + exp(-x))"""
    return o.div(x, o.add(o.constant(ONE), exp(o, neg(o, x))))


def gelu(o: Ops, x: Any) -> Any:
    """(0.5 * x) * (1 + erf(x * sqrt(0.5)))"""
    return o.mul(o.mul(o.constant(HALF), x), o.add(o.constant(ONE), erf(o, o.mul(x, o.constant(SQRT_HALF)))))


def gelu_tanh(o: Ops, x: Any) -> Any:
    """(0.5 * x) * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * ((x * x) * x))))"""
    cubic = o.add(x, o.mul(o.constant(GELU_CUBE), o.mul(o.mul(x, x), x)))
    return o.mul(o.mul(o.constant(HALF), x), o.add(o.constant(ONE), tanh(o, o.mul(o.constant(GELU_SCALE), cubic))))


def maximum(o: Ops, a: Any, b: Any) -> Any:
    """a > b ? a : b"""
    return o.select(o.greater(a, b), a, b)


def minimum(o: Ops, a: Any, b: Any) -> Any:
    """a < b ? a : b"""
    return o.select(o.greater(b, a), a, b)


UNARY: dict[str, Callable[[Ops, Any], Any]] = {name: globals()[name] for name in functions.UNARY}
"""Unary functions and activations by name: all of the table, which must be defined above."""

BINARY: dict[str, Callable[[Ops, Any, Any], Any]] = {
    "add": lambda o, a, b: o.add(a, b),
    "sub": lambda o, a, b: o.sub(a, b),
    "mul": lambda o, a, b: o.mul(a, b),
    "div": lambda o, a, b: o.div(a, b),
    "max": maximum,
    "min": minimum,
}
"""Binary functions by name."""

check_complete(BINARY, functions.BINARY)
