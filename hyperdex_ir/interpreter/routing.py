"""Choice of experts by a router, on NumPy arrays: docs/arithmetic.md, routed experts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hyperdex_ir.isa.faults import Fault, Forbidden


def check_choice(columns: int, k: int, groups: int, top_groups: int) -> None:
    """Raises Forbidden when k of so many columns cannot be chosen from `top_groups` of equal groups."""
    equal = groups >= 1 and columns % groups == 0 and (groups == 1 or columns >= 2 * groups)
    if not equal or not 1 <= top_groups <= groups or not 1 <= k <= columns // groups * top_groups:
        raise Forbidden(Fault.CHOICE, k=k, columns=columns, top_groups=top_groups, groups=groups)


def top_k(scores: np.ndarray, k: int, groups: int = 1, top_groups: int = 1) -> np.ndarray:
    """The columns of the k largest of each row, the largest first; int64 [rows, k]. scores: float32 [rows, columns].

    Of equal numbers the lowest column comes first. The arguments must pass `check_choice`.
    """
    if groups == 1:
        return _largest(scores, np.ones(scores.shape, bool), k)
    rows, size = len(scores), scores.shape[1] // groups
    members = scores.reshape(rows * groups, size)
    pairs = np.take_along_axis(members, _largest(members, np.ones(members.shape, bool), 2), axis=1)
    sums = (pairs[:, 0] + pairs[:, 1]).reshape(rows, groups)
    chosen = np.zeros((rows, groups), bool)
    np.put_along_axis(chosen, _largest(sums, np.ones(sums.shape, bool), top_groups), True, axis=1)
    return _largest(scores, np.repeat(chosen, size, axis=1), k)


def _largest(x: np.ndarray, allowed: np.ndarray, count: int) -> np.ndarray:
    """The columns of the `count` largest of those allowed, in order; int64 [rows, count]."""
    if np.isnan(x).any():
        return np.array([list(_walk(*row, count)) for row in zip(x, allowed, strict=True)], np.int64)
    order = np.argsort(-x, axis=1, kind="stable")
    kept = np.take_along_axis(allowed, order, axis=1)
    first = np.argsort(~kept, axis=1, kind="stable")[:, :count]  # those allowed, in their order
    return np.take_along_axis(order, first, axis=1)


def _walk(x: np.ndarray, allowed: np.ndarray, count: int) -> Iterator[int]:
    """Columns chosen one after another, as the definition says: a NaN is chosen when it comes first, and never
    later."""
    left = [column for column, is_allowed in enumerate(allowed) if is_allowed]
    for _ in range(count):
        best = left[0]
        for column in left:
            best = column if x[column] > x[best] else best
        left.remove(best)
        yield best


def column_numbers(words: np.ndarray, limit: int) -> np.ndarray:
    """Column numbers, int64, that words of the LMU, float32 [rows, k], stand for.

    Raises Forbidden for a word that is not an integer in 0..limit-1.
    """
    valid = (words >= 0) & (words < limit) & (words == np.trunc(words))
    if not valid.all():
        row, rank = np.unravel_index(int(np.argmin(valid)), valid.shape)
        raise Forbidden(Fault.COLUMN_NUMBER, rank=rank, row=row, limit=limit)
    return words.astype(np.int64)
