"""Checks of the values in config.json for the rules of rotary frequencies; transformers checks them late or never."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

#: Positive numbers that a rule needs.
_NEEDED = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
}
#: Positive numbers that may be absent or null, for the rules that take them.
_OPTIONAL = {
    "yarn": ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"),
    "longrope": ("attention_factor",),
}
_FACTORS = ("short_factor", "long_factor")
_POSITIVE = "a positive number"


def is_positive(value: object) -> TypeGuard[float]:
    """Test for a positive number that fits a float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= sys.float_info.max


def flaws(rule: str, rope: Mapping[str, Any], frequencies: int) -> Iterator[tuple[str, Any, str]]:
    """Invalid values of a rule: each key, its value, and the expected value in words.

    frequencies: their number; longrope has one factor for each.
    """
    for key in _NEEDED.get(rule, ()):
        if not is_positive(rope.get(key)):
            yield key, rope.get(key), f"{_POSITIVE} for {rule}"
    for key in _OPTIONAL.get(rule, ()):
        if (value := rope.get(key)) is not None and not is_positive(value) and not (value == 0 and "scale" in key):
            yield key, value, f"{_POSITIVE} or null"
    original = rope.get("original_max_position_embeddings")
    if original is not None and not (is_positive(original) and isinstance(original, int)):
        yield "original_max_position_embeddings", original, "a positive whole number"
    low, high = rope.get("low_freq_factor", 1.0), rope.get("high_freq_factor", 4.0)
    if rule == "llama3" and is_positive(low) and is_positive(high) and not low < high:
        yield "high_freq_factor", high, f"more than low_freq_factor {low}"
    if not isinstance(truncate := rope.get("truncate", False), bool | None):
        yield "truncate", truncate, "true or false"
    for key in _FACTORS if rule == "longrope" else ():
        value = rope.get(key)
        if not isinstance(value, list) or len(value) != frequencies or not all(map(is_positive, value)):
            yield key, value, f"a list of {frequencies} positive numbers, one for each frequency"
