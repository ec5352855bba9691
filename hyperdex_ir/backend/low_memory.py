"""`low_memory_usage`: deletes what a compiled model does not need, of what the tool has downloaded or made."""

from __future__ import annotations

from pathlib import Path

from hyperdex_ir.backend.checkpoint import weight_files_of
from hyperdex_ir.backend.finished import CONVERT
from hyperdex_ir.backend.state import State
from hyperdex_ir.checkpoint.gguf import is_made
from hyperdex_ir.hub.download import is_fetched
from hyperdex_ir.support.folder_access import FolderTree
from hyperdex_ir.support.locations import ModelFolder
from hyperdex_ir.support.progress import log


def delete_weights(folder: ModelFolder, state: State) -> None:
    """Deletes the original weights and the converted checkpoint; nothing if files of somebody else are among them."""
    if kept := kept_weights(folder):
        log(f"Nothing is deleted in {folder.root}: {kept}")
        return
    state.drop_file(CONVERT, folder.binary_name)
    beside = FolderTree(folder.source.parent)
    for path in weight_files_of(folder):
        if _is_own(folder, path):
            beside.remove(beside.name_of(path))
        else:
            log(f"{path}: not deleted: it is no longer the file that was downloaded or made")
    state.tree.remove(folder.binary_name)
    log(f"Delete the original weights and the converted checkpoint in {folder.source}")


def kept_weights(folder: ModelFolder) -> str | None:
    """The reason not to delete the original weights; None when the tool has downloaded or made all of them.

    Call this anew before each use: the user may put other weights there while a compile works.
    """
    if not folder.made_by_tool:
        return "the folder is not the compiler's own"
    others = [path.name for path in weight_files_of(folder) if not _is_own(folder, path)]
    return f"nothing says that this tool has downloaded or made {', '.join(others)}" if others else None


def _is_own(folder: ModelFolder, path: Path) -> bool:
    name = path.relative_to(folder.source).as_posix()
    return (is_fetched if folder.gguf is None else is_made)(folder, name)
