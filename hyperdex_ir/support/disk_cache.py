"""Cache of files that take long to make: an entry is whole and was made for its key, or counts as not there.

A hash shows that an entry is whole, not who made it: anyone can compute it. So an entry counts only when it and its
folder belong to this user and nobody else may write them. Both are checked through open descriptors, so that the file
that was checked is the one that is read.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hyperdex_ir.support.folder_access import read_link
from hyperdex_ir.support.progress import log

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_TEMPORARY = r"(\.[0-9a-f]{16}\.tmp)?"
#: A larger file is no entry; the native executor's machine code has about 1 MB.
_LARGEST = 1 << 28


@dataclass(frozen=True)
class DiskCache:
    """Entries of one kind in a folder: magic, SHA-256 of key and data, data.

    magic: the first bytes of a file. names: a regular expression for the names of entries. keep: how many files stay
    when one is added; the oldest go.
    """

    folder: Path
    magic: bytes
    names: str
    keep: int

    def read(self, name: str, key: str) -> bytes | None:
        """The data of an entry; None when it cannot be read, or was not written for this key."""
        try:
            with self._opened() as folder, _opened_file(folder, name) as file:
                self._check_file(file, name)
                entry = _contents(file)
        except OSError:
            return None
        head = len(self.magic) + hashlib.sha256().digest_size
        data = entry[head:]
        return data if entry[:head] == self.magic + _digest(key, data) else None

    def write(self, name: str, key: str, data: bytes) -> None:
        """Keeps data, whole or not at all. A folder that cannot be written or trusted keeps nothing. That is no error:
        the caller has the data, and makes it again next time.
        """
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            with self._opened() as folder:
                _put(folder, name, self.magic + _digest(key, data) + data)
                self._prune(folder)
        except OSError:
            return

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """A descriptor of the folder. Raises OSError when it cannot be opened or is not this user's alone."""
        with _folder_of(self.folder) as (folder, is_link):
            self._check_owner(folder, self.folder)
            self._close(folder, is_link)
            yield folder

    def _close(self, folder: int, is_link: bool) -> None:
        """Takes the right to write in the folder from others. Entries that they may have put there go. Raises OSError
        where a link leads to it: the folder may be in use for something else."""
        mode = stat.S_IMODE(os.fstat(folder).st_mode)
        if not mode & _OTHERS_WRITE:
            return
        if is_link:
            raise _refusal(self.folder, f"it is a link to a folder that others may write (mode {mode:04o})")
        os.fchmod(folder, mode & ~_OTHERS_WRITE)
        _say(f"{self.folder}: others could write there (mode {mode:04o}); now they cannot, its entries are made anew")
        for name in self._own(folder):
            os.unlink(name, dir_fd=folder)

    def _check_file(self, file: int, name: str) -> None:
        """Raises OSError, after one log line, unless an open entry is this user's and nobody else may write it."""
        self._check_owner(file, self.folder / name)
        found = os.fstat(file)
        if found.st_mode & _OTHERS_WRITE:
            raise _refusal(self.folder / name, f"others may write it (mode {stat.S_IMODE(found.st_mode):04o})")
        if found.st_nlink != 1:
            raise _refusal(self.folder / name, "it has a second name")

    def _check_owner(self, descriptor: int, path: Path) -> None:
        """Raises OSError, after one log line, unless the open file or folder belongs to this user."""
        owner = os.fstat(descriptor).st_uid
        if owner != os.geteuid():
            raise _refusal(path, f"it belongs to user {owner}, not to {os.geteuid()}")

    def _prune(self, folder: int) -> None:
        """Removes the oldest entries and the files of killed writers. A file by another name, or without the magic, is
        not the cache's; neither is anything in a folder that is a link. Another process may prune at the same time.
        """
        if self.folder.is_symlink():
            return
        found = [(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime_ns, name) for name in self._own(folder)]
        for _, name in sorted(found, reverse=True)[self.keep :]:
            os.unlink(name, dir_fd=folder)

    def _own(self, folder: int) -> Iterator[str]:
        for name in os.listdir(folder):
            if re.fullmatch(self.names + _TEMPORARY, name) is None:
                continue
            try:
                with _opened_file(folder, name) as file:
                    head = os.read(file, len(self.magic))
            except OSError:
                continue
            # A writer that was killed may have left the beginning of an entry.
            if self.magic.startswith(head):
                yield name


@contextmanager
def _folder_of(path: Path) -> Iterator[tuple[int, bool]]:
    """A descriptor of a folder, and whether a link of this user's leads to it. Raises OSError for another's link."""
    outer = os.open(path.parent, _FOLDER)
    try:
        folder, is_link = _followed(path, outer)
    finally:
        os.close(outer)
    try:
        yield folder, is_link
    finally:
        os.close(folder)


def _followed(path: Path, outer: int) -> tuple[int, bool]:
    try:
        return os.open(path.name, _FOLDER | os.O_NOFOLLOW, dir_fd=outer), False
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
    owner, target = read_link(path.name, outer)
    if owner != os.geteuid():
        raise _refusal(path, f"it is a link of user {owner}")
    return os.open(target, _FOLDER, dir_fd=outer), True


@contextmanager
def _opened_file(folder: int, name: str) -> Iterator[int]:
    """A descriptor of a file in an open folder. Raises OSError for anything but a file, a link included."""
    file = os.open(name, _READ, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise FileNotFoundError(name)
        yield file
    finally:
        os.close(file)


def _contents(file: int) -> bytes:
    with os.fdopen(os.dup(file), "rb") as stream:
        return stream.read(_LARGEST)


def _put(folder: int, name: str, entry: bytes) -> None:
    temporary = f"{name}.{secrets.token_hex(8)}.tmp"
    handle = os.open(temporary, _CREATE, 0o600, dir_fd=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(entry)
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(temporary, dir_fd=folder)
        raise


@cache
def _say(message: str) -> None:
    """Logs a line the first time that it comes."""
    log(message)


def _refusal(path: Path, reason: str) -> PermissionError:
    _say(f"{path}: not used, because {reason}; what it holds is made anew: remove it")
    return PermissionError(reason)


def _digest(key: str, data: bytes) -> bytes:
    return hashlib.sha256(key.encode() + data).digest()
