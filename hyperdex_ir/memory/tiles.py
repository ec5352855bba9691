"""Tile order: how a matrix lies in HBM, as NumPy arrays (defined in `map.py`)."""

from __future__ import annotations

import numpy as np

from hyperdex_ir.memory.map import ceil_div
from hyperdex_ir.targets import LANES, Target


def tile_view(rows: np.ndarray, trees: int) -> np.ndarray:
    """A matrix [n, k] as its tiles, type `stored` of its format [groups, steps, trees, 64], padded with zeros.

    The result shares memory with the matrix where no padding is needed, so it is not contiguous.
    """
    n, k = rows.shape
    groups, steps = ceil_div(n, trees), ceil_div(k, LANES)
    bits = rows.view(f"<u{rows.itemsize}")
    if (groups * trees, steps * LANES) != (n, k):
        padded = np.zeros((groups * trees, steps * LANES), bits.dtype)
        padded[:n, :k] = bits
        bits = padded
    return bits.reshape(groups, trees, steps, LANES).transpose(0, 2, 1, 3)


def to_tiles(rows: np.ndarray, target: Target) -> np.ndarray:
    """A matrix [n, k] in tile order: contiguous [groups, steps, trees, 64].

    Of several, [experts, n, k], one behind the other: [experts, groups, steps, trees, 64].
    """
    if rows.ndim == 3:
        return np.stack([to_tiles(matrix, target) for matrix in rows])
    return np.ascontiguousarray(tile_view(rows, target.trees))


def from_tiles(tiles: np.ndarray, n: int, k: int) -> np.ndarray:
    """The matrix [n, k] whose tiles [groups, steps, trees, 64] these are."""
    groups, steps, trees, lanes = tiles.shape
    return tiles.transpose(0, 2, 1, 3).reshape(groups * trees, steps * lanes)[:n, :k]
