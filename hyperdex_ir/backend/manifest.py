"""`manifest.json`, written last: versions, target, options, and size and hash of every file, each read back once."""

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
from hyperdex_ir.memory.serialize import FORMAT, dump_json

_KINDS = {"param": Kind.PARAMETERS, "inst": Kind.INSTRUCTIONS, "ckpt": Kind.MODEL}


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
    return {"bytes": size, "sha256": sha.hexdigest()}


def write_manifest(
    path: Path,
    facts: Mapping[str, Any],
    files: Iterable[Path],
    advance: Callable[[int], None] = lambda count: None,
) -> None:
    """Reads every file back, checks it, and writes the manifest of the folder that `path` is in.

    `facts` (target, options, ...) stand before the files. Raises FileFormatError when a file is damaged.
    """
    table: dict[str, Any] = {}
    for file in sorted(files):
        kind = _KINDS.get(file.parent.name) if file.suffix == ".bin" else None
        table[file.relative_to(path.parent).as_posix()] = describe_file(file, kind, advance)
    write_text(path, dump_json({"format": FORMAT, "versions": versions(), **facts, "files": table}))
