"""`manifest.json`, written last: size and hash of every file, each read back once; versions, target and options.

    {"format", "model", "files": of ckpt/, "devices": {"1": {"versions", "target", "options", "files"}, "2": ...}}

One model can be compiled for several numbers of devices; each has an entry, and what it lists is its own.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from hyperdex_ir.backend.payload import BLOCK_BYTES
from hyperdex_ir.backend.state import versions
from hyperdex_ir.errors import FileFormatError
from hyperdex_ir.files import HEADER_BYTES, Kind, read_header, write_text
from hyperdex_ir.memory.serialize import FORMAT, dump_json, load_json, manifest_entries

_KINDS = {"param": Kind.PARAMETERS, "inst": Kind.INSTRUCTIONS, "ckpt": Kind.MODEL}


def kind_of(path: Path) -> Kind | None:
    """What a file of a compiled model holds, by its place; None for text."""
    return _KINDS.get(path.parent.name) if path.suffix == ".bin" else None


def describe_file(path: Path, kind: Kind | None, advance: Callable[[int], None]) -> dict[str, Any]:
    """Size and SHA-256 of a file as it lies on the disk.

    Raises FileFormatError when it is a binary file of ours and its payload is not what its header says.
    """
    with path.open("rb") as file:
        expected = read_header(file, path, kind)[1] if kind is not None else None
        file.seek(0)
        sha, crc, size = hashlib.sha256(file.read(HEADER_BYTES)), 0, path.stat().st_size
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


def write_manifest(
    path: Path,
    model: Mapping[str, Any],
    checkpoint: Iterable[Path],
    num_device: int,
    facts: Mapping[str, Any],
    files: Iterable[Path],
    advance: Callable[[int], None] = lambda count: None,
) -> None:
    """Reads the files of one compile back, checks them, and writes the manifest of the folder that `path` is in.

    checkpoint: the files that the compiles for all numbers of devices share; `model` describes them. files: those of
    the compile for `num_device`; `facts` (target, options) stand before them. Entries for other numbers stay.
    Raises FileFormatError when a file is damaged.
    """
    shared = _describe(path.parent, checkpoint, advance)
    entry = {"versions": versions(), **facts, "files": _describe(path.parent, files, advance)}
    entries = {**_entries(path), str(num_device): entry}
    _write(path, {"format": FORMAT, "model": model, "files": shared}, entries)


def _describe(root: Path, files: Iterable[Path], advance: Callable[[int], None]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for file in sorted(files):
        table[file.relative_to(root).as_posix()] = describe_file(file, kind_of(file), advance)
    return table


def listed_counts(path: Path) -> list[int]:
    """The numbers of devices that the manifest has entries for; none when it cannot be read."""
    return [int(count) for count in _entries(path)]


def withdraw(path: Path, num_device: int, checkpoint: bool) -> None:
    """Takes out what is about to be written anew: an entry, and with `checkpoint` the files that all share.

    A manifest that has no entries left, or cannot be read, is deleted.
    """
    entries = _entries(path)
    found = entries.pop(str(num_device), None)
    if not entries:
        path.unlink(missing_ok=True)
    elif found is not None or checkpoint:
        rest = {key: value for key, value in load_json(path).items() if key not in ("files", "devices")}
        _write(path, rest | {"files": {} if checkpoint else load_json(path).get("files", {})}, entries)


def _entries(path: Path) -> dict[str, Any]:
    try:
        return manifest_entries(path)
    except FileFormatError:  # of another version, say: nothing in it can be relied on
        return {}


def _write(path: Path, head: Mapping[str, Any], entries: Mapping[str, Any]) -> None:
    write_text(path, dump_json({**head, "devices": {key: entries[key] for key in sorted(entries, key=int)}}))
