"""Tensors that hash themselves while being read; one sequential read is enough.

A transposed matrix is read, and hashed, by columns. Elements that have been hashed are not hashed again when they are
read again. Elements that were never reached in order (slices that a model stores in another order than the checkpoint)
are read at the end, for the hash only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from hyperdex_ir.checkpoint.tensors import ByColumns, Tensor, row_bytes, row_count
from hyperdex_ir.errors import CheckpointError
from hyperdex_ir.isa.formats import PUBLISHED

#: The orders in which a tensor's elements can be hashed.
ROWS, COLUMNS = "rows", "columns"
_BLOCK_BYTES = 1 << 20


class Watched:
    """A tensor as a checkpoint stores it, and the hash of the part that has been read.

    order: ROWS or COLUMNS, set by the first read unless given; "" before.
    """

    def __init__(self, tensor: Tensor, order: str = ""):
        """Raises CheckpointError when the tensor has no such order."""
        self.tensor = tensor
        self.order = order
        self._digest = hashlib.sha256()
        self._next = 0
        if order not in (ROWS, COLUMNS if len(tensor.shape) == 2 else ROWS, ""):
            raise CheckpointError(f"{tensor.names[0]}: no tensor of shape {list(tensor.shape)} is read by {order!r}")

    @property
    def dtype(self) -> str:
        return self.tensor.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape

    @property
    def names(self) -> tuple[str, ...]:
        return self.tensor.names

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows start..stop-1. Raises CheckpointError when they cannot be read."""
        values = self.tensor.rows(start, stop)
        self._see(ROWS, start, values)
        return values

    def columns(self, start: int, stop: int) -> np.ndarray:
        """Columns start..stop-1 of a matrix. Raises CheckpointError when they cannot be read."""
        assert isinstance(self.tensor, ByColumns)
        values = self.tensor.columns(start, stop)
        self._see(COLUMNS, start, values.T)
        return values

    def _see(self, order: str, start: int, lines: np.ndarray) -> None:
        self.order = self.order or order
        seen = self._next - start
        if order == self.order and 0 <= seen < len(lines):
            self._digest.update(np.ascontiguousarray(lines[seen:]).data)
            self._next = start + len(lines)

    @property
    def unseen_bytes(self) -> int:
        """Number of bytes that `sha256` will read."""
        return (self._count - self._next) * self._line_bytes

    def sha256(self, advance: Callable[[int], None] = lambda count: None) -> str:
        """The hash of the whole tensor in its order; the part that has not been hashed is read now, block by block.

        advance: called with the number of bytes read. Raises CheckpointError when they cannot be read.
        """
        read = self.columns if self.order == COLUMNS else self.rows
        step = max(_BLOCK_BYTES // max(self._line_bytes, 1), 1)
        while self._next < self._count:
            start, stop = self._next, min(self._next + step, self._count)
            read(start, stop)
            advance((stop - start) * self._line_bytes)
        return self._digest.hexdigest()

    @property
    def _count(self) -> int:
        return self.shape[1] if self.order == COLUMNS else row_count(self)

    @property
    def _line_bytes(self) -> int:
        """Bytes of a row, or of a column."""
        if self.order == COLUMNS:
            return PUBLISHED[self.dtype].bytes_of(self.shape[0])
        return row_bytes(self)
