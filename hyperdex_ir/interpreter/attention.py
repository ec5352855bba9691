"""Attention over a KV cache in tile order: scores, softmax, values. Positions that a row does not see take no part.

Keys of one head are a matrix [positions, size], values a matrix [size, positions], so that both products stream through
the MAC trees. Lanes are absolute positions modulo 64: neither chunking nor the window changes an order of addition.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hyperdex_ir.interpreter.arithmetic import (
    accumulate,
    close_lanes,
    epilogue,
    fold,
    mac,
    pad_lanes,
    products_fit,
    row_sum,
    unary,
)
from hyperdex_ir.isa.formats import BF16, FORMATS
from hyperdex_ir.targets import LANES


@dataclass(frozen=True)
class Span:
    """The positions that the rows of a step see together: first..stop-1. `seen` [rows, stop - first]: those of each
    row."""

    first: int
    stop: int
    seen: np.ndarray

    @property
    def columns(self) -> int:
        return self.stop - self.first

    @property
    def lead(self) -> int:
        """Positions from the start of the first step of 64 to `first`."""
        return self.first % LANES

    def steps(self, x: np.ndarray) -> np.ndarray:
        """[rows, columns] with zeros before and after, as whole steps of absolute positions, [rows, steps, 64]."""
        padded = np.zeros((len(x), self.lead + self.columns), x.dtype)
        padded[:, self.lead :] = x
        return pad_lanes(padded)


def span(position: int, rows: int, window: int) -> Span:
    """Row r, at position + r, sees its own position and those before it; with a window, the last `window` of them."""
    own = position + np.arange(rows)[:, None]
    first = max(0, position - window + 1) if window else 0
    columns = np.arange(first, position + rows)
    seen = columns <= own
    if window:
        seen &= columns > own - window
    return Span(first, position + rows, seen)


def write_keys(tiles: np.ndarray, position: int, rows: np.ndarray) -> None:
    """Row r of rows, [rows, size], becomes matrix row position + r of tiles [groups, steps, trees, 64]."""
    trees = tiles.shape[2]
    where = position + np.arange(len(rows))
    tiles[where // trees, :, where % trees] = pad_lanes(rows)


def write_values(tiles: np.ndarray, position: int, rows: np.ndarray) -> None:
    """Row r of rows, [rows, size], becomes matrix column position + r of tiles [groups, steps, trees, 64]."""
    groups, _, trees, _ = tiles.shape
    where = position + np.arange(len(rows))
    padded = np.zeros((len(rows), groups * trees), rows.dtype)
    padded[:, : rows.shape[1]] = rows
    tiles[:, where // LANES, :, where % LANES] = padded.reshape(len(rows), groups, trees)


def read_keys(tiles: np.ndarray, first: int, stop: int) -> np.ndarray:
    """Matrix rows first..stop-1 of tiles [groups, steps, trees, 64], as [stop - first, steps * 64]."""
    trees = tiles.shape[2]
    where = np.arange(first, stop)
    return tiles[where // trees, :, where % trees].reshape(len(where), -1)


def read_values(tiles: np.ndarray, first: int, stop: int) -> np.ndarray:
    """Matrix columns first..stop-1 of tiles [groups, steps, trees, 64], as [stop - first, groups * trees]."""
    where = np.arange(first, stop)
    return tiles[:, where // LANES, :, where % LANES].reshape(len(where), -1)


def scores(
    query: np.ndarray, keys: np.ndarray, reach: Span, scale: float, softcap: float, matrix_type: str
) -> np.ndarray:
    """Scores of one head, float32 [rows, columns]; they are defined only where `reach.seen`.

    query: uint16 [rows, size], rounded; keys: tiles [groups, steps, trees, 64] of the whole cache.
    """
    trees = keys.shape[2]
    start = reach.first // trees
    part = keys[start : -(-reach.stop // trees)]
    y = mac(part, query, matrix_type)[:, reach.first - start * trees :][:, : reach.columns]
    y = y * np.float32(scale)
    *_, y = epilogue(y, softcap=softcap)
    return y


def bias(slope: np.float32, reach: Span, scale: float, bf16: bool) -> np.ndarray:
    """Bias added to the scores of a head, float32 [rows, columns]: slope * (j - p), with bf16 bf16(slope * bf16(j)) *
    scale."""
    columns, rows = np.arange(reach.first, reach.stop), len(reach.seen)
    if not bf16:
        own = reach.stop - rows + np.arange(rows)[:, None]
        return slope * (columns - own).astype(np.float32)
    product = slope * _as_bf16(columns.astype(np.float32))
    return np.broadcast_to(_as_bf16(product) * np.float32(scale), reach.seen.shape)


def _as_bf16(x: np.ndarray) -> np.ndarray:
    return BF16.load(BF16.round(x))


def softmax(x: np.ndarray, reach: Span, sink: np.float32 | None = None) -> np.ndarray:
    """e = exp(x - max), e / sum over the columns that each row sees; +0 in the others. x: float32 [rows, columns].

    sink: a score without a column, which enters max and sum last.
    """
    most = np.max(x, axis=-1, keepdims=True, where=reach.seen, initial=-np.inf)
    if sink is not None:
        most = np.where(most > sink, most, sink)
    e = np.where(reach.seen, unary("exp", x - most), np.float32(0))
    total = row_sum(reach.steps(e).reshape(len(x), -1))
    return e / (total if sink is None else total + unary("exp", sink - most))


def values(weights: np.ndarray, tiles: np.ndarray, reach: Span, matrix_type: str) -> np.ndarray:
    """The sum of values by weight, float32 [rows, groups * trees].

    weights: uint16 [rows, columns], rounded; tiles: [groups, steps, trees, 64] of the whole cache.
    """
    groups, _, trees, _ = tiles.shape
    x, seen = reach.steps(weights), reach.steps(reach.seen)
    start = reach.first // LANES
    part = tiles[:, start : start + x.shape[1]]
    exact = products_fit(part, x, matrix_type)
    activations, cache = (FORMATS[matrix_type].load(bits) for bits in (x, part))
    lanes = np.zeros((len(weights), groups, trees, LANES), np.float32)
    for step in range(x.shape[1]):
        # A position that is not seen gives +0, whatever the cache holds there.
        visible = np.where(seen[:, step, None, None, :], cache[:, step], np.float32(0))
        accumulate(lanes, visible, activations[:, step, None, None, :], exact)
    return fold(close_lanes(lanes, exact)).reshape(len(weights), groups * trees)
