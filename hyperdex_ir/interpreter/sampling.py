"""Choosing a token: docs/arithmetic.md, section 9. Sums are of integers, so that no order of summing matters."""

from __future__ import annotations

import numpy as np

from hyperdex_ir.interpreter import arithmetic
from hyperdex_ir.isa.settings import GREEDY, Settings

_WORD = (1 << 32) - 1
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
WEYL = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10
_WEIGHT_ONE = np.float32(1 << 40)  # the weight of the largest logit
_SHARE_ONE = np.float32(1 << 32)  # a top_p of 1


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10: four words of 32 bits from a counter of four and a key of two."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        low, high = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (high >> 32) ^ c1 ^ k0, high & _WORD, (low >> 32) ^ c3 ^ k1, low & _WORD
        k0, k1 = (k0 + WEYL[0]) & _WORD, (k1 + WEYL[1]) & _WORD
    return c0, c1, c2, c3


def draw(seed: int, position: int) -> int:
    """The 64 random bits of a position (64 bits, two's complement) under a seed (u64)."""
    words = philox((position & _WORD, (position >> 32) & _WORD, 0, 0), (seed & _WORD, seed >> 32))
    return words[0] | words[1] << 32


def penalized(logits: np.ndarray, seen: np.ndarray, penalty: float) -> np.ndarray:
    """The logits, float32 [n], with the repetition penalty applied to those of the tokens seen, bool [n]."""
    factor = np.float32(penalty)
    return np.where(seen, np.where(logits > 0, logits / factor, logits * factor), logits)


def weights_of(logits: np.ndarray, settings: Settings) -> np.ndarray:
    """The weight of each token, uint64 [n]: 0 for those that top_k and top_p leave out. Logits: finite float32 [n]."""
    order = np.argsort(-logits, kind="stable")
    kept = order[: settings.top_k] if settings.top_k else order
    distance = (logits[kept] - logits[order[0]]) / np.float32(settings.temperature)
    weights = (arithmetic.unary("exp", distance) * _WEIGHT_ONE).astype(np.uint64)
    before = np.cumsum(weights) - weights
    share = int(np.float32(settings.top_p) * _SHARE_ONE)
    enough = np.uint64(share * int(weights.sum()) >> 32)
    weights[1:][before[1:] >= enough] = 0
    result = np.zeros(len(logits), np.uint64)
    result[kept] = weights
    return result


def choose(logits: np.ndarray, settings: Settings, position: int) -> int:
    """The token that the settings choose from finite logits, float32 [n], at an absolute position."""
    if settings.mode == GREEDY:
        return int(np.argmax(logits))
    ends = np.cumsum(weights_of(logits, settings))
    target = draw(settings.seed, position) * int(ends[-1]) >> 64
    return int(np.searchsorted(ends, np.uint64(target), side="right"))
