"""Cost rules: the engine that an instruction runs on and what decides how long, as data.

`performance/cost.py` turns them into cycles. The names in a rule are those of immediates of the instruction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import ClassVar

from hyperdex_ir.isa.shapes import Columns, Shape


class Engine(StrEnum):
    """Engines, each with its own in-order queue."""

    SMA = "SMA"
    SXE = "SXE"
    VXE = "VXE"
    ESL = "ESL"
    ICP = "ICP"


@dataclass(frozen=True)
class CostRule:
    """Base of all rules. engine: the engine that executes the instruction."""

    engine: ClassVar[Engine]

    def immediates(self) -> Iterator[str]:
        """Names of the immediates that the rule depends on."""
        for value in (getattr(self, field.name) for field in fields(self)):
            for item in value if isinstance(value, tuple) else (value,):
                yield from item.factors if isinstance(item, Shape) else (item,) if isinstance(item, str) else ()


# ---------------------------------------------------------------------------------------------------- SXE
@dataclass(frozen=True)
class Weights(CostRule):
    """A matrix [n, k] of the parameters that streams in once for all rows, with as many gates where it is gated.

    prefetch: stripes that may stream in before the operand is there.
    """

    engine = Engine.SXE
    k: str = "k"
    n: str = "n"
    gated: str = "gated"
    gate_distance: str = "gate_distance"
    prefetch: str = "prefetch"


@dataclass(frozen=True)
class Keys(CostRule):
    """The keys of the positions seen: a matrix [positions, size]."""

    engine = Engine.SXE
    size: str = "size"
    window: str = "window"


@dataclass(frozen=True)
class Values(CostRule):
    """The values of the positions seen: a matrix [size, positions]."""

    engine = Engine.SXE
    size: str = "size"
    window: str = "window"


# ---------------------------------------------------------------------------------------------------- VXE
@dataclass(frozen=True)
class Vector(CostRule):
    """Passes over the elements of a row, for each row or the last one.

    passes: their number, a sum of numbers and immediates. choice: an immediate; a pass more where it is more than 1.
    """

    engine = Engine.VXE
    elements: Shape = Columns(("columns",))
    passes: tuple[int | str, ...] = (1,)
    choice: str | None = None
    last_row: bool = False


# ---------------------------------------------------------------------------------------------------- SMA
@dataclass(frozen=True)
class Stripes(CostRule):
    """Rows of f32.

    most_rows: the immediate that says how many at most. one_row: there is only one. index: the word that says whether a
    token id is fetched first.
    """

    engine = Engine.SMA
    columns: str = "columns"
    most_rows: str | None = None
    one_row: bool = False
    index: str | None = None


@dataclass(frozen=True)
class TableRows(CostRule):
    """Rows of a matrix in tile order, each in one pair of channels. index: as for Stripes."""

    engine = Engine.SMA
    columns: str = "columns"
    index: str = "index"


@dataclass(frozen=True)
class StoredRows(CostRule):
    """A row of `size` matrix elements for each head, written beat by beat."""

    engine = Engine.SMA
    heads: str = "heads"
    size: str = "size"


@dataclass(frozen=True)
class StoredColumns(CostRule):
    """A column of `size` matrix elements for each head, written element by element into beats of several tokens."""

    engine = Engine.SMA
    heads: str = "heads"
    size: str = "size"


# ---------------------------------------------------------------------------------------------------- ESL, ICP
@dataclass(frozen=True)
class Sent(CostRule):
    """Columns of each row that leave on the link."""

    engine = Engine.ESL
    columns: str = "columns"


@dataclass(frozen=True)
class Received(CostRule):
    """A message: it takes nothing itself."""

    engine = Engine.ESL


@dataclass(frozen=True)
class Control(CostRule):
    """A word for ICP. reads_hbm: it waits for a number from HBM."""

    engine = Engine.ICP
    reads_hbm: bool = False
