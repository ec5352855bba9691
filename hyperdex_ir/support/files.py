"""Binary files with a header, and files that appear whole or not at all.

Header, 16 bytes, little-endian: magic `HDXI`, u16 format version, u16 kind, u32 payload length in units of 64 bytes,
u32 CRC-32 of the payload. Payloads are padded with zeros to a multiple of 64 bytes.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import IO

from hyperdex_ir.errors import COMPILE_AGAIN, FileFormatError, StorageError
from hyperdex_ir.support.folder_access import FolderTree
from hyperdex_ir.support.reading import PROGRAM, STANDARD_OUTPUT, is_of_dev, open_regular

MAGIC = b"HDXI"
FORMAT_VERSION = 1
UNIT = 64
_HEADER = struct.Struct("<4sHHII")
HEADER_BYTES = _HEADER.size


class Kind(IntEnum):
    """The kind of a binary file's contents."""

    INSTRUCTIONS = 1
    PARAMETERS = 2
    MODEL = 3


def pack_header(kind: Kind, payload_bytes: int, crc: int) -> bytes:
    """The 16 header bytes. Raises ValueError unless the payload is whole units of 64 bytes and below 256 GiB."""
    units, rest = divmod(payload_bytes, UNIT)
    if rest or units >= 1 << 32:
        raise ValueError(f"payload of {payload_bytes} bytes: must be a multiple of {UNIT} below 256 GiB")
    return _HEADER.pack(MAGIC, FORMAT_VERSION, kind, units, crc)


def read_header(file: IO[bytes], path: Path, kind: Kind) -> tuple[int, int]:
    """Reads and checks the header at the file's start; returns (payload bytes, CRC-32).

    Raises FileFormatError when the file is not of this kind and version, or its size is not the header's.
    """
    return check_header(file.read(HEADER_BYTES), os.fstat(file.fileno()).st_size - HEADER_BYTES, path, kind)


def check_header(header: bytes, size: int, path: Path, kind: Kind) -> tuple[int, int]:
    """As `read_header`, of the bytes of a header and the size of what follows it."""
    if len(header) < HEADER_BYTES:
        raise FileFormatError(f"{path}: {len(header)} bytes, too short for a header", COMPILE_AGAIN)
    magic, version, found, units, crc = _HEADER.unpack(header)
    if magic != MAGIC:
        raise FileFormatError(f"{path}: not a hyperdex file (magic {magic!r}, expected {MAGIC!r})")
    if version != FORMAT_VERSION:
        raise FileFormatError(f"{path}: format version {version}, this program reads {FORMAT_VERSION}", COMPILE_AGAIN)
    if found != kind:
        raise FileFormatError(f"{path}: holds kind {found}, expected {kind.value} ({kind.name.lower()})")
    if size != units * UNIT:
        raise FileFormatError(
            f"{path}: {size} bytes of payload, the header says {units * UNIT}", "the file is truncated; compile again"
        )
    return units * UNIT, crc


def read_binary(path: Path, kind: Kind, most: int = PROGRAM.limit - HEADER_BYTES) -> bytes:
    """The payload of a binary file, its CRC checked. most: bytes of the largest that is read, by default a program's.

    Raises FileFormatError when it is missing, truncated, corrupted, of another kind, or larger.
    """
    try:
        with open_regular(path, FileFormatError, COMPILE_AGAIN) as file:
            size, crc = read_header(file, path, kind)
            if size > most:
                raise FileFormatError(f"{path}: {size} bytes of payload, the most that is read is {most}")
            payload = file.read(size)
    except FileNotFoundError:
        raise FileFormatError(f"{path}: no such file", COMPILE_AGAIN) from None
    return _checked(payload, crc, path)


def unpack_binary(data: bytes, path: Path, kind: Kind) -> bytes:
    """As `read_binary`, of the bytes of a file. path: its name for errors."""
    _, crc = check_header(data[:HEADER_BYTES], len(data) - HEADER_BYTES, path, kind)
    return _checked(data[HEADER_BYTES:], crc, path)


def _checked(payload: bytes, crc: int, path: Path) -> bytes:
    if zlib.crc32(payload) != crc:
        raise FileFormatError(f"{path}: corrupted (CRC of the payload differs from the header's)", COMPILE_AGAIN)
    return payload


@contextmanager
def storage_errors(path: Path, hint: str = "") -> Iterator[None]:
    """Turns the file system's refusals into StorageError. hint: of one that forbids to write."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StorageError(f"{path}: no space left on the device", "free some space and run again") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EDQUOT, errno.EFBIG):
            raise StorageError(f"{path}: {os.strerror(error.errno).lower()}", hint) from error
        raise


@contextmanager
def atomic_file(
    path: Path, root: Path | None = None, ready: Callable[[os.stat_result], None] | None = None
) -> Iterator[IO[bytes]]:
    """A file open for writing (and reading) that takes its name, synced, only when the block ends well.

    root: the folder of the model that it belongs to, below which no link is followed (`folder_access.py`). None: where
    the user asked for it. ready: as of `FolderTree.new_file`. Raises StorageError when something is there that is no
    file: the rename would put a file in the place of a device.
    """
    tree = FolderTree(path.parent if root is None else root)
    with storage_errors(path), tree.new_file(tree.name_of(path), ready) as file:
        yield file


def write_given(path: Path, data: bytes) -> None:
    """Writes a file that the user names: `-` is standard output, and what is in `/dev` takes the bytes as they come.

    Another file appears whole or not at all; a link stays one. Raises as `atomic_file`.
    """
    if os.fspath(path) in STANDARD_OUTPUT:
        if sys.stdout is None:
            raise StorageError("standard output is closed", "name a file")
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        return
    if is_of_dev(path) and not path.is_file():
        with storage_errors(path), path.open("wb") as file:
            file.write(data)
        return
    with atomic_file(Path(os.path.realpath(path))) as file:
        file.write(data)


def pack_binary(kind: Kind, payload: bytes) -> bytes:
    """Header and payload, padded to whole units."""
    padded = payload + bytes(-len(payload) % UNIT)
    return pack_header(kind, len(padded), zlib.crc32(padded)) + padded


def write_binary(path: Path, kind: Kind, payload: bytes, root: Path | None = None) -> None:
    """Writes header and payload, padded to whole units; the file appears whole or not at all. As `atomic_file`."""
    with atomic_file(path, root) as file:
        file.write(pack_binary(kind, payload))


def write_text(path: Path, text: str, root: Path | None = None) -> None:
    """Writes UTF-8 text; the file appears whole or not at all. As `atomic_file`."""
    with atomic_file(path, root) as file:
        file.write(text.encode())
