"""Links that a user has made on purpose: `ckpt/` or `param/` on another disk.

A link from a stranger's archive belongs to the user too, once it is unpacked. So the folder that it leads to decides.
It must be empty, or hold nothing but files that a compile of this very folder has written, known by size and
modification time. For `ckpt` it may also be the checkpoint that is compiled, where the compiler only adds files. It is
never the folder of another model.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

from hyperdex_ir.backend.lock import LOCK_FILE
from hyperdex_ir.backend.state import State
from hyperdex_ir.backend.written import STAGING, STATE_FILE, is_own, is_unfinished
from hyperdex_ir.checkpoint.gguf import made_files
from hyperdex_ir.errors import OptionError
from hyperdex_ir.hub.download import CONFIG
from hyperdex_ir.support.folder_access import LINKED, FolderTree, link_refused
from hyperdex_ir.support.locations import GGUF_MARKER, MARKER, ModelFolder, hub_root

#: Files that only the compiler makes, in the folder of a model: a folder with one holds a model of the user's.
_OF_A_MODEL = (STATE_FILE, STAGING, LOCK_FILE)


def check_links(folder: ModelFolder) -> None:
    """Check the links `ckpt` and `param`: raises StorageError where one leads to files that are not this model's.

    The caller must hold the folder's lock, and must call this before anything is written. Where the output goes
    elsewhere, the `ckpt` of the download is checked too: files are removed there.
    """
    places = [(FolderTree(folder.root), name) for name in LINKED]
    source = folder.source
    if source.name == "ckpt" and source != folder.ckpt and (folder.hub_id is not None or folder.made_by_tool):
        places.append((FolderTree(source.parent), "ckpt"))
    for tree, name in places:
        found = tree.info(name) if tree.root.is_dir() else None
        if found is not None and stat.S_ISLNK(found.st_mode):
            _check_link(folder, tree, name)


def _check_link(folder: ModelFolder, tree: FolderTree, link: str) -> None:
    names = tree.names(link)
    _check_owner(tree, link)
    made = made_files(tree.root / link, tree.root) if f"{link}/{GGUF_MARKER}" in names else {}
    known = _written_files(tree)
    for name, entry in made.items():
        known.setdefault(f"{link}/{name}", []).append(entry)
    is_checkpoint = not made and tree.root / link == folder.source and _is_checkpoint(folder, tree, names)
    unknown = [
        name
        for name in names
        if not (is_unfinished(name) or _is_known(tree, name, known) or (is_checkpoint and not is_own(name)))
    ]
    if unknown:
        shown = [name.rpartition("/")[2] for name in unknown]
        way = f"delete {', '.join(shown)} there" if is_checkpoint else "empty the folder that it leads to"
        why = f"holds {shown[0]}: no compile of this folder has written that"
        raise link_refused(tree.root / link, why, f"remove the link; or, to keep it, {way}")


def _check_owner(tree: FolderTree, link: str) -> None:
    """Check that a link does not lead into the folder of another model; else raises StorageError."""
    owner, root = (tree.root / link).resolve().parent, tree.root.resolve()
    if owner == root:
        return
    outer = FolderTree(owner)
    if _is_below_hub(owner) or any(outer.info(name) is not None for name in _OF_A_MODEL):
        raise link_refused(tree.root / link, f"is not followed: it leads into the folder of another model, {owner}")


def _is_below_hub(path: Path) -> bool:
    try:
        return hub_root().resolve() in path.parents
    except OptionError:  # there is no home directory
        return False


def _is_checkpoint(folder: ModelFolder, tree: FolderTree, names: list[str]) -> bool:
    """Test that `ckpt` is the checkpoint to compile, or one that is being downloaded."""
    is_there = f"ckpt/{CONFIG}" in names or f"ckpt/{MARKER}" in names
    return is_there and folder.gguf is None and tree.info(CONFIG) is None


def _written_files(tree: FolderTree) -> dict[str, list[dict[str, Any]]]:
    """The entries of every file that a compile has recorded, finished, staged, or on the way to its place, by name."""
    states = [State.load(tree.root), State.load(tree.root, f"{STAGING}/{STATE_FILE}")]
    records = [record for one in states for table in (one.phases, one.staged) for record in table.values()]
    found: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        for name, entry in record["files"].items():
            found.setdefault(name, []).append(entry)
    return found


def _is_known(tree: FolderTree, name: str, known: dict[str, list[dict[str, Any]]]) -> bool:
    found = tree.info(name)
    if found is None:
        return True
    place = {"bytes": found.st_size, "mtime_ns": found.st_mtime_ns}
    return any(place.items() <= entry.items() for entry in known.get(name, ()))
