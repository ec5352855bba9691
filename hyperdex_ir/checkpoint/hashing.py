"""Tensors that are hashed while they are read: who reads all of a tensor in order knows its hash without a second look.

A matrix that is taken the other way round is read, and hashed, by columns. What has been read before is not hashed
again; what was never reached in order (slices that a model stores in another order than the checkpoint) is read at the
end for its hash alone.
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
    """A tensor as a checkpoint stores it, and the hash of what of it has been read.

    order: in which it is hashed, that of the first reading; empty as long as there was none.
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
        """How many bytes `sha256` will read."""
        return (self._count - self._next) * self._line_bytes

    def sha256(self, advance: Callable[[int], None] = lambda count: None) -> str:
        """The hash of all of it in its order; what has not been read in that order is read now, some at a time.

        advance: told of bytes read. Raises CheckpointError when they cannot be read.
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
