"""Check of every byte of a compiled model against the manifest's record of the files as they were written."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperdex_ir.backend.manifest import describe_file, kind_of
from hyperdex_ir.backend.written import is_larger_than_written
from hyperdex_ir.errors import COMPILE_AGAIN, FileFormatError, NotCompiledError
from hyperdex_ir.memory.fields import shown
from hyperdex_ir.memory.serialize import load_json, manifest_entries
from hyperdex_ir.support.locations import is_safe


@dataclass(frozen=True)
class Listed:
    """A file as the manifest lists it: its place below the folder, its size in bytes, the SHA-256 of its contents."""

    name: str
    size: int
    sha256: str


def listed_files(manifest: Path) -> list[Listed]:
    """All files that a manifest lists, by name.

    Raises NotCompiledError when there is no manifest, FileFormatError when it is broken or leads out of its folder.
    """
    if not manifest.is_file():
        raise NotCompiledError(
            f"{manifest.parent}: not compiled", f"hyperdex compile {shlex.quote(str(manifest.parent))}"
        )
    tables = [load_json(manifest).get("files"), *(entry["files"] for entry in manifest_entries(manifest).values())]
    found = {one.name: one for table in tables for one in _listed(manifest, table)}
    return [found[name] for name in sorted(found)]


def _listed(manifest: Path, table: Any) -> Iterator[Listed]:
    if not isinstance(table, dict):
        raise FileFormatError(f"{manifest}: does not list files", COMPILE_AGAIN)
    for name, entry in table.items():
        if not is_safe(name):
            raise FileFormatError(f"{manifest}: lists {shown(name)}, the name of no file, or not below the folder")
        match entry:
            case {"bytes": int(size), "sha256": str(sha256)}:
                yield Listed(name, size, sha256)
            case _:
                raise FileFormatError(f"{manifest}: {name} has no size and hash", COMPILE_AGAIN)


def check_file(root: Path, listed: Listed, advance: Callable[[int], None] = lambda count: None) -> str:
    """The defect of a file, or an empty text. Reads every byte of a file of the right size."""
    path = root / listed.name
    try:
        if (size := path.stat().st_size) != listed.size and path.is_file():
            return f"{size:,} bytes, {listed.size:,} were written"
        if is_larger_than_written(listed.name, size):
            return f"{size:,} bytes, more than any file of this name has"
        found = describe_file(path, kind_of(path), advance)
    except FileNotFoundError:
        return "no such file"
    except FileFormatError as error:
        return str(error).removeprefix(f"{path}: ")
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "" if found["sha256"] == listed.sha256 else "other contents than were written"
