"""The choice of tokens: the settings of one call, with the meanings and defaults that transformers gives them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hyperdex_ir.errors import OptionError
from hyperdex_ir.isa.settings import GREEDY, SAMPLE, Settings

#: Defaults of transformers, for settings that neither the call nor generation_config.json gives.
DEFAULTS = {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "repetition_penalty": 1.0}
SEED_LIMIT = 1 << 64
_TOP_K_LIMIT = 1 << 63
_DRAWN_BITS = 32


def draw_seed() -> int:
    """A seed that nobody knows, below 2^32."""
    return secrets.randbits(_DRAWN_BITS)


@dataclass(frozen=True)
class Sampling:
    """The choice of the next token.

    repetition_penalty: logits of tokens that the text holds are divided by it where positive, else multiplied; 1: none.
    Without do_sample the token with the largest logit then follows, and nothing else counts. With it: temperature
    divides the logits; top_k keeps that many of the largest, 0 all; top_p keeps the likeliest tokens that together
    reach this probability; one of those left is drawn. The same seed, from 0 to 2^64 - 1, and the same text give the
    same tokens; None: one is drawn. Raises OptionError for a value out of range.
    """

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        _check_positive("temperature", self.temperature, "leave it out, and do not sample, for the likeliest token")
        _check_positive("repetition_penalty", self.repetition_penalty, "1 is none")
        if not _is_number(self.top_p) or not 0 <= self.top_p <= 1:
            raise OptionError(f"top_p is {self.top_p}; it must be from 0 to 1", "1 keeps all tokens")
        if not _is_integer(self.top_k) or not 0 <= self.top_k < _TOP_K_LIMIT:
            raise OptionError(f"top_k is {self.top_k}; it must be a whole number, 0 or more", "0 keeps all tokens")
        if self.seed is not None and not (_is_integer(self.seed) and 0 <= self.seed < SEED_LIMIT):
            raise OptionError(f"seed is {self.seed}; it must be from 0 to 2^64 - 1", "leave it out to have one drawn")

    def seeded(self, draw: Callable[[], int] = draw_seed) -> Sampling:
        """The same settings, with a seed drawn where one is needed and none is given."""
        if not self.do_sample or self.seed is not None:
            return self
        return replace(self, seed=draw())

    @property
    def settings(self) -> Settings:
        """The settings for the machine; floats are rounded to float32."""
        penalty = float(self.repetition_penalty)
        if not self.do_sample:
            return Settings(GREEDY, repetition_penalty=penalty)
        return Settings(
            SAMPLE, int(self.top_k), int(self.seed or 0), float(self.temperature), float(self.top_p), penalty
        )


def resolve_sampling(
    config: Mapping[str, Any], do_sample: bool | None, seed: int | None = None, **given: float | None
) -> Sampling:
    """The settings of a call: those given (of `DEFAULTS`; None: not given), else those of `config`, the contents of
    generation_config.json, else transformers' defaults. Raises OptionError for a value out of range."""
    values: dict[str, Any] = {}
    for name, default in DEFAULTS.items():
        found = given.get(name)
        found = config.get(name) if found is None else found
        values[name] = default if found is None else found
    if do_sample is None:
        do_sample = bool(config.get("do_sample"))
    if not do_sample:
        return Sampling(repetition_penalty=values["repetition_penalty"])
    return Sampling(True, seed=seed, **values)


def _check_positive(name: str, value: Any, hint: str) -> None:
    if not _is_number(value) or not 0 < value < np.inf:
        raise OptionError(f"{name} is {value}; it must be a number above 0", hint)
    try:
        with np.errstate(over="ignore", under="ignore"):
            single = np.float32(value)
    except OverflowError:  # an integer that is no float64 either
        single = np.inf
    if not 0 < single < np.inf:
        raise OptionError(f"{name} is {value}; float32 cannot hold it", hint)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
