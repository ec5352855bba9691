"""What a compile writes, until all of it is there: the model that was there before stays whole and can be run.

Everything goes into a hidden folder, in the folder of the model. When the last phase is finished, the state and then
the manifest as they are to be are written there too; from then on there are only renames, the manifest's last. A
process that is killed among these leaves a manifest that does not fit the files: who opens the model notices, and the
next compile goes on.
"""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from hyperdex_ir.backend.payload import BLOCK_BYTES
from hyperdex_ir.backend.state import STAGING, STATE_FILE, State
from hyperdex_ir.files import atomic_file, storage_errors
from hyperdex_ir.locations import ModelFolder

_FOLDERS = ("ckpt", "param", "config", "inst")


@dataclass(frozen=True)
class CompileFolder(ModelFolder):
    """A folder whose converted checkpoint may lie elsewhere: in `converted`, when that is not None."""

    converted: Path | None = None

    @property
    def ckpt(self) -> Path:
        """Tokenizer, config.json and the converted checkpoint."""
        return self.converted or super().ckpt


def compile_folder(folder: ModelFolder, root: Path, converted: Path) -> CompileFolder:
    """The folder with its files below another root, and the converted checkpoint in `converted`."""
    return CompileFolder(root, folder.source, folder.hub_id, folder.made_by_tool, folder.gguf, converted)


def settle(folder: ModelFolder) -> State:
    """Puts what is staged into its place, once there is a manifest for it; returns the state of the folder.

    Raises StorageError when the file system refuses; then to be called again.
    """
    root, staging = folder.root, folder.root / STAGING
    manifest = staging / folder.manifest.name
    if manifest.is_file():
        with storage_errors(root):
            if (staging / STATE_FILE).is_file():
                _settle_files(State.load(root), replace(State.load(staging), root=root))
                os.replace(staging / STATE_FILE, root / STATE_FILE)
            os.replace(manifest, folder.manifest)
    remove_empty_folders(staging)
    return State.load(root)


def _settle_files(old: State, new: State) -> None:
    # The program first: an opened model sees at once that it does not fit the manifest. The tokenizer comes last.
    names = [name for phase in sorted(new.phases, reverse=True) for name in new.entries(phase)]
    for name in names:
        place = new.root / name
        if (new.staging / name).is_file():
            place.parent.mkdir(exist_ok=True)
            _move(new.staging / name, place)
    replaced = {name for phase, record in old.phases.items() if phase in new.phases for name in record["files"]}
    for name in sorted(replaced.difference(names)):  # an earlier target may have had more channels
        (new.root / name).unlink(missing_ok=True)


def _move(source: Path, place: Path) -> None:
    """Renames a file; one that belongs on another disk, as where `ckpt` is a link, is copied there first."""
    try:
        os.replace(source, place)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with source.open("rb") as original, atomic_file(place) as copy:
            shutil.copyfileobj(original, copy, BLOCK_BYTES)
        source.unlink()


def remove_empty_folders(root: Path) -> None:
    """Removes the folders of a model, or of what is staged of it, that hold nothing."""
    for path in (*(root / name for name in _FOLDERS), root):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
