"""The choice of a token, computed from section 9 of docs/arithmetic.md alone, in Python's own integers.

As second_implementation.py, it tests that document and shares no code with the package.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from support.models.second_implementation import F, Floats, exp

WORD = 2**32


@dataclass(frozen=True)
class Choice:
    """The settings of section 9."""

    greedy: bool = False
    top_k: int = 0
    seed: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    penalty: float = 1.0


def random_bits(seed: int, p: int) -> int:
    """r of a position."""
    c0, c1, c2, c3 = p % WORD, p // WORD, 0, 0
    k0, k1 = seed % WORD, seed // WORD
    for _ in range(10):
        a, b = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = b // WORD ^ c1 ^ k0, b % WORD, a // WORD ^ c3 ^ k1, a % WORD
        k0, k1 = (k0 + 0x9E3779B9) % WORD, (k1 + 0xBB67AE85) % WORD
    return c0 + WORD * c1


def weights(x: Floats, choice: Choice) -> dict[int, int]:
    """The integer weights of the tokens that stay after step 4."""
    order = sorted(range(len(x)), key=lambda i: (-x[i], i))
    kept = order[: choice.top_k or len(x)]
    w = {}
    for i in kept:
        e = exp(np.array((x[i] - x[order[0]]) / F(choice.temperature), F))
        w[i] = math.floor(float(e) * 2**40)
    enough = math.floor(float(F(choice.top_p)) * 2**32) * sum(w.values()) // 2**32
    stays, before = {}, 0
    for i in kept:
        if before < enough or i == order[0]:
            stays[i] = w[i]
        before += w[i]
    return stays


def chosen(x: Floats, text: Collection[int], p: int, choice: Choice) -> int:
    """The token that follows the text, whose last position p has the logits x."""
    x = x.copy()
    if choice.penalty != 1:
        for i in set(text):
            x[i] = x[i] / F(choice.penalty) if x[i] > 0 else x[i] * F(choice.penalty)
    if choice.greedy:
        return min(range(len(x)), key=lambda i: (-x[i], i))
    w = weights(x, choice)
    t = random_bits(choice.seed, p) * sum(w.values()) // 2**64
    so_far = 0
    for i in sorted(w):
        so_far += w[i]
        if so_far > t:
            return i
    raise AssertionError("t is less than the sum of the weights")
