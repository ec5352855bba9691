"""Files kept because making them takes long: each is whole and what was made for its key, or counts as not there."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DiskCache:
    """Entries of one kind in a folder: magic, SHA-256 of key and data, data.

    magic: the first bytes of a file. keep: how many files stay when one is added; the oldest go.
    """

    folder: Path
    magic: bytes
    keep: int

    def read(self, name: str, key: str) -> bytes | None:
        """The data in a file; None when there is none that can be read, or it is not what was written for this key."""
        try:
            entry = (self.folder / name).read_bytes()
        except OSError:
            return None
        head = len(self.magic) + hashlib.sha256().digest_size
        data = entry[head:]
        return data if entry[:head] == self.magic + _digest(key, data) else None

    def write(self, name: str, key: str, data: bytes) -> None:
        """Keeps data, whole or not at all. A folder that cannot be written keeps nothing: who has the data has no need
        of it, and making it again is all that it costs.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._put(self.folder / name, self.magic + _digest(key, data) + data)
            self._prune()
        except OSError:
            return

    def _put(self, path: Path, entry: bytes) -> None:
        handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=path.stem, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(entry)
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)

    def _prune(self) -> None:
        """Removes the oldest files; another process may do so at the same time."""
        files = sorted(self.folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in files[self.keep :]:
            path.unlink(missing_ok=True)


def _digest(key: str, data: bytes) -> bytes:
    return hashlib.sha256(key.encode() + data).digest()
