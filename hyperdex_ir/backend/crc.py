"""CRC-32 of a payload from the CRCs of its parts, so that parts can be written in any order.

The CRC is a remainder modulo a polynomial over bits: n more bytes multiply the earlier part by x to the 8n. Numbers
here hold such polynomials with the highest power in the lowest bit, as zlib's CRC-32 does.
"""

from __future__ import annotations

from functools import cache

_POLYNOMIAL = 0xEDB88320
_ONE = 1 << 31
_X8 = _ONE >> 8


def _multiply(a: int, b: int) -> int:
    """a times b, modulo the polynomial."""
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = a << 1 & 0xFFFFFFFF
        b = b >> 1 ^ _POLYNOMIAL if b & 1 else b >> 1
    return product


@cache
def _shift(count: int) -> int:
    """x to the 8 * count."""
    result, power = _ONE, _X8
    while count:
        if count & 1:
            result = _multiply(power, result)
        power = _multiply(power, power)
        count >>= 1
    return result


def combine_crc(first: int, second: int, second_bytes: int) -> int:
    """The CRC-32 of two parts in a row, from that of each and the length of the second."""
    return _multiply(_shift(second_bytes), first) ^ second
