"""Ways to disturb a compile: a process that kills itself at a chosen moment, a disk that is full at a chosen byte.

A moment is a step that the file system sees: a file opened, written, synced, renamed or removed in the model's folder.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hyperdex_ir.backend.state import STATE_FILE
from support.processes import forked


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by name, hidden ones included; of the state, all but when and where on the disk they were written."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    if STATE_FILE in found:
        found[STATE_FILE] = json.dumps(_timeless(json.loads(found[STATE_FILE]))).encode()
    return found


def _timeless(value: object) -> object:
    if not isinstance(value, dict):
        return value
    return {key: _timeless(each) for key, each in value.items() if key not in ("mtime_ns", "inode")}


#: Compiles a model; kills itself at a moment (0: never); prints how many moments there were.
_WATCHED = """
import os, signal, sys
from hyperdex_ir.tools import AutoCompiler

last, model = int(sys.argv[1]), sys.argv[2]
count = 0
def moment():
    global count
    count += 1
    if count == last:
        os.kill(os.getpid(), signal.SIGKILL)
def watch(event, arguments):
    if event not in ("open", "os.remove", "os.mkdir", "os.rmdir", "os.rename"):
        return
    name = str(arguments[0])  # relative: below a folder that is open, which only the compiler's writing is
    if name.startswith(model) or not os.path.isabs(name):
        moment()
def watched(function):
    def call(*arguments, **folders):
        moment()
        result = function(*arguments, **folders)
        moment()
        return result
    return call
for name in ("fsync", "pwrite", "replace"):
    setattr(os, name, watched(getattr(os, name)))
sys.addaudithook(watch)
AutoCompiler().compile(model)
print(count)
"""


def compile_watched(model: Path) -> int:
    """Compiles undisturbed in a process of its own; returns how many moments it took."""
    done = forked.run(["-c", _WATCHED, "0", str(model)])
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def compile_killed(model: Path, moment: int) -> None:
    """A compile that ends with SIGKILL at that moment, the first being 1."""
    assert forked.run(["-c", _WATCHED, str(moment), str(model)]).returncode == -signal.SIGKILL


class Disk:
    """What is written below a folder, by bytes and syncs; refused like on a full disk from a chosen one on."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.bytes = self.syncs = 0
        self._bytes = self._syncs = sys.maxsize

    @contextlib.contextmanager
    def full_at(self, *, byte: int = sys.maxsize, sync: int = sys.maxsize) -> Iterator[None]:
        """Within it the disk takes that many bytes, and that many files are synced; the defaults only count."""
        self.bytes = self.syncs = 0
        self._bytes, self._syncs = byte, sync
        plain_open, plain_pwrite, plain_sync = io.open, os.pwrite, os.fsync

        def opened(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **options: Any) -> Any:
            path = path_of(file)
            if "b" not in mode or not set(mode) & set("wax+") or not path.startswith(str(self.folder)):
                return plain_open(file, mode, buffering, *rest, **options)
            raw = _File(self, file, mode.replace("b", ""))
            buffered = io.BufferedRandom if "+" in mode else io.BufferedWriter
            return raw if buffering == 0 else buffered(raw)

        def pwrite(descriptor: int, data: Any, place: int) -> int:
            view = memoryview(data).cast("B")
            return plain_pwrite(descriptor, view[: self.take(view.nbytes)], place)

        def fsync(descriptor: int) -> None:
            if self.syncs >= self._syncs:
                raise _full()
            self.syncs += 1
            plain_sync(descriptor)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(io, "open", opened)
            patch.setattr(os, "pwrite", pwrite)
            patch.setattr(os, "fsync", fsync)
            yield

    def take(self, count: int) -> int:
        """How many of so many bytes there is room for. Raises OSError when for none."""
        fits = min(count, self._bytes - self.bytes)
        if count and not fits:
            raise _full()
        self.bytes += fits
        return fits


class _File(io.FileIO):
    """A file on such a disk."""

    def __init__(self, disk: Disk, path: Any, mode: str):
        super().__init__(path, mode)
        self._disk = disk

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        return super().write(view[: self._disk.take(view.nbytes)])


def path_of(file: Any) -> str:
    """What `open` is given: a path, or the descriptor of a file or folder that is open."""
    return os.readlink(f"/proc/self/fd/{file}") if isinstance(file, int) else os.fspath(file)


def _full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
