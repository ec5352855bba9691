"""Values in the LMU: the words of a buffer's rows that hold a value, and their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from xdsl.ir import SSAValue

from hyperdex_ir.dialects.isa import ViewUse, buffer_type

#: The largest step from column to column that an instruction can take.
MAX_COLUMN_STRIDE = 3


def contiguous_strides(dims: Sequence[int]) -> tuple[int, ...]:
    """Strides of row-major elements without gaps."""
    return tuple(prod(dims[i + 1 :]) for i in range(len(dims)))


@dataclass(frozen=True)
class View:
    """A value of which each row lies in a row of a buffer: element i, j, ... at word `offset + i*strides[0] + ...`.

    dims leave out the token dimension. A buffer with one row holds a value that is the same for all tokens.
    """

    buffer: SSAValue
    offset: int
    dims: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def rows(self) -> int | str:
        """`tokens`, `head`, or 1."""
        return buffer_type(self.buffer).rows

    @property
    def columns(self) -> int:
        """Elements in a row."""
        return prod(self.dims)

    @property
    def is_contiguous(self) -> bool:
        """True if a row's elements lie one after another."""
        merged = merge_dims(self.dims, [self.strides])
        return not merged or (len(merged) == 1 and merged[0].strides == (1,))

    @property
    def is_front(self) -> bool:
        """True if the value is all of its buffer, in order, except padding behind it."""
        return self.offset == 0 and self.is_contiguous

    def reshaped(self, dims: Sequence[int]) -> View | None:
        """The same elements in the same order with other dimensions; None when no strides describe that."""
        left = [(dim.extent, dim.strides[0]) for dim in merge_dims(self.dims, [self.strides])]
        strides: list[int] = []
        for extent in dims:
            if extent == 1:
                strides.append(0)
                continue
            if not left or left[0][0] % extent:
                return None
            size, stride = left.pop(0)
            strides.append(stride * (size // extent))
            if size != extent:
                left.insert(0, (size // extent, stride))
        return View(self.buffer, self.offset, tuple(dims), tuple(strides))

    def sliced(self, dim: int, start: int, step: int, extent: int) -> View:
        """Every step-th index of one dimension from `start` on."""
        dims, strides = list(self.dims), list(self.strides)
        offset = self.offset + start * strides[dim]
        dims[dim], strides[dim] = extent, strides[dim] * step
        return View(self.buffer, offset, tuple(dims), tuple(strides))

    def permuted(self, order: Sequence[int]) -> View:
        """The dimensions in another order."""
        return View(self.buffer, self.offset, tuple(self.dims[i] for i in order), tuple(self.strides[i] for i in order))

    def broadcast(self, dims: Sequence[int]) -> View:
        """Repeated up to the dimensions given, by strides of 0."""
        extents, strides = self.dims, self.strides
        while len(extents) > len(dims):  # a leading 1 that stood for the tokens
            extents, strides = extents[1:], strides[1:]
        missing = len(dims) - len(extents)
        padded = (1,) * missing + extents
        steps = (0,) * missing + strides
        steps = tuple(0 if extent == 1 else step for extent, step in zip(padded, steps, strict=True))
        return View(self.buffer, self.offset, tuple(dims), steps)


@dataclass(frozen=True)
class Dim:
    """One loop over elements: the number of trips, and the step of each of several views."""

    extent: int
    strides: tuple[int, ...]


def merge_dims(dims: Sequence[int], strides: Sequence[Sequence[int]]) -> list[Dim]:
    """The fewest loops that visit the same elements of every view in the same order."""
    merged: list[Dim] = []
    for i, extent in enumerate(dims):
        if extent == 1:
            continue
        steps = tuple(s[i] for s in strides)
        if merged and merged[-1].strides == tuple(step * extent for step in steps):
            merged[-1] = Dim(merged[-1].extent * extent, steps)
        else:
            merged.append(Dim(extent, steps))
    return merged


@dataclass(frozen=True)
class Block2D:
    """A part of an elementwise operation that one instruction can do: groups x columns, a use for each view."""

    groups: int
    columns: int
    uses: tuple[ViewUse, ...]


def elementwise_blocks(dims: Sequence[int], views: Sequence[View]) -> Iterator[Block2D]:
    """Cuts an elementwise operation over views of equal dims into instructions; the order of elements is free."""
    loops = merge_dims(dims, [view.strides for view in views])
    columns = _take_columns(loops, len(views))
    groups = _take_groups(loops, len(views))
    for indices in product(*(range(loop.extent) for loop in loops)):
        uses = []
        for number, view in enumerate(views):
            offset = view.offset + sum(i * loop.strides[number] for i, loop in zip(indices, loops, strict=True))
            uses.append(
                ViewUse(
                    view.buffer,
                    offset,
                    group_stride=groups.strides[number] if groups.extent > 1 else 0,
                    column_stride=columns.strides[number],
                )
            )
        yield Block2D(groups.extent, columns.extent, tuple(uses))


def row_blocks(views: Sequence[View], columns: Sequence[View]) -> Iterator[tuple[int, tuple[ViewUse, ...]]]:
    """For operations on whole rows of columns: (groups, uses). `views` leave out the column dimension, `columns` have
    it last."""
    loops = merge_dims(views[0].dims, [view.strides for view in views])
    groups = _take_groups(loops, len(views))
    for indices in product(*(range(loop.extent) for loop in loops)):
        uses = []
        for number, (view, whole) in enumerate(zip(views, columns, strict=True)):
            offset = view.offset + sum(i * loop.strides[number] for i, loop in zip(indices, loops, strict=True))
            step = whole.strides[-1] if whole.dims[-1] > 1 else 1
            stride = groups.strides[number] if groups.extent > 1 else 0
            uses.append(ViewUse(view.buffer, offset, group_stride=stride, column_stride=step))
        yield groups.extent, tuple(uses)


def _take_columns(loops: list[Dim], views: int) -> Dim:
    """Takes out the last loop whose steps an instruction's columns can take."""
    for place in reversed(range(len(loops))):
        if max(loops[place].strides) <= MAX_COLUMN_STRIDE:
            return loops.pop(place)
    return Dim(1, (1,) * views)


def _take_groups(loops: list[Dim], views: int) -> Dim:
    """Takes out the longest loop; the first of equals."""
    if not loops:
        return Dim(1, (0,) * views)
    return loops.pop(max(range(len(loops)), key=lambda place: loops[place].extent))
