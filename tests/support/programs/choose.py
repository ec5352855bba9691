"""Random choices from hypothesis, for the cases of the engine tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from support import SOAK

T = TypeVar("T")


class Drawn:
    """`instruction_case.Choose` from hypothesis; what is seldom becomes what is shrunk away."""

    def __init__(self, draw: st.DrawFn):
        self._draw = draw

    def integer(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))

    def pick(self, options: Sequence[T]) -> T:
        return self._draw(st.sampled_from(options))

    def chance(self, percent: int) -> bool:
        return self._draw(st.integers(0, 99)) >= 100 - percent


def examples(few: int, full: int) -> Callable:
    """So many examples; the full count in a soak."""
    return settings(max_examples=full if SOAK else few, deadline=None, suppress_health_check=list(HealthCheck))
