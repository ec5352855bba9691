"""Machine code kept on disk, so that opening a model generates none."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import metadata
from pathlib import Path

from hyperdex_ir.disk_cache import DiskCache
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
    name, cache = f"{features.name}-{key[:32]}.o", code_cache()
    code = cache.read(name, key)
    if code is None:
        from hyperdex_ir.engine.compile import compile_module, engine_module

        code = compile_module(engine_module(features), features)
        cache.write(name, key, code)
    return code


def code_cache() -> DiskCache:
    """Where machine code is kept."""
    return DiskCache(engine_cache(), _MAGIC, _KEEP)
