"""Forms of a sequence of layers: nested repeats over runs and periods, or a table."""

from __future__ import annotations

from collections.abc import Sequence

Item = int | tuple[int, "list[Item]"]

#: Instructions in main: a call and the two additions to the base registers behind it; a repeat around something; a
#: table's walk (set, repeat, lookup, add) and the skip before each function's call.
_CALL, _REPEAT, _TABLE, _SKIP = 3, 1, 4, 1


def compress(kinds: Sequence[int]) -> list[Item]:
    """A sequence as nested repeats: (count, items), or a kind that stands alone.

    From the left, the period that covers most items is taken; of equal ones, the shortest.
    """
    items: list[Item] = []
    place = 0
    while place < len(kinds):
        period, count = _best_period(kinds[place:])
        body = list(kinds[place : place + period])
        items.append((count, compress(body)) if count > 1 else body[0])
        place += period * count
    return items


def _best_period(kinds: Sequence[int]) -> tuple[int, int]:
    best = (1, 1)
    for period in range(1, len(kinds) // 2 + 1):
        count = 1
        while kinds[count * period : (count + 1) * period] == kinds[:period]:
            count += 1
        if count > 1 and period * count > best[0] * best[1]:
            best = (period, count)
    return best


def instructions(items: Sequence[Item]) -> int:
    """Number of instructions that nested repeats take in main."""
    return sum(_CALL if isinstance(item, int) else _REPEAT + instructions(item[1]) for item in items)


def is_shorter_as_table(kinds: Sequence[int]) -> bool:
    """Test that a table of function numbers takes fewer instructions than nested repeats.

    The instructions of the table depend on the number of distinct functions alone, so neither form grows with the
    layers.
    """
    return instructions(compress(kinds)) > _TABLE + len(set(kinds)) * (_SKIP + _CALL)
