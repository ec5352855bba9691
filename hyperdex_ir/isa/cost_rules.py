"""Cost rules, as data: the engine that an instruction runs on, and the numbers that decide how long it takes.

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


@dataclass(frozen=True)
class Weights(CostRule):
    """A matrix [n, k] of the parameters that streams in once for all rows; where gated, with as many rows of gates.

    prefetch: stripes that may stream in before the operand is there.
    """

    engine = Engine.SXE
    k: str = "k"
    n: str = "n"
    gated: str = "gated"
    gate_distance: str = "gate_distance"
    prefetch: str = "prefetch"


@dataclass(frozen=True)
class Cache(CostRule):
    """A matrix of the positions seen, [positions, size]; transposed: [size, positions]."""

    engine = Engine.SXE
    transposed: bool
    size: str = "size"
    window: str = "window"


@dataclass(frozen=True)
class Vector(CostRule):
    """Sweeps over the elements of a row, for each row or the last one.

    sweeps: their number, a sum of numbers and immediates. choice: an immediate; one more sweep where it is
    above 1.
    """

    engine = Engine.VXE
    elements: Shape = Columns(("columns",))
    sweeps: tuple[int | str, ...] = (1,)
    choice: str | None = None
    last_row: bool = False


@dataclass(frozen=True)
class Rows(CostRule):
    """Rows of f32, or of a matrix in tile order, each in one pair of channels.

    most_rows: the immediate that bounds the number of rows. one_row: there is only one row. index: the word that says
    whether a token id is fetched first.
    """

    engine = Engine.SMA
    columns: str = "columns"
    tiled: bool = False
    most_rows: str | None = None
    one_row: bool = False
    index: str | None = None


@dataclass(frozen=True)
class Stored(CostRule):
    """`size` matrix elements for each head, beat by beat; transposed: one by one into beats of several tokens."""

    engine = Engine.SMA
    transposed: bool
    heads: str = "heads"
    size: str = "size"


@dataclass(frozen=True)
class Link(CostRule):
    """Columns of each row that leave on the link; a receive takes no cycles of the link."""

    engine = Engine.ESL
    sends: bool
    columns: str = "columns"


@dataclass(frozen=True)
class Control(CostRule):
    """A word for ICP. reads_hbm: it waits for a number from HBM."""

    engine = Engine.ICP
    reads_hbm: bool = False
