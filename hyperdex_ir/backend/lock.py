"""The lock of a model's folder: one process at a time works on it, another waits and finds the first one's result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from hyperdex_ir.errors import StorageError
from hyperdex_ir.support.files import storage_errors
from hyperdex_ir.support.folder_access import FolderTree
from hyperdex_ir.support.progress import log

LOCK_FILE = ".hyperdex.lock"


@contextmanager
def locked_folder(root: Path, hint: str = "") -> Iterator[None]:
    """Holds the folder, which is made if it is not there; the system releases it when the process dies.

    hint: for the error of a folder that cannot be written.

    Folders that were made and hold nothing at the end are removed again. Raises StorageError when the file system
    refuses, or the lock is not a file with one name.
    """
    new = [path for path in (root, *root.parents) if not path.exists()]
    path, tree = root / LOCK_FILE, FolderTree(root)
    lock = FileLock(path)
    with storage_errors(path, hint):
        root.mkdir(parents=True, exist_ok=True)
        _check_lock(tree, path)
        _acquire(lock, root)
    try:
        yield
    finally:
        tree.remove(LOCK_FILE)  # while it is held: a process that waits for it notices and begins again
        lock.release()
        _remove_empty(new)


def _check_lock(tree: FolderTree, path: Path) -> None:
    """Raises StorageError when another file would be opened, and locked, by this name. filelock follows no link."""
    found = tree.info(LOCK_FILE)
    if found is not None and not (tree.is_file(LOCK_FILE) and found.st_nlink == 1):
        raise StorageError(f"{path}: not a file with one name", "remove it")


def _acquire(lock: FileLock, root: Path) -> None:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        log(f"Wait for another process that works on {root}")
        lock.acquire()


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:  # it holds something, or another process uses it
            return
