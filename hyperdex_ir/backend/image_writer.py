"""One parameter of one device: assembled from rows in any order, and distributed over the channels' images.

HBM is filled in whole groups: `trees` rows of a matrix, one stripe of anything else. A group is written as soon as all
its units (rows of a matrix, bytes of anything else) are there; only incomplete groups are kept in memory. The matrix of
each of several experts starts with a group of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from hyperdex_ir.backend.payload import BLOCK_BYTES, PlacedWriter
from hyperdex_ir.isa.formats import ELEMENTS
from hyperdex_ir.memory.layout import Parameter
from hyperdex_ir.memory.map import ceil_div, matrix_bytes
from hyperdex_ir.memory.tiles import tile_view
from hyperdex_ir.targets import BEAT_BYTES, STREAM_LANES, Target


def matrix_beats(rows: np.ndarray, target: Target) -> np.ndarray:
    """Rows [n, k] of a matrix as the beats of each channel: [channels, groups * steps * STREAM_LANES].

    n must be a multiple of the target's trees, except for a matrix's last rows.
    """
    tiles = tile_view(rows, target.trees)
    groups, steps, trees, lanes = tiles.shape
    split = tiles.reshape(groups, steps, trees, lanes // STREAM_LANES, STREAM_LANES)
    return np.ascontiguousarray(split.transpose(2, 3, 0, 1, 4)).reshape(target.channels, -1)


def vector_beats(data: np.ndarray, target: Target) -> np.ndarray:
    """Bytes, uint8 [n], as the beats of each channel, padded with zeros to whole stripes: uint8 [channels, m]."""
    stripes = ceil_div(len(data), target.stripe_bytes)
    padded = np.zeros(stripes * target.stripe_bytes, np.uint8)
    padded[: len(data)] = data
    beats = padded.reshape(stripes, target.channels, BEAT_BYTES)
    return np.ascontiguousarray(beats.transpose(1, 0, 2)).reshape(target.channels, -1)


class Assembler:
    """A parameter of one device, on its way to the images of that device's channels.

    address: where it begins in HBM. `missing` is the number of units that have not come yet.
    """

    def __init__(self, parameter: Parameter, address: int, target: Target, writers: Sequence[PlacedWriter]):
        self.parameter = parameter
        self._target = target
        self._writers = writers
        self._address = address
        if parameter.is_matrix:
            *experts, self._units, columns = parameter.shape
            self._unit, self._dtype = (columns,), ELEMENTS[parameter.dtype].stored
            self._group, self._group_bytes = target.trees, matrix_bytes(1, columns, parameter.dtype, target)
            self._matrices = prod(experts)
            self.row_units = self._padded if experts else 1
            self._column_units = 1
        else:
            bytes_of = ELEMENTS[parameter.dtype].bytes_of
            self._units = bytes_of(prod(parameter.shape))
            self._unit, self._dtype = (), np.dtype(np.uint8)
            self._group = self._group_bytes = target.stripe_bytes
            self._matrices = 1
            self.row_units = bytes_of(prod(parameter.shape[1:]))
            self._column_units = bytes_of(prod(parameter.shape[2:]))
        self.missing = self._units * self._matrices
        self._kept: dict[int, tuple[np.ndarray, int]] = {}  # by group: its units, and how many of them are there

    @property
    def _padded(self) -> int:
        """Units from a matrix to the next one: its own, and padding to a whole group."""
        return ceil_div(self._units, self._group) * self._group

    def put_columns(self, row: int, column: int, part: np.ndarray) -> None:
        """Takes a part of the rows from `row` on that begins at `column`: storage type, [rows, columns, ...].

        In the matrices [experts, n, k] of experts, a row is an expert, and the columns are the n rows of its matrix.
        """
        for number, columns in enumerate(part, row):
            data = np.ascontiguousarray(columns).view(self._dtype).reshape(-1, *self._unit)
            self._put(number * self.row_units + column * self._column_units, data)

    def put_rows(self, row: int, rows: np.ndarray) -> None:
        """Takes rows from `row` on, in storage type, [rows, ...]."""
        if self.parameter.is_matrix and rows.ndim == 3:
            self.put_columns(row, 0, rows)
            return
        data = np.ascontiguousarray(rows).view(self._dtype).reshape(-1, *self._unit)
        self._put(row * self.row_units, data)

    def put_zeros(self, row: int, count: int) -> None:
        """Takes `count` rows of zeros from `row` on."""
        start, stop = row * self.row_units, (row + count) * self.row_units
        step = max(BLOCK_BYTES // (self._group_bytes // self._group), 1)
        for first in range(start, stop, step):
            self._put(first, np.zeros((min(step, stop - first), *self._unit), self._dtype))

    def _put(self, start: int, units: np.ndarray) -> None:
        """Takes units from `start` on: writes whole groups at once, and keeps the units before and behind them."""
        self.missing -= len(units)
        head = min(-start % self._group, len(units))
        whole = (len(units) - head) // self._group * self._group
        self._keep(start, units[:head])
        if whole:
            self._write((start + head) // self._group, units[head : head + whole])
        self._keep(start + head + whole, units[head + whole :])

    def _keep(self, start: int, units: np.ndarray) -> None:
        if not len(units):
            return
        group, place = divmod(start, self._group)
        buffer, count = self._kept.pop(group, None) or (np.zeros((self._group, *self._unit), self._dtype), 0)
        buffer[place : place + len(units)] = units
        if count + len(units) == min(self._group, self._units - group * self._group % self._padded):
            self._write(group, buffer)
        else:
            self._kept[group] = buffer, count + len(units)

    def _write(self, group: int, units: np.ndarray) -> None:
        beats = (matrix_beats if self.parameter.is_matrix else vector_beats)(units, self._target)
        offset = (self._address + group * self._group_bytes) // self._target.channels
        for writer, channel in zip(self._writers, beats, strict=True):
            writer.write(offset, channel)
