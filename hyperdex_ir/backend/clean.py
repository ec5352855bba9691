"""Removes the files that no compile uses from the folder of a model, or everything that was compiled."""

from __future__ import annotations

from pathlib import Path

from hyperdex_ir.backend.links import check_links
from hyperdex_ir.backend.lock import locked_folder
from hyperdex_ir.backend.staging import check_places, holds_checkpoint, remove_empty_folders, settle
from hyperdex_ir.backend.state import State
from hyperdex_ir.backend.status import stale_files, written_files
from hyperdex_ir.backend.written import MANIFEST, STATE_FILE
from hyperdex_ir.errors import StorageError
from hyperdex_ir.support.files import storage_errors
from hyperdex_ir.support.folder_access import FolderTree
from hyperdex_ir.support.locations import ModelFolder
from hyperdex_ir.support.progress import log


def clean_folder(folder: ModelFolder, *, compiled: bool, dry_run: bool) -> list[tuple[Path, int]]:
    """The files to remove, by name, with their sizes in bytes. Waits for a compile that works on the folder.

    compiled: also all files that the compiler has written; the original checkpoint stays. dry_run: nothing is removed.
    Raises StorageError when the file system refuses, or a folder is a link that is not to be followed.
    """
    if not folder.root.is_dir():
        return []
    tree = FolderTree(folder.root)
    with locked_folder(folder.root), storage_errors(folder.root):
        check_links(folder)
        if not dry_run:
            _settle(folder)
        found = [(name, tree.info(name)) for name in _names(folder, tree, compiled=compiled)]
        for name, _ in () if dry_run else found:
            tree.remove(name)
        if not dry_run:
            State.load(folder.root).forget_staged()
            remove_empty_folders(tree)
    return [(folder.root / name, facts.st_size) for name, facts in found if facts is not None]


def _settle(folder: ModelFolder) -> None:
    """Moves staged files into place. If something is in the way, removes them; the old model stays."""
    try:
        check_places(folder)
    except StorageError as error:
        log(f"What is staged is removed, for it cannot take its place: {error}")
    else:
        settle(folder)


def _names(folder: ModelFolder, tree: FolderTree, *, compiled: bool) -> list[str]:
    """The files to remove, each once."""
    names = stale_files(folder.root)
    if compiled:
        written = written_files(folder.root, beside_checkpoint=holds_checkpoint(folder))
        names = [MANIFEST, STATE_FILE, *names, *written]
    return [name for name in dict.fromkeys(names) if tree.is_no_folder(name)]
