"""`manifest.json`: size and hash of every file, each read back once; versions, target and options.

    {"format", "model", "files": of ckpt/, "devices": {"1": {"versions", "target", "options", "files"}, "2": ...}}

One model can be compiled for several numbers of devices; each has an entry, with files of its own.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from hyperdex_ir.backend.payload import BLOCK_BYTES
from hyperdex_ir.backend.state import State
from hyperdex_ir.errors import FileFormatError
from hyperdex_ir.memory.serialize import FORMAT, dump_json, manifest_entries
from hyperdex_ir.support.files import HEADER_BYTES, Kind, read_header, write_text
from hyperdex_ir.support.locations import ModelFolder
from hyperdex_ir.support.own_code import versions
from hyperdex_ir.support.reading import open_regular

_KINDS = {"param": Kind.PARAMETERS, "inst": Kind.INSTRUCTIONS, "ckpt": Kind.MODEL}


def kind_of(path: Path) -> Kind | None:
    """The kind of a file of a compiled model, by its place; None for text."""
    return _KINDS.get(path.parent.name) if path.suffix == ".bin" else None


def describe_file(path: Path, kind: Kind | None, advance: Callable[[int], None]) -> dict[str, Any]:
    """Size and SHA-256 of a file as it lies on the disk.

    Raises FileFormatError when it is a binary file of ours and its payload is not what its header says.
    """
    with open_regular(path, FileFormatError) as file:
        expected = read_header(file, path, kind)[1] if kind is not None else None
        file.seek(0)
        sha, crc, size = hashlib.sha256(file.read(HEADER_BYTES)), 0, os.fstat(file.fileno()).st_size
        file.seek(HEADER_BYTES)
        while block := file.read(BLOCK_BYTES):
            sha.update(block)
            if expected is not None:
                crc = zlib.crc32(block, crc)
            advance(len(block))
    if expected is not None and crc != expected:
        raise FileFormatError(f"{path}: does not read back as it was written", "check the disk, and compile again")
    known = {} if expected is None else {"crc32": expected}
    return {"bytes": size, "sha256": sha.hexdigest(), **known}


def describe_files(
    state: State, phases: Iterable[str], advance: Callable[[int], None], without: Collection[str] = ()
) -> dict[str, Any]:
    """The manifest's table of the files of finished phases; files without a hash in the state are read to record one.

    without: names of files to leave out. Raises FileFormatError when a file is damaged.
    """
    table: dict[str, Any] = {}
    for phase in phases:
        entries = state.entries(phase)
        for name, path in state.files(phase).items():
            if name in without:
                continue
            if "sha256" not in entries[name]:
                entries[name] |= describe_file(path, kind_of(path), advance)
            table[name] = {key: entries[name][key] for key in ("bytes", "sha256", "crc32") if key in entries[name]}
    state.save()
    return dict(sorted(table.items()))


def unread_bytes(state: State, phases: Iterable[str]) -> int:
    """Number of bytes that `describe_files` would read."""
    entries = [entry for phase in phases for entry in state.entries(phase).values()]
    return sum(entry["bytes"] for entry in entries if "sha256" not in entry)


def write_manifest(
    path: Path, folder: ModelFolder, head: Mapping[str, Any], num_device: int, entry: Mapping[str, Any]
) -> None:
    """Writes a manifest with an entry for `num_device`; entries for other numbers are those of the folder's manifest.

    head: `model` and the `files` that the compiles for all numbers of devices share. entry: target, options, files.
    """
    entries = {**_entries(folder.manifest), str(num_device): {"versions": versions(), **entry}}
    devices = {key: entries[key] for key in sorted(entries, key=int)}
    write_text(path, dump_json({"format": FORMAT, **head, "devices": devices}), folder.anchor)


def listed_counts(path: Path) -> list[int]:
    """The numbers of devices that the manifest has entries for; none when it cannot be read."""
    return [int(count) for count in _entries(path)]


def _entries(path: Path) -> dict[str, Any]:
    try:
        return manifest_entries(path)
    except FileFormatError:  # of another version, say: nothing in it can be relied on
        return {}
