"""Tensors as the blocks of rows that a checkpoint is read in."""

from __future__ import annotations


def blocks_of(tensors, rows: int = 5):
    def blocks(key: str):
        dtype, values = tensors[key]
        for start in range(0, len(values), rows):
            yield dtype, values[start : start + rows]

    return blocks
