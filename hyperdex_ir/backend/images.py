"""Phase 3: `hyperdex_model.bin` -> one parameter image for each HBM channel of each device, and the memory map.

Reads nothing but `hyperdex_model.bin` and its table, each byte once: each block of rows goes to all devices that hold
some of it. Values that no checkpoint holds come from the layout.
"""

from __future__ import annotations

import resource
import zlib
from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from hyperdex_ir.backend.payload import BLOCK_BYTES, PlacedWriter, atomic_payloads
from hyperdex_ir.backend.weight_routes import Routes
from hyperdex_ir.errors import FileFormatError, StorageError
from hyperdex_ir.isa.formats import ELEMENTS
from hyperdex_ir.memory.layout import ModelLayout
from hyperdex_ir.memory.map import plan_memory
from hyperdex_ir.memory.serialize import dump_json, layout_to_json, map_to_json, read_table, read_tensors
from hyperdex_ir.support.files import UNIT, Kind, read_header, write_text
from hyperdex_ir.support.locations import ModelFolder
from hyperdex_ir.support.reading import open_regular
from hyperdex_ir.targets import load_target

_FORCE = "compile with --force"
_OTHER_FILES = 64  # files that a process may have open besides the images


class ModelReader:
    """Reads `hyperdex_model.bin` from front to back, and checks its CRC at the end."""

    def __init__(self, file: IO[bytes], path: Path):
        self._file = file
        self._path = path
        self.size, self._expected = read_header(file, path, Kind.MODEL)
        self._offset = 0
        self._crc = 0

    def skip_to(self, offset: int) -> None:
        """Skips the padding before a tensor. Raises FileFormatError when the tensor lies before the current place."""
        if not 0 <= offset - self._offset < UNIT:
            raise FileFormatError(f"{self._path}: no tensor at {offset}, next is {self._offset}", _FORCE)
        self.read(offset - self._offset)

    def read(self, count: int) -> np.ndarray:
        """The next `count` bytes, uint8. Raises FileFormatError at the file's end."""
        data = self._file.read(count) if count <= self.size - self._offset else b""
        if len(data) != count:
            raise FileFormatError(f"{self._path}: ends at {self.size}, {self._offset + count} are needed", _FORCE)
        self._crc = zlib.crc32(data, self._crc)
        self._offset += count
        return np.frombuffer(data, np.uint8)

    def finish(self) -> None:
        """Reads the rest. Raises FileFormatError when the payload is not the one that was written."""
        while self._offset < self.size:
            self.read(min(BLOCK_BYTES, self.size - self._offset))
        if self._crc != self._expected:
            raise FileFormatError(f"{self._path}: corrupted (CRC of the payload differs)", _FORCE)


def _blocks(reader: ModelReader, dtype: str, shape: list[int], block_bytes: int) -> Iterator[tuple[int, np.ndarray]]:
    """A tensor in blocks of rows: (first row, values [rows, ...])."""
    item, count = ELEMENTS[dtype].dtype, prod(shape[:1])
    row_bytes = prod(shape[1:]) * item.itemsize
    step = max(block_bytes // max(row_bytes, 1), 1)
    for start in range(0, count, step):
        rows = min(step, count - start)
        yield start, reader.read(rows * row_bytes).view(item).reshape(rows, *shape[1:])


def _write_tensors(
    reader: ModelReader,
    tensors: list[Mapping[str, Any]],
    routes: Routes,
    advance: Callable[[int], None],
    block_bytes: int,
) -> None:
    for tensor in tensors:
        reader.skip_to(tensor["offset"])
        for first, rows in _blocks(reader, tensor["dtype"], tensor["shape"], block_bytes):
            routes.put(tensor, first, rows)
            advance(rows.nbytes)
    reader.finish()
    routes.finish()


def write_images(
    folder: ModelFolder,
    target_name: str,
    num_device: int = 1,
    layout: ModelLayout | None = None,
    advance: Callable[[int], None] = lambda count: None,
    block_bytes: int = BLOCK_BYTES,
) -> list[Path]:
    """Writes `param/param_*` of all devices and `config/config_*`; returns their paths.

    layout: the layout of each of several devices; None: the converted checkpoint's, for one. advance: called with the
    bytes read, about `block_bytes` at a time. Raises CapacityError when the model does not fit, FileFormatError when
    the converted checkpoint is missing or damaged, StorageError when the file system refuses. The image files appear
    together or not at all.
    """
    if layout is not None:
        layout.check_devices(num_device)
    target = load_target(target_name)
    length = read_table(folder.model_config)["max_length"]
    stored, tensors = read_tensors(folder.model_config)
    memory_map = plan_memory(layout or stored, target, length)
    channels = range(target.channels)
    paths = [folder.parameter_file(num_device, device, channel) for device in range(num_device) for channel in channels]
    _allow_open_files(len(paths) + _OTHER_FILES)
    with (
        _open_model(folder.model_binary) as file,
        atomic_payloads(paths, folder.anchor, Kind.PARAMETERS, PlacedWriter, buffering=0) as writers,
    ):
        devices = [writers[start : start + len(channels)] for start in range(0, len(writers), len(channels))]
        routes = Routes(layout or stored, tensors, memory_map, devices)
        _write_tensors(ModelReader(file, folder.model_binary), tensors, routes, advance, block_bytes)
    divided = {} if layout is None else {"layout": layout_to_json(layout)}
    map_path = folder.memory_map(num_device)
    write_text(map_path, dump_json(map_to_json(memory_map) | divided), folder.anchor)
    return [*paths, map_path]


def _allow_open_files(count: int) -> None:
    """Lets the process have that many files open. Raises StorageError when the system does not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= count:
        return
    if hard != resource.RLIM_INFINITY and hard < count:
        raise StorageError(
            f"{count} files are to be open at once, the system allows {hard}", "raise it, as with ulimit -Hn"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def _open_model(path: Path) -> IO[bytes]:
    try:
        return open_regular(path, FileFormatError, _FORCE)
    except FileNotFoundError:
        raise FileFormatError(f"{path}: no such file", _FORCE) from None
