"""Checkpoints: the tensors of safetensors files, described by their headers, or of files in torch's format.

One tensor or some rows are read at a time. No code of a checkpoint is ever run.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from hyperdex_ir.checkpoint.other_names import names_in, other_weights
from hyperdex_ir.checkpoint.tensors import Tensor, read, row_count
from hyperdex_ir.checkpoint.torch_weights import SINGLE as TORCH_FILE
from hyperdex_ir.errors import DOWNLOAD_AGAIN, CheckpointError
from hyperdex_ir.isa.formats import PUBLISHED
from hyperdex_ir.memory.fields import shown
from hyperdex_ir.support import reading
from hyperdex_ir.support.locations import SAFETENSORS, SAFETENSORS_INDEX, is_safe
from hyperdex_ir.support.reading import TORCH_INDEX

_PREFIX = struct.Struct("<Q")
#: The single file of weights, and the index of several files; safetensors take precedence.
_NAMES = ((SAFETENSORS, SAFETENSORS_INDEX), (TORCH_FILE, TORCH_INDEX))


@dataclass(frozen=True)
class TensorEntry:
    """Location of one tensor in a safetensors file. dtype: as the header has it, `BF16`. start, stop: file bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    start: int
    stop: int

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def numpy_dtype(self) -> np.dtype:
        """NumPy type of the elements; bfloat16 values are uint16 bit patterns."""
        return PUBLISHED[self.dtype].dtype

    def read(self) -> np.ndarray:
        """The whole tensor. Raises CheckpointError when the file has become shorter."""
        return _load(self, 0, prod(self.shape)).reshape(self.shape)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows start..stop-1 of the first dimension. Raises CheckpointError when the file has become shorter."""
        if not 0 <= start <= stop <= row_count(self):
            raise IndexError(f"{self.name}: rows {start}..{stop} of shape {list(self.shape)}")
        row = prod(self.shape[1:])
        return _load(self, start * row, (stop - start) * row).reshape(stop - start, *self.shape[1:])

    def columns(self, start: int, stop: int) -> np.ndarray:
        """Columns start..stop-1 of a matrix; only their bytes are read. Raises CheckpointError as `rows`."""
        rows, width = self.shape
        if not 0 <= start <= stop <= width:
            raise IndexError(f"{self.name}: columns {start}..{stop} of shape {list(self.shape)}")
        out, item = np.empty((rows, stop - start), self.numpy_dtype), self.numpy_dtype.itemsize
        with _opened(self) as file:
            for number, row in enumerate(out):
                _fill(self, file.fileno(), row, self.start + (number * width + start) * item)
        return out


class Checkpoint:
    """The tensors of a checkpoint by name, from one file or from those that an index names.

    Safetensors take precedence over files in torch's format, for which torch is imported.
    """

    def __init__(self, directory: Path):
        """Reads headers. Raises CheckpointError without weights, or for a file that contradicts its header or index."""
        self.directory = directory
        self.tensors: dict[str, Tensor] = {}
        self.files: dict[str, Path] = {}  # tensor name -> its file
        files = _files(directory)
        placed = {name: path for path, names in files for name in names}
        for path, expected in files:
            entries = _entries(path)
            for name in expected:
                if name not in entries:
                    raise CheckpointError(f"{path}: no tensor {name}, which the index places there", DOWNLOAD_AGAIN)
            for name, entry in entries.items():
                if placed.get(name, path) != path:  # a copy: the index decides
                    continue
                if name in self.files:
                    raise CheckpointError(f"{path}: tensor {name} is also in {self.files[name].name}")
                self.tensors[name] = entry
                self.files[name] = path

    def read(self, name: str) -> np.ndarray:
        """A whole tensor, as it is stored. Raises CheckpointError when the file has become shorter."""
        tensor = self.tensors[name]
        return tensor.read() if isinstance(tensor, TensorEntry) else read(tensor)

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows start..stop-1 of a tensor's first dimension. Raises CheckpointError when the file has become shorter."""
        return self.tensors[name].rows(start, stop)


def _entries(path: Path) -> Mapping[str, Tensor]:
    if path.suffix == ".safetensors":
        return read_header(path)
    from hyperdex_ir.checkpoint.torch_file import read_torch_file

    return read_torch_file(path)


def _load(entry: TensorEntry, first: int, count: int) -> np.ndarray:
    dtype = entry.numpy_dtype
    with _opened(entry) as file:
        if os.fstat(file.fileno()).st_size < entry.stop:  # checked before memory is allocated
            raise _truncated(entry)
        values = np.fromfile(file, dtype, count, offset=entry.start + first * dtype.itemsize)
    if len(values) < count:
        raise _truncated(entry)
    return values


def _fill(entry: TensorEntry, file: int, row: np.ndarray, offset: int) -> None:
    """Reads a row from an offset in the file."""
    view = row.data.cast("B")
    while view.nbytes:
        count = os.preadv(file, [view], offset)
        if count == 0:
            raise _truncated(entry)
        view, offset = view[count:], offset + count


@contextmanager
def _opened(entry: TensorEntry) -> Iterator[IO[bytes]]:
    try:
        with reading.open_regular(entry.path, CheckpointError, DOWNLOAD_AGAIN, buffering=0) as file:
            yield file
    except OSError as error:
        raise CheckpointError(f"{entry.path}: tensor {entry.name} cannot be read: {error.strerror}") from error


def _truncated(entry: TensorEntry) -> CheckpointError:
    return CheckpointError(
        f"{entry.path}: truncated: tensor {entry.name} ends at byte {entry.stop}, the file is shorter", DOWNLOAD_AGAIN
    )


def weight_files(directory: Path) -> list[Path]:
    """The files of a checkpoint's weights, by name: the single one, or those that an index names; they may be missing.

    In a directory with neither, the result is the single safetensors file. Raises CheckpointError for a broken index.
    """
    for single, index in _NAMES:
        if (directory / single).is_file():
            return [directory / single]
        if (directory / index).is_file():
            return [directory / name for name in shards(directory / index)]
    return [directory / SAFETENSORS]


def _files(directory: Path) -> list[tuple[Path, list[str]]]:
    """The files to read, in order, and the tensors that each must hold."""
    for single, index in _NAMES:
        if (directory / single).is_file():
            return [(directory / single, [])]
        if (directory / index).is_file():
            return _indexed(directory / index)
    others, hint = other_weights(names_in(directory))
    message = f"{directory}: neither {SAFETENSORS} nor {SAFETENSORS_INDEX}, nor {TORCH_FILE} or its index{others}"
    raise CheckpointError(message, hint)


def check_weights(directory: Path) -> None:
    """Raises CheckpointError without weights by the names of transformers, or when the index or a file is missing."""
    _files(directory)


def shards(index: Path) -> dict[str, list[str]]:
    """The files that an index names, beside it or in folders there, with their tensors.

    Raises CheckpointError for a broken index.
    """
    placed = reading.read_object(index, reading.WEIGHTS_INDEX).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise CheckpointError(f"{index}: no weight_map, expected an object of tensor names and files")
    suffix = Path(index.name.removesuffix(".index.json")).suffix
    files: dict[str, list[str]] = {}
    for name, file in placed.items():
        if not isinstance(file, str) or not is_safe(file) or not file.endswith(suffix):
            raise CheckpointError(
                f"{index}: tensor {name} is in {file!r}, expected a {suffix[1:]} file beside the index, or below"
            )
        files.setdefault(file, []).append(name)
    return dict(sorted(files.items()))


def _indexed(index: Path) -> list[tuple[Path, list[str]]]:
    files = shards(index)
    for file in files:
        if not (index.parent / file).is_file():
            raise CheckpointError(f"{index.parent / file}: no such file, but the index names it", DOWNLOAD_AGAIN)
    return [(index.parent / file, names) for file, names in files.items()]


def read_header(path: Path) -> dict[str, TensorEntry]:
    """The tensors of one file, by name, in the file's order.

    Raises CheckpointError, with the tensor and the numbers, when the header is not what the format allows: tensors
    must fill the file without gaps or overlaps.
    """
    text, size = _header_text(path)
    base = _PREFIX.size + len(text)
    entries = [_entry(path, name, value, base) for name, value in _parse(path, text)]
    entries.sort(key=lambda entry: (entry.start, entry.stop))
    _check_layout(path, entries, base, size)
    return {entry.name: entry for entry in entries}


def _header_text(path: Path) -> tuple[bytes, int]:
    """The header's bytes, and the size of the file in bytes."""
    try:
        with reading.open_regular(path, CheckpointError, DOWNLOAD_AGAIN) as file:
            size = os.fstat(file.fileno()).st_size
            prefix = file.read(_PREFIX.size)
            if len(prefix) < _PREFIX.size:
                raise CheckpointError(f"{path}: {size} bytes, too short for safetensors", DOWNLOAD_AGAIN)
            (length,) = _PREFIX.unpack(prefix)
            if length > min(size - _PREFIX.size, reading.WEIGHTS_HEADER.limit):
                reading.check_no_pointer(path, CheckpointError)
                raise CheckpointError(f"{path}: header of {length} bytes, file of {size}: truncated or not safetensors")
            return file.read(length), size
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error


def _parse(path: Path, text: bytes) -> list[tuple[str, Any]]:
    """The header's pairs of tensor name and description."""
    try:
        header = reading.parse_json(text.decode(), reading.WEIGHTS_HEADER)
    except ValueError as error:
        raise CheckpointError(f"{path}: header is not valid JSON: {error}", DOWNLOAD_AGAIN) from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: header is not a JSON object", DOWNLOAD_AGAIN)
    header.pop("__metadata__", None)
    return list(header.items())


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _counts(value: Any, length: int | None = None) -> bool:
    is_list = isinstance(value, list) and all(map(_is_count, value))
    return is_list and (length is None or len(value) == length)


def _entry(path: Path, name: str, value: Any, base: int) -> TensorEntry:
    where = f"{path}: tensor {name}"
    if not isinstance(value, dict):
        raise CheckpointError(f"{where}: not described by an object")
    dtype, shape, offsets = (value.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in PUBLISHED:
        raise CheckpointError(f"{where}: dtype {shown(dtype)} is not known", f"known are {', '.join(PUBLISHED)}")
    if not isinstance(shape, list) or not _counts(shape):
        raise CheckpointError(f"{where}: shape {shown(shape)}, expected a list of sizes")
    if len(shape) > reading.MOST_DIMENSIONS:
        raise CheckpointError(f"{where}: {len(shape)} dimensions, the most is {reading.MOST_DIMENSIONS}")
    if not isinstance(offsets, list) or not _counts(offsets, 2):
        raise CheckpointError(f"{where}: data_offsets {shown(offsets)}, expected two byte numbers")
    needed = PUBLISHED[dtype].bytes_of(prod(shape))
    if offsets[1] - offsets[0] != needed:
        raise CheckpointError(
            f"{where}: bytes {offsets[0]} to {offsets[1]}, but {shown(shape)} of {dtype} takes {needed} bytes"
        )
    return TensorEntry(name, dtype, tuple(shape), path, base + offsets[0], base + offsets[1])


def _check_layout(path: Path, entries: list[TensorEntry], base: int, size: int) -> None:
    """Raises CheckpointError unless the sorted entries fill the file from `base` to `size`."""
    end = entries[-1].stop if entries else base
    if end > size:
        raise CheckpointError(
            f"{path}: truncated: tensor {entries[-1].name} ends at byte {end}, the file has {size}", DOWNLOAD_AGAIN
        )
    for before, after in pairwise(entries):
        if after.start < before.stop:
            raise CheckpointError(
                f"{path}: tensors {before.name} and {after.name} overlap: bytes {before.start} to {before.stop} and "
                f"{after.start} to {after.stop}"
            )
    starts = [base, *(entry.stop for entry in entries)]
    stops = [*(entry.start for entry in entries), size]
    for start, stop in zip(starts, stops, strict=True):
        if start != stop:
            raise CheckpointError(f"{path}: bytes {start} to {stop} belong to no tensor")
