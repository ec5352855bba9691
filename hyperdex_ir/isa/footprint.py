"""Which words of the LMU an instruction reads and writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

#: The columns of Lmu operands: the immediates whose product they are. Those that grow with the position are not here.
#: Of what goes around the ring they are those of all parts.
LMU_COLUMNS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "embed": {"dst": ("columns",)},
    "gather": {"dst": ("columns",)},
    "load": {"dst": ("columns",)},
    "store": {"src": ("columns",)},
    "store_key": {"src": ("heads", "size")},
    "store_value": {"src": ("heads", "size")},
    "store_state": {"src": ("columns",)},
    "short_conv": {"dst": ("columns",), "src": ("columns",)},
    "matmul": {"dst": ("n",), "src": ("k",), "times": ("n",), "plus": ("n",)},
    "scores": {"query": ("size",)},
    "values": {"dst": ("size",)},
    "rotary": {"cos": ("turned",), "sin": ("turned",)},
    "select_rows": {"dst": ("columns",), "src": ("columns",)},
    "select_columns": {"dst": ("columns",), "src": ("limit",)},
    "send": {"src": ("parts", "pitch")},
    "receive": {"dst": ("parts", "pitch")},
    "top_k": {"dst": ("k",), "src": ("columns",)},
    "take_columns": {"dst": ("columns",), "src": ("limit",), "index": ("columns",)},
    "fetch": {"src": ()},
    "sample": {"src": ("columns",)},
}


def lmu_columns(name: str, operand: str, values: Mapping[str, Any]) -> int | None:
    """Columns of an Lmu operand. None: as many as positions are seen."""
    factors = LMU_COLUMNS.get(name, {}).get(operand)
    return None if factors is None else prod(values[factor] for factor in factors)


def part_columns(values: Mapping[str, Any], device: int) -> tuple[int, int]:
    """First and last (excluded) of the columns that a send or receive of that device is about."""
    first = (device - values["hop"]) % values["parts"] * values["pitch"] + values["first"]
    return first, first + values["columns"]


def view_words(name: str, operand: str, values: Mapping[str, Any], group_stride: int, column_stride: int) -> int:
    """Words of a row from the first to the last that a View operand touches, both included."""
    columns = 1 if name == "reduce" and operand == "dst" else values["columns"]
    return max(values["groups"] - 1, 0) * group_stride + max(columns - 1, 0) * column_stride + 1


@dataclass(frozen=True)
class Footprint:
    """Words `low` to `high - 1` of row 0, and the same of each row, `stride` words apart."""

    low: int
    high: int
    stride: int
    rows: int

    def overlaps(self, other: Footprint) -> bool:
        """Whether the two share a word; when their strides differ, whether the stretches around them do."""
        if self.stride == other.stride and self.stride:
            return any(self._columns_meet(other, shift) for shift in _shifts(other.low - self.low, self.stride))
        return self.low < other.end and other.low < self.end

    def _columns_meet(self, other: Footprint, shift: int) -> bool:
        if not -other.rows < shift < self.rows:
            return False
        offset = shift * self.stride
        return self.low + offset < other.high and other.low < self.high + offset

    @property
    def words(self) -> int:
        """Words of all rows together."""
        return (self.high - self.low) * self.rows

    @property
    def end(self) -> int:
        """The word behind the last one."""
        return self.high + max(self.rows - 1, 0) * self.stride


def _shifts(distance: int, stride: int) -> tuple[int, ...]:
    return (distance // stride, distance // stride + 1)
