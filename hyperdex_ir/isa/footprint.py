"""Words of the LMU that an operand of an instruction touches."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Footprint:
    """Words `low` to `high - 1` of row 0, and the same words of each row, `stride` words apart."""

    low: int
    high: int
    stride: int
    rows: int

    def overlaps(self, other: Footprint) -> bool:
        """Test that the two share a word; when their strides differ, that the stretches around them do."""
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
