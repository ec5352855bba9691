"""Tensors that are read some rows at a time from any kind of file, and tensors composed of others.

A row is an index of the first dimension; a tensor without dimensions is one row. Elements are returned as the format
stores them: bfloat16 as uint16 bit patterns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol, runtime_checkable

import numpy as np

from hyperdex_ir.checkpoint.values import are_equal
from hyperdex_ir.errors import CheckpointError
from hyperdex_ir.isa.formats import PUBLISHED

#: Bytes of a matrix that are in memory while it is transposed.
_TURNED_BYTES = 8 << 20


class Tensor(Protocol):
    """A stored or composed tensor.

    dtype: a name of PUBLISHED. names: the tensors of the checkpoint that it is made of, in order.
    """

    @property
    def dtype(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def names(self) -> tuple[str, ...]: ...

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows start..stop-1. Raises CheckpointError when they cannot be read."""
        ...


@runtime_checkable
class ByColumns(Protocol):
    """A matrix whose columns can be read without reading the others."""

    def columns(self, start: int, stop: int) -> np.ndarray:
        """Columns start..stop-1 of all rows. Raises CheckpointError when they cannot be read."""
        ...


def read(tensor: Tensor) -> np.ndarray:
    """The whole tensor."""
    return tensor.rows(0, row_count(tensor))


def row_count(tensor: Tensor) -> int:
    return tensor.shape[0] if tensor.shape else 1


def row_bytes(tensor: Tensor) -> int:
    """Bytes of one row."""
    return PUBLISHED[tensor.dtype].bytes_of(prod(tensor.shape[1:]))


def _names(parts: Sequence[Tensor]) -> tuple[str, ...]:
    return tuple(name for part in parts for name in part.names)


@dataclass(frozen=True)
class Stacked:
    """Stack of tensors of one shape and type: each is one row."""

    parts: tuple[Tensor, ...]

    @property
    def dtype(self) -> str:
        return self.parts[0].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.parts), *self.parts[0].shape

    @property
    def names(self) -> tuple[str, ...]:
        return _names(self.parts)

    def rows(self, start: int, stop: int) -> np.ndarray:
        out = np.empty((stop - start, *self.shape[1:]), PUBLISHED[self.dtype].dtype)
        for row, part in zip(out, self.parts[start:stop], strict=True):
            row[...] = read(part)
        return out


@dataclass(frozen=True)
class Concatenated:
    """Concatenation of tensors of one type along a dimension."""

    parts: tuple[Tensor, ...]
    dim: int

    @property
    def dtype(self) -> str:
        return self.parts[0].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        first = self.parts[0].shape
        return (*first[: self.dim], sum(part.shape[self.dim] for part in self.parts), *first[self.dim + 1 :])

    @property
    def names(self) -> tuple[str, ...]:
        return _names(self.parts)

    def rows(self, start: int, stop: int) -> np.ndarray:
        if self.dim:
            return np.concatenate([part.rows(start, stop) for part in self.parts], axis=self.dim)
        pieces = [np.empty((0, *self.shape[1:]), PUBLISHED[self.dtype].dtype)]
        first = 0
        for part in self.parts:
            count = part.shape[0]
            low, high = max(start - first, 0), min(stop - first, count)
            if low < high:
                pieces.append(part.rows(low, high))
            first += count
        return np.concatenate(pieces)


@dataclass(frozen=True)
class Sliced:
    """Slice of a tensor: indices start..stop-1 of one dimension."""

    whole: Tensor
    dim: int
    start: int
    stop: int

    @property
    def dtype(self) -> str:
        return self.whole.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        shape = self.whole.shape
        return (*shape[: self.dim], self.stop - self.start, *shape[self.dim + 1 :])

    @property
    def names(self) -> tuple[str, ...]:
        return self.whole.names

    def rows(self, start: int, stop: int) -> np.ndarray:
        if self.dim == 0:
            return self.whole.rows(self.start + start, self.start + stop)
        return self.whole.rows(start, stop)[(slice(None),) * self.dim + (slice(self.start, self.stop),)]


@dataclass(frozen=True)
class Transposed:
    """A transposed matrix; columns of the original are read directly, or gathered some rows at a time."""

    whole: Tensor

    @property
    def dtype(self) -> str:
        return self.whole.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.whole.shape[::-1]

    @property
    def names(self) -> tuple[str, ...]:
        return self.whole.names

    def rows(self, start: int, stop: int) -> np.ndarray:
        if isinstance(self.whole, ByColumns):
            return np.ascontiguousarray(self.whole.columns(start, stop).T)
        out = np.empty((stop - start, self.whole.shape[0]), PUBLISHED[self.dtype].dtype)
        step = max(_TURNED_BYTES // max(row_bytes(self.whole), 1), 1)
        for first in range(0, self.whole.shape[0], step):
            last = min(first + step, self.whole.shape[0])
            out[:, first:last] = self.whole.rows(first, last)[:, start:stop].T
        return out


@dataclass(frozen=True)
class Rearranged:
    """A tensor each row of which is a function of the same row of other tensors. shape: that of the result.

    function: (the rows of each part, in order) -> as many rows of `dtype`.
    """

    parts: tuple[Tensor, ...]
    dtype: str
    shape: tuple[int, ...]
    function: Callable[..., np.ndarray]

    @property
    def names(self) -> tuple[str, ...]:
        return _names(self.parts)

    def rows(self, start: int, stop: int) -> np.ndarray:
        return self.function(*(part.rows(start, stop) for part in self.parts))


@dataclass(frozen=True)
class Same:
    """A tensor that is stored twice, with the same shape; the two are compared while the first is read.

    matrix_type: the type that they are compared in. fault: message and hint for the error when they differ.
    """

    first: Tensor
    second: Tensor
    matrix_type: str
    fault: tuple[str, str]

    @property
    def dtype(self) -> str:
        return self.first.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.first.shape

    @property
    def names(self) -> tuple[str, ...]:
        return self.first.names

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows start..stop-1. Raises CheckpointError when the two tensors differ in them."""
        values = self.first.rows(start, stop)
        if not are_equal((values, self.second.rows(start, stop)), (self.dtype, self.second.dtype), self.matrix_type):
            raise CheckpointError(*self.fault)
        return values


def transposed(tensor: Tensor) -> Tensor:
    """The tensor with its last two dimensions swapped."""
    if len(tensor.shape) == 2:
        return Transposed(tensor)
    *others, first, second = tensor.shape
    return Rearranged((tensor,), tensor.dtype, (*others, second, first), lambda rows: np.swapaxes(rows, -2, -1))
