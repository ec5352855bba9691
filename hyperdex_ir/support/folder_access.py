"""The one way to write, rename, remove and lock below the folder of a model, whose contents a stranger may have made.

The user names the root, and links on the way to it are the user's. Below it, every component is opened relative to the
folder that it lies in, without following links. A file is always made anew under a name that no one can foresee, and
takes its own by a rename. So nothing outside the folder changes, whatever the folder holds.

One exception: `ckpt` and `param` may be links to another disk. They are followed where the user owns both the link and
the folder that it leads to. `backend/links.py` decides what may be in that folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from hyperdex_ir.errors import StorageError

#: The folders of a model that may be links.
LINKED = ("ckpt", "param")
_REACHED = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FOLDER = _REACHED | os.O_NOFOLLOW
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_GROWN = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_COPY_BYTES = 8 << 20
_PART = ".part"
_UNFINISHED = re.compile(r"\.([^/]+)\.[0-9a-z]{1,32}\.part")


@dataclass(frozen=True)
class FolderTree:
    """A folder by its path, `root`, and the files below it by name: relative, with `/`, without `..`.

    Every method raises StorageError where a component below the root is a link or no folder, and OSError where the file
    system refuses.
    """

    root: Path

    @contextmanager
    def folder(self, name: str = "", *, make: bool = False) -> Iterator[int]:
        """A descriptor of a folder. make: it and the root are made if they are not there."""
        if make and not self.root.is_dir():
            self.root.mkdir(parents=True, exist_ok=True)
        parts = _parts(name) if name else ()
        descriptor = os.open(self.root, _REACHED)
        try:
            for count in range(1, len(parts) + 1):
                outer, descriptor = descriptor, self._entered(descriptor, parts[:count], make)
                os.close(outer)
            yield descriptor
        finally:
            os.close(descriptor)

    def _entered(self, outer: int, parts: tuple[str, ...], make: bool) -> int:
        """A descriptor of the last of the folders `parts`, which lies in that of the descriptor `outer`."""
        name, path = parts[-1], self.root.joinpath(*parts)
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=outer)
        try:
            return os.open(name, _FOLDER, dir_fd=outer)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
        owner, target = _link(name, outer, path)
        if len(parts) > 1 or name not in LINKED:
            raise link_refused(path, "is not followed")
        if owner != os.geteuid():
            raise link_refused(path, "is not followed: it belongs to another user")
        return self._followed(outer, path, target)

    def _followed(self, outer: int, path: Path, target: str) -> int:
        """A descriptor of the folder that a link names by its text; the link must be the user's own."""
        try:
            descriptor = os.open(target, _REACHED, dir_fd=outer)
        except (FileNotFoundError, NotADirectoryError):
            raise link_refused(path, "leads to no folder") from None
        if os.fstat(descriptor).st_uid == os.geteuid():
            return descriptor
        os.close(descriptor)
        raise link_refused(path, "is not followed: it leads to a folder of another user")

    @contextmanager
    def _place(self, name: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        """The folder of a file, and the file's name in it."""
        *folders, last = _parts(name)
        with self.folder("/".join(folders), make=make) as descriptor:
            yield descriptor, last

    # ------------------------------------------------------------------------------------------------------- looking
    def name_of(self, path: Path) -> str:
        """The name of a path that begins with the root's."""
        return path.relative_to(self.root).as_posix()

    def info(self, name: str) -> os.stat_result | None:
        """The facts of the file with this name, of a link itself; None if there is none or none can have the name."""
        try:
            with self._place(name) as (folder, last):
                return os.stat(last, dir_fd=folder, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return None
            raise

    def is_file(self, name: str) -> bool:
        """Test for a regular file with this name; a link is none."""
        found = self.info(name)
        return found is not None and stat.S_ISREG(found.st_mode)

    def is_no_folder(self, name: str) -> bool:
        """Test for something with this name that is no folder: a file, a link, a device."""
        found = self.info(name)
        return found is not None and not stat.S_ISDIR(found.st_mode)

    def names(self, folder: str = "") -> list[str]:
        """The names in a folder, sorted, each with the folder's name before it; none when the folder is not there."""
        try:
            with self.folder(folder) as descriptor:
                found = os.listdir(descriptor)
        except FileNotFoundError:
            return []
        return sorted(f"{folder}/{name}" if folder else name for name in found)

    @contextmanager
    def open_file(self, name: str) -> Iterator[IO[bytes]]:
        """A regular file open for reading. Raises StorageError when it is another kind of file."""
        with self._place(name) as (folder, last):
            descriptor = self._regular(name, _READ, last, folder)
        with os.fdopen(descriptor, "rb") as file:
            yield file

    # ------------------------------------------------------------------------------------------------------- changing
    @contextmanager
    def grown_file(self, name: str) -> Iterator[IO[bytes]]:
        """A regular file open for reading and appending; made when it is not there. It has no other name.

        Raises StorageError when it is another kind of file.
        """
        with self._place(name, make=True) as (folder, last):
            descriptor = self._regular(name, _GROWN, last, folder)
        with os.fdopen(descriptor, "a+b") as file:
            if os.fstat(descriptor).st_nlink != 1:
                raise StorageError(f"{self.root / name}: a file with several names", "remove it")
            yield file

    def _regular(self, name: str, flags: int, last: str, folder: int) -> int:
        try:
            descriptor = os.open(last, flags, 0o666, dir_fd=folder)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise link_refused(self.root / name, "is not followed") from None
            if error.errno in (errno.ENXIO, errno.EISDIR):
                raise StorageError(f"{self.root / name}: not a file", "remove it") from None
            raise
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        raise StorageError(f"{self.root / name}: not a file", "remove it")

    def remove(self, name: str) -> None:
        """Removes a file, or a link and not its target; does nothing when there is none.

        Raises StorageError when it is a folder.
        """
        with contextlib.suppress(FileNotFoundError), self._place(name) as (folder, last):
            if stat.S_ISDIR(os.stat(last, dir_fd=folder, follow_symlinks=False).st_mode):
                raise _no_file(self.root / name)
            os.unlink(last, dir_fd=folder)

    def remove_if_empty(self, folder: str) -> None:
        """Removes a folder that holds nothing; no link, and nothing else."""
        with contextlib.suppress(OSError, StorageError), self._place(folder) as (outer, last):
            os.rmdir(last, dir_fd=outer)

    def check_replaceable(self, name: str) -> None:
        """Raises StorageError when something that is neither file nor link has the name."""
        with contextlib.suppress(FileNotFoundError), self._place(name) as (folder, last):
            _check_replaceable(last, folder, self.root / name)

    def move(self, source: str, place: str) -> None:
        """Renames a regular file; one that belongs on another disk, behind a link, is copied there, then removed.

        Raises StorageError as `check_replaceable` of the place.
        """
        with self._place(source) as (old, name), self._place(place, make=True) as (new, last):
            found = os.stat(name, dir_fd=old, follow_symlinks=False)
            if not stat.S_ISREG(found.st_mode):
                raise StorageError(f"{self.root / source}: not a file", "remove it")
            _check_replaceable(last, new, self.root / place)
            try:
                os.replace(name, last, src_dir_fd=old, dst_dir_fd=new)
                return
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
        with self.open_file(source) as original, self.new_file(place) as copy:
            shutil.copyfileobj(original, copy, _COPY_BYTES)
            copy.flush()
            os.utime(copy.fileno(), ns=(found.st_atime_ns, found.st_mtime_ns))
        self.remove(source)

    @contextmanager
    def new_file(self, name: str, ready: Callable[[os.stat_result], None] | None = None) -> Iterator[IO[bytes]]:
        """A file open for writing and reading that takes its name, synced, only when the block ends well.

        ready: called with the facts of the file just before it takes its name; the rename does not change them.
        """
        new = NewFile(self, name)
        try:
            file = new.begin()
            yield file
            new.finish()
            if ready is not None:
                ready(os.fstat(file.fileno()))
            new.rename()
        finally:
            new.discard()


class NewFile:
    """A file that is written under a hidden name, made for it, until `rename`. `discard` must end it.

    It is not there before `begin`. If the caller arranges `discard` before, an interrupt in `begin` leaves nothing.
    """

    def __init__(self, tree: FolderTree, name: str):
        *folders, self._name = _parts(name)
        self._tree, self._folder = tree, "/".join(folders)
        self._temporary = f".{self._name}.{secrets.token_hex(8)}{_PART}"
        self._file: IO[bytes] | None = None
        self._is_begun = self._is_published = False

    def begin(self, buffering: int = -1) -> IO[bytes]:
        """Makes the file, and the folders on the way; returns it, open for writing and reading.

        buffering: as of Python's `open`. Raises StorageError when something that is neither file nor link has the name:
        a rename would put a file in the place of a device.
        """
        with self._tree.folder(self._folder, make=True) as descriptor:
            _check_replaceable(self._name, descriptor, self._tree.root / self._folder / self._name)
            self._is_begun = True
            handle = os.open(self._temporary, _NEW, 0o666, dir_fd=descriptor)
        self._file = os.fdopen(handle, "w+b", buffering)
        return self._file

    def finish(self) -> None:
        """Syncs all of the file to the disk."""
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())

    def rename(self) -> None:
        """Gives the file its name, after `finish`."""
        with self._tree.folder(self._folder) as descriptor:
            os.replace(self._temporary, self._name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
        self._is_published = True

    def discard(self) -> None:
        """Closes the file, and removes it unless it has its name."""
        try:
            if self._file is not None:
                self._file.close()
        finally:
            if self._is_begun and not self._is_published:
                self._tree.remove(f"{self._folder}/{self._temporary}" if self._folder else self._temporary)


def _check_replaceable(name: str, folder: int, path: Path) -> None:
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)):
        raise _no_file(path)


def _no_file(path: Path) -> StorageError:
    return StorageError(f"{path}: not a file, and a file must have this name", "move it away, or name another file")


def _parts(name: str) -> tuple[str, ...]:
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or parts[0] == "/":
        raise ValueError(f"{name!r}: not a name below a folder")
    return parts


def final_name(name: str) -> str | None:
    """The final name of an unfinished file, by its present name in its folder; None for any other file."""
    found = _UNFINISHED.fullmatch(name)
    return None if found is None else found[1]


def place_of(found: os.stat_result) -> dict[str, int]:
    """Size, modification time and inode of a file."""
    return {"bytes": found.st_size, "mtime_ns": found.st_mtime_ns, "inode": found.st_ino}


def link_refused(path: Path, why: str, hint: str = "remove the link, or put a folder in its place") -> StorageError:
    """The error for a link below the folder of a model."""
    try:
        target = f" to {os.readlink(path)}"
    except OSError:
        target = ""
    return StorageError(f"{path}: a link{target}, which {why}", hint)


def _link(name: str, outer: int, path: Path) -> tuple[int, str]:
    """Owner and text of a link. Raises StorageError for anything else."""
    try:
        return read_link(name, outer)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise StorageError(f"{path}: not a folder", "move it away") from None


def read_link(name: str, outer: int) -> tuple[int, str]:
    """Owner and text of one and the same link in an open folder, even if another process exchanges it meanwhile.

    Raises OSError, with EINVAL for a file that is no link.
    """
    if not hasattr(os, "O_PATH"):  # only Linux can open a link itself
        return os.stat(name, dir_fd=outer, follow_symlinks=False).st_uid, os.readlink(name, dir_fd=outer)
    link = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=outer)
    try:
        if not stat.S_ISLNK(os.fstat(link).st_mode):
            raise OSError(errno.EINVAL, "not a link")
        return os.fstat(link).st_uid, os.readlink("", dir_fd=link)
    finally:
        os.close(link)
