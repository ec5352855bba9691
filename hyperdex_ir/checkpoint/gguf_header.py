"""Phase 0 checks of a GGUF file: counts and lengths in its header against the file's size, and its architecture.

The checks run before a reader trusts these counts and lengths. Neither torch, transformers nor gguf is imported.
"""

from __future__ import annotations

import difflib
import mmap
import struct
from pathlib import Path

from hyperdex_ir.errors import CheckpointError, UnsupportedModelError
from hyperdex_ir.support.reading import check_no_pointer, open_regular

#: Supported architectures -> the model_type that transformers uses for each.
ARCHITECTURES = {
    "bloom": "bloom",
    "falcon": "falcon",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
    "gpt2": "gpt2",
    "lfm2": "lfm2",
    "llama": "llama",
    "nemotron": "nemotron",
    "phi3": "phi3",
    "qwen2": "qwen2",
    "qwen2moe": "qwen2_moe",
    "qwen3": "qwen3",
    "qwen3moe": "qwen3_moe",
    "stablelm": "stablelm",
    "starcoder2": "starcoder2",
}
#: Reasons why other architectures that llama.cpp writes are not supported.
_REASONS = {
    "gpt-oss": "transformers does not find its experts in such a file",
    "mamba": "it is no attention model",
}
_ARCHITECTURE = "general.architecture"
_MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
#: Bytes of a value, by type number.
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
#: Limit for the elements of all arrays together: readers make an object of some hundred bytes for each. The largest
#: vocabularies, with scores, types and merges, have half as many.
_MOST_ELEMENTS = 1 << 21
#: Least average bytes of an array element in the file; the elements of a vocabulary take 7.
_BYTES_OF_AN_ELEMENT = 4
#: Number of elements that may take fewer bytes: arrays of flags, one for each layer.
_FREE_ELEMENTS = 1 << 12
_MOST_FIELDS = 1 << 12
_MOST_TENSORS = 1 << 17
#: Limits in bytes for a text, a text in an array, and the whole header.
_LONGEST_TEXT = 1 << 20
_LONGEST_ELEMENT = 1 << 12
_LONGEST_HEADER = 1 << 26
_MOST_DIMENSIONS = 4


class _Header:
    """The header of a file, read from front to back."""

    def __init__(self, path: Path, data: mmap.mmap):
        self._path = path
        self._data = data
        self._at = 0
        self._elements = 0
        self.architecture: str | None = None

    def check(self) -> None:
        """Raises CheckpointError when a count or a length leads out of the file, or text cannot be decoded."""
        magic, version, tensors, fields = self._take("<4sIQQ", "header")
        if magic != _MAGIC or version not in (2, 3):
            raise self._broken(f"magic {magic!r} and version {version}, expected {_MAGIC!r} and 2 or 3")
        for number in range(fields):
            if number == _MOST_FIELDS:
                raise self._broken(f"{fields} fields, at most {_MOST_FIELDS} are read")
            name = self._text(f"name of field {number}")
            kind = self._take("<I", f"type of field {number}")[0]
            value = self._value(kind, f"field {number}")
            if name == _ARCHITECTURE:
                self.architecture = value
        for number in range(tensors):
            if number == _MOST_TENSORS:
                raise self._broken(f"{tensors} tensors, at most {_MOST_TENSORS} are read")
            self._text(f"name of tensor {number}")
            (dimensions,) = self._take("<I", f"dimensions of tensor {number}")
            if dimensions > _MOST_DIMENSIONS:
                raise self._broken(f"tensor {number} has {dimensions} dimensions, at most {_MOST_DIMENSIONS} there are")
            self._take(f"<{dimensions}QIQ", f"tensor {number}")
        if self._elements > max(_FREE_ELEMENTS, self._at // _BYTES_OF_AN_ELEMENT):
            raise self._broken(f"its arrays have {self._elements} elements, too many for a header of {self._at} bytes")

    def _value(self, kind: int, name: str) -> str | None:
        """Skips a value; returns it when it is text, otherwise None."""
        if kind == _STRING:
            return self._text(name)
        if kind == _ARRAY:
            self._array(name)
        elif kind in _SIZES:
            self._skip(_SIZES[kind], name)
        else:
            raise self._broken(f"{name} is of type {kind}, which there is none of")
        return None

    def _array(self, name: str) -> None:
        kind, count = self._take("<IQ", name)
        self._elements += count
        if self._elements > _MOST_ELEMENTS:
            raise self._broken(f"{name} is an array of {count} elements, all arrays may have {_MOST_ELEMENTS}")
        if kind in _SIZES:
            self._skip(_SIZES[kind] * count, name)
        elif kind == _STRING:
            for _ in range(count):
                self._text(name, _LONGEST_ELEMENT)
        else:
            raise self._broken(f"{name} is an array of the type {kind}, expected numbers or texts")

    def _text(self, name: str, longest: int = _LONGEST_TEXT) -> str:
        (length,) = self._take("<Q", name)
        start = self._at
        if longest < length <= len(self._data) - start:
            raise self._broken(f"{name} is a text of {length} bytes, the longest that is read has {longest}")
        self._skip(length, name)
        try:
            return self._data[start : self._at].decode()
        except UnicodeDecodeError as error:
            raise self._broken(f"{name} is no text: {error.reason}") from None

    def _take(self, form: str, name: str) -> tuple[int, ...]:
        start = self._at
        self._skip(struct.calcsize(form), name)
        return struct.unpack_from(form, self._data, start)

    def _skip(self, size: int, name: str) -> None:
        if size > len(self._data) - self._at:
            raise self._broken(f"{name} ends at byte {self._at + size}, the file has {len(self._data)}")
        self._at += size
        if self._at > _LONGEST_HEADER:
            raise self._broken(f"its header has more than {_LONGEST_HEADER} bytes")

    def _broken(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self._path}: not a readable GGUF file: {what}", "download the file again")


def check_architecture(path: Path) -> None:
    """Raises UnsupportedModelError for an unsupported architecture, with the reason or the nearest supported one;
    CheckpointError when the file is broken."""
    name = architecture_of(path)
    if name in ARCHITECTURES:
        return
    nearest = difflib.get_close_matches(name[:200], ARCHITECTURES, 1)
    reason = _REASONS.get(name) or "transformers reads no such file" + (f"; near: {nearest[0]}" if nearest else "")
    raise UnsupportedModelError(
        f"{path}: architecture {name[:200]!r} of a GGUF file: {reason}", f"read are {', '.join(ARCHITECTURES)}"
    )


def architecture_of(path: Path) -> str:
    """The field `general.architecture`. Raises CheckpointError unless the file is little-endian GGUF, its
    header fits its size, and it has the field."""
    check_no_pointer(path, CheckpointError)
    try:
        with open_regular(path, CheckpointError) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            header = _Header(path, data)
            header.check()
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        raise CheckpointError(f"{path}: not a readable GGUF file: {error}") from error
    if header.architecture is None:
        raise CheckpointError(f"{path}: the GGUF file has no field {_ARCHITECTURE}", "download the file again")
    return header.architecture
