"""Scoreboard of the LMU: times at which words are available, and at which they may be overwritten."""

from __future__ import annotations

from dataclasses import dataclass

from hyperdex_ir.errors import COMPILE_AGAIN, FileFormatError
from hyperdex_ir.isa.footprint import Footprint


@dataclass(frozen=True)
class Write:
    """Times of a write: columns of the footprint are finished group by group from `base` on, the last at `end`."""

    base: int
    group_cycles: int
    end: int


_NEVER = Write(0, 0, 0)
_PAGE = 4096  # words: footprints that share a word share a page
#: Limit for the compared pairs of footprints, and the pages of footprints. A step of Gemma 3 over 128 tokens takes
#: 190,000.
MOST_PAIRS = 5_000_000


class Budget:
    """Limit for the work of several estimates together: `estimates` times the limit of one.

    executed: instructions counted by `estimate.py`. pairs: pairs counted by scoreboards.
    """

    def __init__(self, estimates: int = 1):
        self.estimates = estimates
        self.executed = self.pairs = 0


class Scoreboard:
    """Times of the last writes and reads, by footprint. Footprints are numbered in order of appearance."""

    def __init__(self, trees: int, budget: Budget):
        self._trees = trees
        self._budget = budget
        self._numbers: dict[Footprint, int] = {}
        self._footprints: list[Footprint] = []
        self._stretches: list[tuple[int, int]] = []  # by number: first word and end, a quick test before `overlaps`
        self._meets: list[list[int]] = []  # by number: footprints that overlap it, itself included
        self._pages: dict[int, list[int]] = {}
        self._writes: list[Write] = []
        self._reads: list[int] = []

    def __len__(self) -> int:
        return len(self._footprints)

    def _count(self, pairs: int) -> None:
        """Raises FileFormatError for too many overlapping footprints, since each is compared with all."""
        self._budget.pairs += pairs
        if self._budget.pairs > MOST_PAIRS * self._budget.estimates:
            raise FileFormatError(f"{len(self)} stretches of the LMU that overlap: too many to estimate", COMPILE_AGAIN)

    def number(self, footprint: Footprint) -> int:
        """The number of a footprint."""
        if footprint in self._numbers:
            return self._numbers[footprint]
        number = self._numbers[footprint] = len(self._footprints)
        low, end = footprint.low, footprint.end
        pages = range(low // _PAGE, (end - 1) // _PAGE + 1)
        self._count(len(pages) + sum(len(self._pages.get(page, ())) for page in pages))
        known = dict.fromkeys(other for page in pages for other in self._pages.get(page, ()))
        near = [other for other in known if self._stretches[other][0] < end and low < self._stretches[other][1]]
        meets = [other for other in near if self._footprints[other].overlaps(footprint)]
        for other in meets:
            self._meets[other].append(number)
        for page in pages:
            self._pages.setdefault(page, []).append(number)
        self._footprints.append(footprint)
        self._stretches.append((low, end))
        self._meets.append([*meets, number])
        self._writes.append(_NEVER)
        self._reads.append(0)
        return number

    def footprint(self, number: int) -> Footprint:
        """The footprint with this number."""
        return self._footprints[number]

    def ready(self, number: int, columns: int | None = None) -> int:
        """Time at which the first `columns` columns (None: all) have been written."""
        footprint = self._footprints[number]
        self._count(len(self._meets[number]))
        high = footprint.high if columns is None else min(footprint.high, footprint.low + columns)
        return max(self._finished(other, footprint.stride, high) for other in self._meets[number])

    def _finished(self, number: int, stride: int, high: int) -> int:
        write, written = self._writes[number], self._footprints[number]
        if not write.group_cycles or stride != written.stride or high <= written.low:
            return write.end
        groups = -(-(min(high, written.high) - written.low) // self._trees)
        return min(write.end, write.base + groups * write.group_cycles)

    def free(self, number: int) -> int:
        """Time from which no instruction reads or writes the words."""
        self._count(len(self._meets[number]))
        return max(max(self._reads[other], self._writes[other].end) for other in self._meets[number])

    def read(self, number: int, end: int) -> None:
        """Records a read that is over at `end`."""
        self._reads[number] = max(self._reads[number], end)

    def write(self, number: int, end: int, base: int = 0, group_cycles: int = 0) -> None:
        """Records a write that is over at `end`. group_cycles: time from group to group; 0: all columns at the end."""
        self._writes[number] = Write(base, group_cycles, end)

    def state(self, floor: int, latest: int) -> tuple[object, ...]:
        """All times after `floor`, relative to `latest`, as a value that can be compared."""
        writes = tuple(
            (number, write.end - latest, write.base - latest if write.group_cycles else 0, write.group_cycles)
            for number, write in enumerate(self._writes)
            if write.end > floor
        )
        reads = tuple((number, end - latest) for number, end in enumerate(self._reads) if end > floor)
        return writes, reads

    def times(self) -> tuple[list[Write], list[int]]:
        """Copy of all times: of writes, of reads."""
        return list(self._writes), list(self._reads)

    def shift(self, cycles: int, before: tuple[list[Write], list[int]]) -> None:
        """Adds `cycles` to the times that differ from those of `before`."""
        writes, reads = before
        for number, write in enumerate(self._writes):
            if number >= len(writes) or write != writes[number]:
                self._writes[number] = Write(write.base + cycles, write.group_cycles, write.end + cycles)
        for number, end in enumerate(self._reads):
            if number >= len(reads) or end != reads[number]:
                self._reads[number] = end + cycles
