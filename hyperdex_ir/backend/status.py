"""What the folder of a model holds: the checkpoint, what is compiled from it, what killed compiles have left."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hyperdex_ir.backend.state import STAGING, State, leftovers
from hyperdex_ir.errors import FileFormatError
from hyperdex_ir.hub import weight_files
from hyperdex_ir.locations import ModelFolder
from hyperdex_ir.memory.serialize import manifest_entries

#: What the compiler writes into a folder, beside ckpt/: the patterns of the files.
_WRITTEN = ("ckpt/hyperdex_config.json", "ckpt/hyperdex_model.bin", "param/*.bin", "config/*.json", "inst/*.bin",
            "inst/*.json", f"{STAGING}/*", f"{STAGING}/*/*")  # fmt: skip


def status(folder: ModelFolder) -> dict[str, Any]:
    """The facts of a folder, as JSON values; sizes in bytes. Nothing is read but the manifest and the state.

    devices: number of devices -> what the model is compiled for. A manifest that cannot be read counts as none and is
    named in `fault`.
    """
    found = ((place, _weights(place)) for place in dict.fromkeys((folder.source, folder.ckpt, folder.root)))
    source, weights = next(((place, files) for place, files in found if files), (folder.source, []))
    facts: dict[str, Any] = {
        "folder": str(folder.root),
        "checkpoint": {"folder": str(source), "files": len(weights), "bytes": _bytes(weights)},
        "converted_bytes": _bytes([folder.model_binary]),
        "devices": {},
        "stale": {"files": len(stale := stale_files(folder.root)), "bytes": _bytes(stale)},
    }
    try:
        entries = manifest_entries(folder.manifest)
    except FileFormatError as error:
        return {**facts, "fault": str(error)}
    for count, entry in entries.items():
        sizes = [one["bytes"] for one in entry["files"].values() if isinstance(one, dict) and "bytes" in one]
        sizes = [size for size in sizes if isinstance(size, int)]
        facts["devices"][count] = {
            "target": entry.get("target"),
            "options": entry.get("options", {}),
            "files": len(sizes),
            "bytes": sum(sizes),
        }
    return facts


def _weights(place: Path) -> list[Path]:
    return [path for path in weight_files(place) if path.is_file()]


def stale_files(root: Path) -> list[Path]:
    """What no model uses: unfinished files, those of unfinished compiles, and what of the compiler's nothing lists.

    For who holds the folder; while a compile works, its own files are among them.
    """
    used = _listed(root)
    return sorted({*leftovers(root), *(path for path in _found(root) if path not in used)})


def written_files(root: Path) -> list[Path]:
    """What the compiler has written into a folder, by name, listed or not; manifest and state aside."""
    return sorted({*_listed(root), *_found(root)})


def _listed(root: Path) -> set[Path]:
    state = State.load(root)
    return {root / name for record in state.phases.values() for name in record["files"]}


def _found(root: Path) -> list[Path]:
    return [path for pattern in _WRITTEN for path in root.glob(pattern) if path.is_file()]


def _bytes(files: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in files if path.is_file())
