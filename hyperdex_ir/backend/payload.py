"""Binary files written as a stream: room for the header first, the header itself when the payload is complete."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from hyperdex_ir.files import HEADER_BYTES, UNIT, Kind, pack_header, storage_errors

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


@contextmanager
def atomic_payloads(paths: Sequence[Path], kind: Kind) -> Iterator[list[PayloadWriter]]:
    """Binary files that take their names only when all of them are complete and synced.

    Raises StorageError when the file system refuses; then no file has changed.
    """
    temporaries = [path.with_name(f".{path.name}.{os.getpid()}.part") for path in paths]
    with storage_errors(paths[0]), ExitStack() as stack:
        for path, temporary in zip(paths, temporaries, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.callback(temporary.unlink, missing_ok=True)
        files = [stack.enter_context(temporary.open("wb")) for temporary in temporaries]
        writers = [PayloadWriter(file, kind) for file in files]
        yield writers
        for writer, file in zip(writers, files, strict=True):
            writer.finish()
            os.fsync(file.fileno())
        for path, temporary in zip(paths, temporaries, strict=True):
            os.replace(temporary, path)
