"""HBM: one linear byte array, its parameters written once, its run-time area (KV caches, tokens, logits) tracked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hyperdex_ir.errors import COMPILE_AGAIN, CheckpointError, FileFormatError, MachineFault
from hyperdex_ir.isa.faults import Fault, Forbidden
from hyperdex_ir.isa.formats import ELEMENTS, ITEM_BYTES
from hyperdex_ir.memory.layout import ModelLayout, Parameter
from hyperdex_ir.memory.map import MemoryMap, ceil_div
from hyperdex_ir.memory.shards import local_rows
from hyperdex_ir.memory.tiles import to_tiles
from hyperdex_ir.support.files import Kind, read_binary
from hyperdex_ir.targets import BEAT_BYTES, LANES

_CELL = ITEM_BYTES  # bytes that one flag of `written` covers


class Hbm:
    """The HBM of one device. `map` gives the addresses; the run-time area is `map.parameter_end` to `map.end`."""

    def __init__(self, memory_map: MemoryMap):
        self.map = memory_map
        try:
            self.bytes = np.zeros(memory_map.end, np.uint8)
        except MemoryError:
            raise MachineFault(Fault.HBM_MEMORY.text(bytes=memory_map.end)) from None
        self._written = np.zeros(ceil_div(memory_map.end - memory_map.parameter_end, _CELL), bool)

    @classmethod
    def from_images(cls, paths: Sequence[Path], memory_map: MemoryMap) -> Hbm:
        """Reads the parameter images of a device's channels, in channel order.

        Raises FileFormatError when an image is missing, corrupted, or not of the size that the map says.
        """
        hbm, channels = cls(memory_map), memory_map.target.channels
        if len(paths) != channels:
            raise FileFormatError(f"{len(paths)} parameter images, {memory_map.target.name} has {channels} channels")
        stripes = hbm.bytes[: memory_map.parameter_end].reshape(-1, channels, BEAT_BYTES)
        for channel, path in enumerate(paths):
            size = stripes[:, channel].size
            payload = read_binary(path, Kind.PARAMETERS, most=size)
            if len(payload) != size:
                raise FileFormatError(f"{path}: {len(payload)} bytes, the memory map says {size}", COMPILE_AGAIN)
            stripes[:, channel] = np.frombuffer(payload, np.uint8).reshape(-1, BEAT_BYTES)
        return hbm

    @classmethod
    def from_parameters(
        cls, memory_map: MemoryMap, layout: ModelLayout, get: Callable[[str], np.ndarray], device: int = 0
    ) -> Hbm:
        """Builds the HBM of one device in memory. `get(key)`: the whole tensor, type `dtype` or `stored` of its
        elements. `get` is not called for keys whose values the layout has.

        Raises CheckpointError when a tensor does not have the parameter's shape or type.
        """
        hbm = cls(memory_map)
        for parameter in layout.parameters():
            rows = _parameter_rows(parameter, get, device)
            data = to_tiles(rows, memory_map.target) if parameter.is_matrix else rows
            address = memory_map.addresses[parameter.name]
            hbm.bytes[address : address + data.nbytes] = data.reshape(-1).view(np.uint8)
        return hbm

    def view(self, address: int, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
        """The array at a byte address, sharing memory.

        Raises Forbidden outside HBM, off the element's grid, and for an array that lies partly in the parameters.
        """
        item = np.dtype(dtype).itemsize
        size = item
        for extent in shape:
            size *= extent
        if address < 0 or address + size > self.map.end:
            raise Forbidden(Fault.HBM, first=address, last=address + size - 1, end=self.map.end)
        if address % item:
            raise Forbidden(Fault.HBM_ALIGNMENT, address=address, item=item)
        if address < self.map.parameter_end < address + size:
            raise Forbidden(Fault.HBM_STRADDLE, first=address, last=address + size - 1, end=self.map.parameter_end)
        return np.ndarray(shape, dtype, self.bytes.data, address)

    def tiles(self, address: int, rows: int, columns: int) -> np.ndarray:
        """The tiles of a matrix [rows, columns], uint16 [groups, steps, trees, 64], sharing memory.

        Raises Forbidden as `view`, and when the matrix does not start on a stripe.
        """
        tiles = self.view(address, self._tiles_shape(rows, columns), np.uint16)
        if address % self.map.target.stripe_bytes:
            raise Forbidden(Fault.HBM_STRIPE, address=address, stripe=self.map.target.stripe_bytes)
        return tiles

    def flags(self, address: int, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
        """Written flags of a run-time array's elements, bool of that shape, sharing memory.

        An element wider than those of matrices counts by its first flag. Raises Forbidden when the array begins in the
        parameters.
        """
        self.view(address, shape, dtype)
        if address < self.map.parameter_end:
            raise Forbidden(Fault.HBM_PARAMETER, address=address, end=self.map.parameter_end)
        step = np.dtype(dtype).itemsize // _CELL
        strides: list[int] = []
        for extent in reversed(shape):
            strides.insert(0, step)
            step *= extent
        start = (address - self.map.parameter_end) // _CELL
        return np.ndarray(shape, bool, self._written.data, start, tuple(strides))

    def tile_flags(self, address: int, rows: int, columns: int) -> np.ndarray:
        """`flags` for the tiles of a matrix."""
        self.tiles(address, rows, columns)
        return self.flags(address, self._tiles_shape(rows, columns), np.uint16)

    def read(self, address: int, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
        """As `view`; in the run-time area all of the array must have been written. Raises Forbidden."""
        data = self.view(address, shape, dtype)
        if address >= self.map.parameter_end and not self.flags(address, shape, dtype).all():
            raise Forbidden(Fault.HBM_UNWRITTEN, first=address, last=address + data.nbytes - 1)
        return data

    def write(self, address: int, data: np.ndarray) -> None:
        """Writes to the run-time area. Raises Forbidden outside it."""
        self.flags(address, data.shape, data.dtype.type)[...] = True
        self.view(address, data.shape, data.dtype.type)[...] = data

    def _tiles_shape(self, rows: int, columns: int) -> tuple[int, int, int, int]:
        trees = self.map.target.trees
        return ceil_div(rows, trees), ceil_div(columns, LANES), trees, LANES


def _parameter_rows(parameter: Parameter, get: Callable[[str], np.ndarray], device: int) -> np.ndarray:
    kind = ELEMENTS[parameter.dtype]
    if parameter.values is not None:
        return np.array(parameter.values, kind.dtype).reshape(parameter.shape)
    rows = local_rows(parameter, get, device)
    if rows.shape != parameter.shape:
        raise CheckpointError(f"{parameter.name}: shape {list(rows.shape)}, expected {list(parameter.shape)}")
    if rows.dtype not in (kind.dtype, kind.stored):
        raise CheckpointError(f"{parameter.name}: dtype {rows.dtype}, expected {parameter.dtype}")
    return np.ascontiguousarray(rows)
