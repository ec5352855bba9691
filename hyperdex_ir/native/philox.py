"""Philox4x32-10 in compiled code: docs/arithmetic.md, section 9."""

from __future__ import annotations

from hyperdex_ir.interpreter.sampling import MULTIPLIERS, ROUNDS, WEYL
from hyperdex_ir.native.emit import I64, Emitter, V

_WORD = 0xFFFFFFFF


def draw(e: Emitter, seed: V, position: V) -> V:
    """The 64 random bits of a position under a seed, all i64."""
    b = e.builder
    word = I64(_WORD)
    counter = [b.and_(position, word), b.lshr(position, I64(32)), I64(0), I64(0)]
    key = [b.and_(seed, word), b.lshr(seed, I64(32))]
    for _ in range(ROUNDS):
        low, high = b.mul(counter[0], I64(MULTIPLIERS[0])), b.mul(counter[2], I64(MULTIPLIERS[1]))
        counter = [
            b.xor(b.xor(b.lshr(high, I64(32)), counter[1]), key[0]),
            b.and_(high, word),
            b.xor(b.xor(b.lshr(low, I64(32)), counter[3]), key[1]),
            b.and_(low, word),
        ]
        key = [b.and_(b.add(number, I64(step)), word) for number, step in zip(key, WEYL, strict=True)]
    return b.or_(counter[0], b.shl(counter[1], I64(32)))
