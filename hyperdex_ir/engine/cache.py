"""Machine code kept on disk, so that opening a model generates none."""

from __future__ import annotations

import hashlib
import os
import tempfile
from functools import cache
from importlib import metadata
from pathlib import Path

from hyperdex_ir.engine.features import Features
from hyperdex_ir.locations import engine_cache

#: Files that stay when one is added: code of earlier versions is of no use for long.
_KEEP = 12
_MAGIC = b"HDXE\x01\x00\x00\x00"
_PACKAGE = Path(__file__).parent.parent
#: What generated code depends on.
_SOURCES = (
    *("engine/*.py", "interpreter/functions.py", "interpreter/ops.py", "isa/instructions.py", "isa/operands.py"),
    "targets/__init__.py",
)


@cache
def sources_digest() -> str:
    """A hash of everything that generated code depends on, but for the features: hexadecimal."""
    digest = hashlib.sha256()
    for pattern in _SOURCES:
        for path in sorted(_PACKAGE.glob(pattern)):
            data = path.read_bytes()
            digest.update(f"{path.relative_to(_PACKAGE).as_posix()} {len(data)}\n".encode())
            digest.update(data)
    digest.update(metadata.version("llvmlite").encode())
    return digest.hexdigest()


def engine_code(features: Features) -> bytes:
    """The engine as an object file: from the cache, or generated and put there."""
    key = hashlib.sha256(f"{sources_digest()} {features!r}".encode()).hexdigest()
    path = engine_cache() / f"{features.name}-{key[:32]}.o"
    code = _read(path, key)
    if code is None:
        from hyperdex_ir.engine.compile import compile_module, engine_module

        code = compile_module(engine_module(features), features)
        _write(path, key, code)
    return code


def _read(path: Path, key: str) -> bytes | None:
    """The code in a file of the cache; None when there is none, or it is not what was written for this key."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    head = len(_MAGIC) + hashlib.sha256().digest_size
    code = data[head:]
    return code if data[:head] == _MAGIC + _digest(key, code) else None


def _write(path: Path, key: str, code: bytes) -> None:
    """Puts code into the cache whole or not at all. A cache that cannot be written is none: the code is there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_MAGIC + _digest(key, code) + code)
            os.replace(name, path)
        except OSError:
            os.unlink(name)
            raise
        _prune(path.parent)
    except OSError:
        return


def _prune(folder: Path) -> None:
    """Removes the oldest files beyond `_KEEP`."""
    files = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files[_KEEP:]:
        path.unlink(missing_ok=True)


def _digest(key: str, code: bytes) -> bytes:
    return hashlib.sha256(key.encode() + code).digest()
