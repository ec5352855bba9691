"""Binary files written in pieces: room for the header first, the header itself when the payload is complete."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

from hyperdex_ir.backend.crc import combine_crc
from hyperdex_ir.support.files import HEADER_BYTES, UNIT, Kind, pack_header, storage_errors
from hyperdex_ir.support.folder_access import FolderTree, NewFile

#: Tensors are read, converted and written in blocks of about this many bytes.
BLOCK_BYTES = 8 << 20


class PayloadWriter:
    """The payload of one binary file; `data` may be bytes or a contiguous array."""

    def __init__(self, file: IO[bytes], kind: Kind):
        self._file = file
        self._kind = kind
        self._crc = 0
        self.size = 0
        file.write(bytes(HEADER_BYTES))

    def write(self, data: Any) -> None:
        """Appends data."""
        view = memoryview(data).cast("B")
        self._crc = zlib.crc32(view, self._crc)
        self.size += view.nbytes
        self._file.write(view)

    def pad(self) -> None:
        """Appends zeros up to a whole unit."""
        self.write(bytes(-self.size % UNIT))

    def finish(self) -> None:
        """Pads to whole units and writes the header."""
        self.pad()
        self._file.seek(0)
        self._file.write(pack_header(self._kind, self.size, self._crc))
        self._file.flush()


@dataclass
class _Segment:
    """Consecutive bytes of a payload, from `start` to before `stop`."""

    start: int
    stop: int
    crc: int


class PlacedWriter:
    """The payload of one binary file, written in pieces at any place and in any order, each byte once.

    data may be bytes or a contiguous array. The file must be open without a buffer.
    """

    def __init__(self, file: IO[bytes], kind: Kind):
        self._file = file
        self._kind = kind
        self._ends: dict[int, _Segment] = {}  # by their stop: data that begins there extends the segment

    def write(self, offset: int, data: Any) -> None:
        """Writes data from an offset of the payload on."""
        view = memoryview(data).cast("B")
        segment = self._ends.pop(offset, None) or _Segment(offset, offset, 0)
        segment.crc = zlib.crc32(view, segment.crc)
        segment.stop += view.nbytes
        self._ends[segment.stop] = segment
        place = HEADER_BYTES + offset
        while view.nbytes:
            count = os.pwrite(self._file.fileno(), view, place)
            view, place = view[count:], place + count

    def finish(self) -> None:
        """Writes the header. Raises ValueError when bytes are missing, or written twice."""
        size = crc = 0
        for segment in sorted(self._ends.values(), key=lambda one: one.start):
            if segment.start != size:
                raise ValueError(f"bytes from {size} on: the next that are written start at {segment.start}")
            crc = combine_crc(crc, segment.crc, segment.stop - segment.start)
            size = segment.stop
        os.pwrite(self._file.fileno(), pack_header(self._kind, size, crc), 0)


class Writer(Protocol):
    """The writer of one file's payload."""

    def finish(self) -> None: ...


AnyWriter = TypeVar("AnyWriter", bound=Writer)


@contextmanager
def atomic_payloads(
    paths: Sequence[Path],
    root: Path,
    kind: Kind,
    make: Callable[[IO[bytes], Kind], AnyWriter],
    buffering: int = -1,
) -> Iterator[list[AnyWriter]]:
    """Binary files that take their names only when all of them are complete and synced; `make` opens a writer.

    root: the folder of the model, below which no link is followed. Raises StorageError when the file system refuses;
    then no file has changed.
    """
    tree, files = FolderTree(root), []
    with storage_errors(paths[0]), ExitStack() as stack:
        for path in paths:
            files.append(NewFile(tree, tree.name_of(path)))
            stack.callback(files[-1].discard)
        writers = [make(one.begin(buffering), kind) for one in files]
        yield writers
        for writer, one in zip(writers, files, strict=True):
            writer.finish()
            one.finish()
        for one in files:
            one.rename()
