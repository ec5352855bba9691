"""The HBM of the native executor: parameter images mapped from their files, and a run-time area of its own."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hyperdex_ir.errors import COMPILE_AGAIN, FileFormatError, MachineFault
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.isa.faults import Fault
from hyperdex_ir.memory.map import MemoryMap
from hyperdex_ir.native.context import Region
from hyperdex_ir.support.files import HEADER_BYTES
from hyperdex_ir.support.reading import open_regular
from hyperdex_ir.targets import BEAT_BYTES


class NativeMemory:
    """One device's HBM in this process's memory: two regions of addresses, see `context.Region`."""

    def __init__(self, memory_map: MemoryMap, parameters: Region, runtime: Region, owners: Sequence[Any]):
        self.map = memory_map
        self.parameters, self.runtime = parameters, runtime
        self._owners = list(owners)  # these objects keep the memory alive
        self._files: list[tuple[Path, mmap.mmap]] = []

    @classmethod
    def from_images(cls, paths: Sequence[Path], memory_map: MemoryMap) -> NativeMemory:
        """Maps the parameter images of a device's channels, in channel order; nothing is read.

        A process that may write the files can change the results of a step, as a private mapping shows later changes of
        the files. It cannot change which memory the step touches: compiled code reads the numbers that decide about
        that only once (`Operation.agreed`).

        Raises FileFormatError when an image is missing or not of the size that the map says.
        """
        channels = memory_map.target.channels
        if len(paths) != channels:
            raise FileFormatError(f"{len(paths)} parameter images, {memory_map.target.name} has {channels} channels")
        files = [_map_image(path, memory_map.parameter_end // channels) for path in paths]
        images = [np.frombuffer(file, np.uint8) for file in files]
        pointers, table = _pointer_table([image.ctypes.data + HEADER_BYTES for image in images])
        parameters = Region(0, memory_map.parameter_end, table, BEAT_BYTES)
        runtime, area = _runtime_area(memory_map)
        memory = cls(memory_map, parameters, runtime, [images, pointers, area])
        memory._files = list(zip(paths, files, strict=True))
        return memory

    @classmethod
    def from_hbm(cls, hbm: Hbm) -> NativeMemory:
        """The memory of the interpreter's HBM, shared."""
        memory_map, base = hbm.map, hbm.bytes.ctypes.data
        parameters, first = _linear(memory_map, base, 0, memory_map.parameter_end)
        start = memory_map.parameter_end
        runtime, second = _linear(memory_map, base + start, start, memory_map.end)
        return cls(memory_map, parameters, runtime, [hbm, first, second])

    def check_files(self) -> None:
        """Raises FileFormatError when a mapped image has become shorter: reading the missing part would end the
        process."""
        for path, file in self._files:
            if (size := file.size()) < len(file):
                raise FileFormatError(f"{path}: {size} bytes, {len(file)} when the model was opened", COMPILE_AGAIN)

    def read(self, address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """A copy of an array in the run-time area. Raises MachineFault outside it."""
        return self._array(address, shape, dtype).copy()

    def write(self, address: int, data: np.ndarray) -> None:
        """Writes to the run-time area. Raises MachineFault outside it."""
        self._array(address, data.shape, data.dtype)[...] = data

    def _array(self, address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array in the run-time area, which is linear: it begins where channel 0 begins."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if not self.runtime.begin <= address <= self.runtime.end - size:
            begin, end = self.runtime.begin, self.runtime.end - 1
            raise MachineFault(Fault.RUN_TIME_AREA.text(first=address, last=address + size - 1, begin=begin, end=end))
        base = ctypes.c_void_p.from_address(self.runtime.channels).value or 0
        raw: Any = (ctypes.c_char * size).from_address(base + address - self.runtime.begin)
        return np.frombuffer(raw, dtype).reshape(shape)


def _map_image(path: Path, payload: int) -> mmap.mmap:
    """A parameter image, header included."""
    try:
        with open_regular(path, FileFormatError, COMPILE_AGAIN) as file:
            image = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise FileFormatError(f"{path}: no such file", COMPILE_AGAIN) from None
    except ValueError:  # an empty file cannot be mapped
        raise FileFormatError(f"{path}: empty", COMPILE_AGAIN) from None
    if len(image) != HEADER_BYTES + payload:
        raise FileFormatError(
            f"{path}: {len(image) - HEADER_BYTES} bytes, the memory map says {payload}", COMPILE_AGAIN
        )
    return image


def _runtime_area(memory_map: MemoryMap) -> tuple[Region, Any]:
    """A run-time area of zeros; pages take memory when they are first touched."""
    start = memory_map.parameter_end
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # a process that this one forks has its own
    size = memory_map.end - start + BEAT_BYTES
    try:
        area = np.frombuffer(mmap.mmap(-1, size, flags=private), np.uint8)
    except OSError:
        raise MachineFault(Fault.RUN_TIME_MEMORY.text(bytes=size)) from None
    region, pointers = _linear(memory_map, area.ctypes.data, start, memory_map.end)
    return region, (area, pointers)


def _linear(memory_map: MemoryMap, base: int, begin: int, end: int) -> tuple[Region, Any]:
    """Addresses begin..end-1 one after another from `base` on; both multiples of a stripe."""
    target = memory_map.target
    pointers, table = _pointer_table([base + BEAT_BYTES * channel for channel in range(target.channels)])
    return Region(begin, end, table, target.stripe_bytes), pointers


def _pointer_table(addresses: Sequence[int]) -> tuple[Any, int]:
    table = (ctypes.c_void_p * len(addresses))(*addresses)
    return table, ctypes.addressof(table)
