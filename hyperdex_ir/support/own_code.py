"""The identity of the code that makes kept results: the files of this package and of extensions, and libraries."""

from __future__ import annotations

import hashlib
import json
import sys
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path

from hyperdex_ir import __version__

#: Libraries that shape the kept results; the others show, find or transport them.
LIBRARIES = ("gguf", "llvmlite", "numpy", "safetensors", "tokenizers", "torch", "transformers", "xdsl")
_PACKAGE = Path(__file__).parents[1]
#: Stands for code that is in no file: another process cannot tell that it has the same.
_SESSION = uuid.uuid4().hex
#: Libraries whose versions are recorded with the results.
_RECORDED = ("xdsl", "torch", "transformers", "numpy")


@cache
def versions() -> Mapping[str, str]:
    """Versions of this package and of the recorded libraries, as far as they are installed, by name."""
    found = {"hyperdex-ir": __version__}
    for name in _RECORDED:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


@cache
def code_digest() -> str:
    """A hash of this package's version, of all its files and of the versions of `LIBRARIES`: hexadecimal.

    All files count. A list of the files that matter would have to be kept right by hand, and reading all takes 10 ms.
    """
    versions = [f"{name} {metadata.version(name)}" for name in LIBRARIES]
    digest = hashlib.sha256("\n".join([__version__, *versions, ""]).encode())
    for path in sorted(path for path in _PACKAGE.rglob("*") if path.suffix != ".pyc" and path.is_file()):
        name = path.relative_to(_PACKAGE)
        if "__pycache__" in name.parts:  # importing writes temporary files there
            continue
        data = path.read_bytes()
        digest.update(f"{name.as_posix()} {len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()


def foreign_digest(modules: Iterable[str]) -> str:
    """A hash of the files of the packages that modules belong to, this one and xDSL aside; empty without any."""
    names = sorted({name.partition(".")[0] for name in modules} - {"hyperdex_ir", "xdsl"})
    hashes = [digest for name in names for digest in _file_hashes(name)]
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest() if hashes else ""


def _file_hashes(name: str) -> list[str]:
    """Hashes of the files of a package or module that has been imported."""
    module = sys.modules.get(name)
    paths = sorted(path for folder in getattr(module, "__path__", ()) for path in Path(folder).rglob("*.py"))
    if not paths and (file := getattr(module, "__file__", None)) is not None:
        paths = [Path(file)]
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths] or [_SESSION]
