"""The files of an unfinished compile, in a folder of their own: the earlier model stays whole and can be run.

Everything goes into a hidden folder, in the folder of the model. When the last phase is finished, the final state and
then the final manifest are written there too. From then on there are only renames; the manifest's is the last. A
process that is killed between these leaves a manifest that does not fit the files: opening the model detects that, and
the next compile continues.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hyperdex_ir.backend.state import State
from hyperdex_ir.backend.written import FOLDERS, MANIFEST, STAGING, STATE_FILE, is_copy
from hyperdex_ir.support.files import storage_errors
from hyperdex_ir.support.folder_access import FolderTree
from hyperdex_ir.support.locations import CONFIG, ModelFolder

_NEXT_MANIFEST, _NEXT_STATE = f"{STAGING}/{MANIFEST}", f"{STAGING}/{STATE_FILE}"


@dataclass(frozen=True)
class CompileFolder(ModelFolder):
    """A folder below that of a model, `anchored`, whose converted checkpoint lies in `converted`."""

    anchored: Path | None = None
    converted: Path | None = None

    @property
    def anchor(self) -> Path:
        """The folder of the model."""
        return self.anchored or super().anchor

    @property
    def ckpt(self) -> Path:
        """Tokenizer, config.json and the converted checkpoint."""
        return self.converted or super().ckpt


def compile_folder(folder: ModelFolder, root: Path, converted: Path) -> CompileFolder:
    """The folder with its files below another root, and the converted checkpoint in `converted`."""
    return CompileFolder(root, folder.source, folder.hub_id, folder.made_by_tool, folder.gguf, folder.anchor, converted)


def holds_checkpoint(folder: ModelFolder) -> bool:
    """Test that the original checkpoint lies in `ckpt/`, where the compiler writes too."""
    is_made_there = folder.hub_id is not None or folder.gguf is not None
    return folder.source == folder.ckpt and (is_made_there or FolderTree(folder.root).info(CONFIG) is None)


def settle(folder: ModelFolder) -> State:
    """Moves the staged files into place once their manifest is there; returns the state of the folder.

    Raises StorageError when the file system refuses, or as `check_places`; call it again then.
    """
    root, tree = folder.root, FolderTree(folder.root)
    if tree.is_file(_NEXT_MANIFEST):
        with storage_errors(root):
            check_places(folder)
            if tree.is_file(_NEXT_STATE):
                _settle_files(tree, State.load(root), State.load(root, _NEXT_STATE), holds_checkpoint(folder))
                tree.move(_NEXT_STATE, STATE_FILE)
            tree.move(_NEXT_MANIFEST, MANIFEST)
    remove_empty_folders(tree)
    return State.load(root)


def check_places(folder: ModelFolder) -> None:
    """Check, before the first move, that `settle` finds no folder or device in the place of a file; else raises
    StorageError."""
    root, tree = folder.root, FolderTree(folder.root)
    if not tree.is_file(_NEXT_MANIFEST):
        return
    moved = _moved(tree, State.load(root), State.load(root, _NEXT_STATE), holds_checkpoint(folder))
    for name in (*moved, STATE_FILE, MANIFEST):
        tree.check_replaceable(name)


def _moved(tree: FolderTree, old: State, new: State, beside_checkpoint: bool) -> list[str]:
    """The staged files to move to their places, in order.

    Copies are not put beside a checkpoint in `ckpt/`: a compile of that makes none, so they are a stranger's. Where its
    config.json is itself a recorded copy, `ckpt/` is the output of a compile of a checkpoint elsewhere.
    """
    # The program first: an opened model sees at once that it does not fit the manifest. The tokenizer comes last.
    names = [name for phase in sorted(new.phases, reverse=True) for name in new.entries(phase)]
    staged = [name for name in names if tree.is_file(f"{STAGING}/{name}")]
    if beside_checkpoint and not any(one.is_in_place(f"ckpt/{CONFIG}") for one in (old, new)):
        staged = [name for name in staged if not is_copy(name)]
    return [name for name in staged if old.may_replace(name, beside_checkpoint=beside_checkpoint)]


def _settle_files(tree: FolderTree, old: State, new: State, beside_checkpoint: bool) -> None:
    for name in _moved(tree, old, new, beside_checkpoint):
        tree.move(f"{STAGING}/{name}", name)
    names = [name for record in new.phases.values() for name in record["files"]]
    replaced = {name for phase, record in old.phases.items() if phase in new.phases for name in record["files"]}
    for name in sorted(replaced.difference(names)):  # an earlier target may have had more channels
        if tree.is_no_folder(name) and old.may_replace(name, beside_checkpoint=beside_checkpoint):
            tree.remove(name)


def remove_empty_folders(tree: FolderTree) -> None:
    """Removes empty folders among a model's staged files."""
    for name in (*(f"{STAGING}/{folder}" for folder in FOLDERS), STAGING):
        tree.remove_if_empty(name)
