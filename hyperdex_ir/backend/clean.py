"""Removes what no compile uses from the folder of a model, or everything that was compiled."""

from __future__ import annotations

from pathlib import Path

from hyperdex_ir.backend.lock import locked_folder
from hyperdex_ir.backend.staging import remove_empty_folders, settle
from hyperdex_ir.backend.state import STAGING, STATE_FILE, State
from hyperdex_ir.backend.status import stale_files, written_files
from hyperdex_ir.locations import ModelFolder


def clean_folder(folder: ModelFolder, *, compiled: bool, dry_run: bool) -> list[tuple[Path, int]]:
    """The files that go, by name, with their sizes in bytes. Waits for a compile that works on the folder.

    compiled: everything that the compiler has written goes; the original checkpoint stays. dry_run: nothing is removed.
    Raises StorageError when the file system refuses.
    """
    if not folder.root.is_dir():
        return []
    with locked_folder(folder.root):
        if not dry_run:
            settle(folder)
        records = [folder.manifest, folder.root / STATE_FILE] if compiled else []
        files = [*stale_files(folder.root), *(written_files(folder.root) if compiled else [])]
        found = [(path, path.stat().st_size) for path in dict.fromkeys([*records, *files]) if path.is_file()]
        for path, _ in () if dry_run else found:
            path.unlink()
        if not dry_run:
            State.load(folder.root).forget_staged()
            remove_empty_folders(folder.root / STAGING)
    return found
