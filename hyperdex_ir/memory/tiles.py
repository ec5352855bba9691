"""Tile order, the order of a matrix in HBM (defined in `map.py`), as NumPy arrays."""

from __future__ import annotations

import numpy as np

from hyperdex_ir.memory.map import ceil_div
from hyperdex_ir.targets import LANES, Target


def tile_view(rows: np.ndarray, trees: int) -> np.ndarray:
    """Tiles of a matrix [n, k]: [groups, steps, trees, 64] in type `stored` of its format, padded with zeros.

    The result shares memory with the matrix when no padding is needed, so it is not contiguous.
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

    Several matrices, [experts, n, k], follow one another: [experts, groups, steps, trees, 64].
    """
    if rows.ndim == 3:
        return np.stack([to_tiles(matrix, target) for matrix in rows])
    return np.ascontiguousarray(tile_view(rows, target.trees))


def from_tiles(tiles: np.ndarray, n: int, k: int) -> np.ndarray:
    """The matrix [n, k] with these tiles [groups, steps, trees, 64]."""
    groups, steps, trees, lanes = tiles.shape
    return tiles.transpose(0, 2, 1, 3).reshape(groups * trees, steps * lanes)[:n, :k]
