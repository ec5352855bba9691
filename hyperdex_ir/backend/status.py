"""The contents of a model's folder: the checkpoint, the compiled files, the leftovers of killed compiles."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hyperdex_ir.backend.kept_sources import kept_source
from hyperdex_ir.backend.state import State
from hyperdex_ir.backend.written import is_own, is_unfinished, own_files
from hyperdex_ir.checkpoint.files import weight_files
from hyperdex_ir.checkpoint.other_names import names_in, weights_among
from hyperdex_ir.errors import FileFormatError, StorageError
from hyperdex_ir.memory.serialize import manifest_entries
from hyperdex_ir.support.folder_access import FolderTree
from hyperdex_ir.support.locations import ModelFolder
from hyperdex_ir.targets import shown_target


def status(folder: ModelFolder) -> dict[str, Any]:
    """The facts of a folder, as JSON values; sizes in bytes. Nothing is read but the manifest and the state.

    devices: number of devices -> what the model is compiled for. A manifest that cannot be read counts as none and is
    named in `fault`.
    """
    source, weights = _checkpoint(folder)
    facts: dict[str, Any] = {
        "folder": str(folder.root),
        "checkpoint": {"folder": str(source), "files": len(weights), "bytes": _bytes(weights)},
        "converted_bytes": _bytes([folder.model_binary]),
        "devices": {},
        "stale": {"files": 0, "bytes": 0},
    }
    try:
        tree, stale = FolderTree(folder.root), stale_files(folder.root)
        sizes = [found.st_size for name in stale if (found := tree.info(name)) is not None]
        facts["stale"] = {"files": len(stale), "bytes": sum(sizes)}
        entries = manifest_entries(folder.manifest)
    except (FileFormatError, StorageError) as error:
        return {**facts, "fault": str(error)}
    for count, entry in entries.items():
        sizes = [one["bytes"] for one in entry["files"].values() if isinstance(one, dict) and "bytes" in one]
        sizes = [size for size in sizes if isinstance(size, int)]
        facts["devices"][count] = {
            "target": shown_target(entry["target"]) if "target" in entry else None,
            "options": entry.get("options", {}),
            "files": len(sizes),
            "bytes": sum(sizes),
        }
    return facts


def _checkpoint(folder: ModelFolder) -> tuple[Path, list[Path]]:
    """The folder of the original weights and its weight files, under any name where there are none by the usual ones.

    The weights of a model that was compiled from a GGUF file, and were deleted, are that file.
    """
    kept = kept_source(folder)
    places = [*dict.fromkeys((folder.source, folder.ckpt, folder.root)), *([] if kept is None else [kept])]
    for weights in (_weights, _other_weights):
        for place in places:
            if found := weights(place):
                return place, found
    return (folder.source, []) if folder.gguf is None else (folder.gguf.parent, [folder.gguf])


def _weights(place: Path) -> list[Path]:
    return [path for path in weight_files(place) if path.is_file()]


def _other_weights(place: Path) -> list[Path]:
    """Weights by other names; the compiler's own files, which may lie beside them, are none."""
    return [place / name for name in weights_among(names_in(place)) if not is_own(f"ckpt/{name}")]


def stale_files(root: Path) -> list[str]:
    """The files that no model uses, by name: unfinished ones, and the compiler's own that no record lists.

    Links among them count, not their targets. The caller must hold the folder's lock: the files of a compile at work
    are among them. Raises StorageError where a folder is a link that is not to be followed.
    """
    used = {name for record in State.load(root).phases.values() for name in record["files"]}
    return sorted(name for name in own_files(FolderTree(root)) if is_unfinished(name) or name not in used)


def written_files(root: Path, *, beside_checkpoint: bool) -> list[str]:
    """The files that the compiler has written into a folder, by name, listed or not; manifest and state aside.

    beside_checkpoint: as of `State.may_replace`. Raises as `stale_files`.
    """
    state = State.load(root)
    listed = {name for record in state.phases.values() for name in record["files"]}
    own = {name for name in listed if state.may_replace(name, beside_checkpoint=beside_checkpoint)}
    return sorted({*own, *own_files(FolderTree(root))})


def _bytes(files: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in files if path.is_file())
