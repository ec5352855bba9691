"""Phase 3: `hyperdex_model.bin` -> one parameter image for each HBM channel, and the memory map.

Reads nothing but `hyperdex_model.bin` and its table. Each tensor is read once, in blocks of rows; each block is put in
storage order (`memory.tiles`, `memory.map`) and dealt out to the channels, beat by beat.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from hyperdex_ir.backend.payload import BLOCK_BYTES, PayloadWriter, atomic_payloads
from hyperdex_ir.backend.values import STORAGE
from hyperdex_ir.errors import FileFormatError
from hyperdex_ir.files import UNIT, Kind, read_header, write_text
from hyperdex_ir.locations import ModelFolder
from hyperdex_ir.memory.map import MemoryMap, plan_memory
from hyperdex_ir.memory.serialize import dump_json, layout_from_json, load_json, map_to_json
from hyperdex_ir.memory.tiles import tile_view
from hyperdex_ir.targets import BEAT_BYTES, Target, load_target


def matrix_beats(rows: np.ndarray, target: Target) -> np.ndarray:
    """Rows [n, k] of a 2-byte matrix as the beats of each channel: uint16 [channels, groups * steps * 32].

    n must be a multiple of the target's trees, except for a matrix's last rows.
    """
    tiles = tile_view(rows, target.trees)
    groups, steps, trees, lanes = tiles.shape
    beat = BEAT_BYTES // 2
    split = tiles.reshape(groups, steps, trees, lanes // beat, beat)
    return np.ascontiguousarray(split.transpose(2, 3, 0, 1, 4)).reshape(target.channels, -1)


def vector_beats(data: np.ndarray, target: Target) -> np.ndarray:
    """Bytes, uint8 [n], as the beats of each channel, padded with zeros to whole stripes: uint8 [channels, m]."""
    stripes = -(-len(data) // target.stripe_bytes)
    padded = np.zeros(stripes * target.stripe_bytes, np.uint8)
    padded[: len(data)] = data
    beats = padded.reshape(stripes, target.channels, BEAT_BYTES)
    return np.ascontiguousarray(beats.transpose(1, 0, 2)).reshape(target.channels, -1)


class ModelReader:
    """Reads `hyperdex_model.bin` from front to back, and checks its CRC at the end."""

    def __init__(self, file: IO[bytes], path: Path):
        self._file = file
        self._path = path
        self.size, self._expected = read_header(file, path, Kind.MODEL)
        self._offset = 0
        self._crc = 0

    def skip_to(self, offset: int) -> None:
        """Passes over the padding before a tensor. Raises FileFormatError when it lies behind."""
        if not 0 <= offset - self._offset < UNIT:
            raise FileFormatError(
                f"{self._path}: no tensor at {offset}, next is {self._offset}", "compile with --force"
            )
        self.read(offset - self._offset)

    def read(self, count: int) -> np.ndarray:
        """The next `count` bytes, uint8. Raises FileFormatError at the file's end."""
        data = self._file.read(count)
        if len(data) != count:
            raise FileFormatError(f"{self._path}: ends at {self._offset + len(data)}", "compile with --force")
        self._crc = zlib.crc32(data, self._crc)
        self._offset += count
        return np.frombuffer(data, np.uint8)

    def finish(self) -> None:
        """Reads what is left. Raises FileFormatError when the payload is not what was written."""
        while self._offset < self.size:
            self.read(min(BLOCK_BYTES, self.size - self._offset))
        if self._crc != self._expected:
            raise FileFormatError(f"{self._path}: corrupted (CRC of the payload differs)", "compile with --force")


def _tensor_beats(reader: ModelReader, dtype: str, shape: list[int], target: Target) -> Iterator[np.ndarray]:
    """The beats of each channel, block after block, [channels, ...]."""
    item = STORAGE[dtype]
    if dtype in ("f16", "bf16"):
        rows, columns = shape
        step = max(BLOCK_BYTES // (columns * item.itemsize) // target.trees, 1) * target.trees
        for start in range(0, rows, step):
            count = min(step, rows - start)
            block = reader.read(count * columns * item.itemsize)
            yield matrix_beats(block.view(np.uint16).reshape(count, columns), target)
        return
    left = int(np.prod(shape, dtype=np.int64)) * item.itemsize
    while left:
        count = min(left, BLOCK_BYTES // target.stripe_bytes * target.stripe_bytes)
        yield vector_beats(reader.read(count), target)
        left -= count


def _write_tensors(
    reader: ModelReader,
    tensors: list[Mapping[str, Any]],
    memory_map: MemoryMap,
    writers: list[PayloadWriter],
    advance: Callable[[int], None],
) -> None:
    target = memory_map.target
    for tensor in tensors:
        reader.skip_to(tensor["offset"])
        address = memory_map.addresses.get(tensor["name"])
        if address != writers[0].size * target.channels:
            raise FileFormatError(f"{tensor['name']}: its place in the table is not that of the memory map")
        for beats in _tensor_beats(reader, tensor["dtype"], tensor["shape"], target):
            for writer, channel in zip(writers, beats, strict=True):
                writer.write(channel)
            advance(beats.nbytes)
    reader.finish()


def write_images(
    folder: ModelFolder, target_name: str, num_device: int, advance: Callable[[int], None] = lambda count: None
) -> list[Path]:
    """Writes `param/param_*` and `config/config_*`; returns their paths. `advance` is told of bytes written.

    Raises CapacityError when the model does not fit, FileFormatError when the converted checkpoint is missing or
    damaged, StorageError when the file system refuses. The image files appear together or not at all.
    """
    table = load_json(folder.model_config)
    target = load_target(target_name)
    try:
        memory_map = plan_memory(layout_from_json(table["layout"]), target, table["max_length"])
        tensors = table["tensors"]
    except (KeyError, TypeError) as error:
        raise FileFormatError(f"{folder.model_config}: lacks {error}", "compile with --force") from None
    paths = [folder.parameter_file(num_device, 0, channel) for channel in range(target.channels)]
    map_path = folder.memory_map(num_device)
    with _open_model(folder.model_binary) as file, atomic_payloads(paths, Kind.PARAMETERS) as writers:
        _write_tensors(ModelReader(file, folder.model_binary), tensors, memory_map, writers, advance)
        if writers[0].size * target.channels != memory_map.parameter_end:
            raise FileFormatError(f"{folder.model_binary}: tensors are missing from its table", "compile with --force")
    write_text(map_path, dump_json(map_to_json(memory_map)))
    return [*paths, map_path]


def _open_model(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise FileFormatError(f"{path}: no such file", "compile with --force") from None
