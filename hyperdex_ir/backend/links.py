"""Links that a user has made on purpose: `ckpt/` or `param/` on another disk.

A link from a stranger's archive belongs to the user too, once it is unpacked. So what the link leads to decides: a
folder that is empty, or that holds nothing but what a compile of this very folder has written, known by size and
modification time; or, for `ckpt`, the checkpoint that is compiled, where the compiler only adds files.
"""

from __future__ import annotations

import stat
from typing import Any

from hyperdex_ir.backend.staging import holds_checkpoint
from hyperdex_ir.backend.state import State
from hyperdex_ir.backend.written import STAGING, STATE_FILE, is_own, is_unfinished
from hyperdex_ir.folder_access import LINKED, FolderTree, link_refused
from hyperdex_ir.gguf_checkpoint import made_files
from hyperdex_ir.hub import CONFIG
from hyperdex_ir.locations import MARKER, ModelFolder


def check_links(folder: ModelFolder) -> None:
    """Raises StorageError where `ckpt` or `param` is a link, and what it leads to is not this model's.

    For who holds the folder; before anything is written.
    """
    tree = FolderTree(folder.root)
    for name in LINKED:
        found = tree.info(name)
        if found is not None and stat.S_ISLNK(found.st_mode):
            _check_link(folder, tree, name)


def _check_link(folder: ModelFolder, tree: FolderTree, link: str) -> None:
    names, known = tree.names(link), _known_files(folder)
    is_checkpoint = link == "ckpt" and _is_checkpoint(folder, names)
    for name in names:
        if is_unfinished(name) or _is_known(tree, name, known) or (is_checkpoint and not is_own(name)):
            continue
        shown = name.rpartition("/")[2]
        raise link_refused(tree.root / link, f"holds {shown}: no compile of this folder has written that")


def _is_checkpoint(folder: ModelFolder, names: list[str]) -> bool:
    """Whether `ckpt` is the checkpoint to compile, or one that is being downloaded."""
    is_there = f"ckpt/{CONFIG}" in names or f"ckpt/{MARKER}" in names
    return is_there and folder.gguf is None and holds_checkpoint(folder)


def _known_files(folder: ModelFolder) -> list[tuple[str, dict[str, Any]]]:
    """Name and entry of every file that a compile has recorded, finished, staged, or on the way to its place."""
    states = [State.load(folder.root), State.load(folder.root, f"{STAGING}/{STATE_FILE}")]
    records = [record for one in states for table in (one.phases, one.staged) for record in table.values()]
    known = [entry for record in records for entry in record["files"].items()]
    made = made_files(folder.ckpt, folder.root) if folder.gguf is not None else {}
    return known + [(f"ckpt/{name}", entry) for name, entry in made.items()]


def _is_known(tree: FolderTree, name: str, known: list[tuple[str, dict[str, Any]]]) -> bool:
    found = tree.info(name)
    if found is None:
        return True
    place = {"bytes": found.st_size, "mtime_ns": found.st_mtime_ns}
    return any(each == name and place.items() <= entry.items() for each, entry in known)
