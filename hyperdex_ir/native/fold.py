"""The fold: 64 lanes to one number, adding the upper half to the lower: 32, 16, 8, 4, 2, 1. Many columns at a time."""

from __future__ import annotations

from collections.abc import Sequence

from hyperdex_ir.native.emit import Emitter, V


def fold(e: Emitter, columns: Sequence[Sequence[V]]) -> V:
    """The MAC's result of each column, <n x f32>: the fold, and no -0.

    columns: n (a power of two, at most the lanes of a vector) times the vectors of 64 lanes, lane 0 first.
    """
    return finish(e, [add_halves(e, lanes) for lanes in columns])


def add_halves(e: Emitter, lanes: Sequence[V]) -> V:
    """The vectors of 64 lanes folded to one vector."""
    parts = list(lanes)
    while len(parts) > 1:
        half = len(parts) // 2
        parts = [e.fadd(parts[index], parts[index + half]) for index in range(half)]
    return parts[0]


def leaves(count: int) -> list[tuple[int, int]]:
    """An order in which to make `count` vectors of lanes one by one and add them as `add_halves` does.

    (vector, additions): make the vector; `additions` times, add it to the last waiting vector, which is then gone; then
    the sum waits.
    """
    bits = count.bit_length() - 1
    order: list[tuple[int, int]] = []
    for number in range(count):
        reversed_bits = int(f"{number:0{bits}b}"[::-1], 2) if bits else 0
        additions = (number ^ (number + 1)).bit_length() - 1  # the ones at the end of the number
        order.append((reversed_bits, additions))
    return order


def finish(e: Emitter, columns: Sequence[V]) -> V:
    """As `fold`, for columns folded to one vector each.

    Section 3 of the arithmetic adds +0 to each lane before the fold. Only a sum of nothing but -0 is -0, so adding it
    once at the end gives the same bits.
    """
    if len(columns) & (len(columns) - 1):
        raise ValueError(f"{len(columns)} columns: not a power of two")
    parts, width = list(columns), columns[0].type.count
    while len(parts) > 1:
        parts = [_add_halves_within(e, a, b, width) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        width //= 2
    result = parts[0]
    while width > 1:
        result = _add_halves_within(e, result, None, width)
        width //= 2
    return e.fadd(result, e.zero(result.type))


def _add_halves_within(e: Emitter, a: V, b: V | None, width: int) -> V:
    """Each run of `width` lanes of a, then of b, becomes one of half the width."""
    lanes = a.type.count * (1 if b is None else 2)
    low = [start + lane for start in range(0, lanes, width) for lane in range(width // 2)]
    return e.fadd(e.shuffle(a, b, low), e.shuffle(a, b, [lane + width // 2 for lane in low]))
