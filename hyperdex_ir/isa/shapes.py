"""Shapes of operands in the LMU: which words of a row an instruction touches, from its immediates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any


@dataclass(frozen=True)
class Columns:
    """As many columns as the product of these immediates; one column when there are none."""

    factors: tuple[str, ...] = ()

    def words(self, values: Mapping[str, Any]) -> int:
        """Number of columns of a row; for ring transfers, the columns of all parts together. None for `Seen`, where it
        depends on the position."""
        return prod(values[factor] for factor in self.factors)

    def span(self, values: Mapping[str, Any], rows: int, position: int) -> tuple[int, int]:
        """First and last (excluded) of the columns that are touched, for `rows` rows, the first at `position`."""
        return 0, self.words(values)

    def __str__(self) -> str:
        return " * ".join(self.factors) or "1"


@dataclass(frozen=True)
class Seen:
    """A column for each position that a row sees; `window` is the immediate with the number of positions seen."""

    window: str = "window"

    @property
    def factors(self) -> tuple[str, ...]:
        return (self.window,)

    def words(self, values: Mapping[str, Any]) -> None:
        return None

    def span(self, values: Mapping[str, Any], rows: int, position: int) -> tuple[int, int]:
        return positions_seen(position, rows, values[self.window])

    def __str__(self) -> str:
        return "positions seen"


@dataclass(frozen=True)
class RingPart:
    """Some columns of one part of a row that has as many parts as the ring has devices."""

    hop, parts, pitch, first, columns = factors = ("hop", "parts", "pitch", "first", "columns")

    def words(self, values: Mapping[str, Any]) -> int:
        return values[self.parts] * values[self.pitch]

    def span(self, values: Mapping[str, Any], rows: int, position: int) -> tuple[int, int]:
        """First and last (excluded) of the columns that device 0 touches."""
        first = -values[self.hop] % values[self.parts] * values[self.pitch] + values[self.first]
        return first, first + values[self.columns]

    def __str__(self) -> str:
        return f"{self.columns} of part"


Shape = Columns | Seen | RingPart
ONE = Columns()


def positions_seen(position: int, rows: int, window: int) -> tuple[int, int]:
    """First and last (excluded) of the positions that `rows` rows see, the first row at `position`."""
    return (max(0, position + 1 - window) if window else 0), position + rows
