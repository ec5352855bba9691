"""Machine code kept on disk, so that opening a model generates none."""

from __future__ import annotations

import hashlib

from hyperdex_ir.native.features import Features
from hyperdex_ir.native.operation import EMITTERS, EXTRAS
from hyperdex_ir.support.disk_cache import DiskCache
from hyperdex_ir.support.locations import native_cache
from hyperdex_ir.support.own_code import code_digest, foreign_digest

#: Files that stay when one is added: code of earlier versions is of no use for long.
_KEEP = 12
_MAGIC = b"HDXE\x01\x00\x00\x00"
_NAMES = r"[a-z0-9]+-[0-9a-f]{32}\.o"


def native_key(features: Features) -> str:
    """A hash of all that the executor's code depends on: this package, the processor, emitters of other packages."""
    definitions = [*EMITTERS.values(), *EXTRAS.values()]
    added = [item for item in definitions if not item.body.__module__.startswith("hyperdex_ir.")]
    facts = [(item.name, item.number, item.barrier, item.fields) for item in added]
    others = foreign_digest(item.body.__module__ for item in added)
    return hashlib.sha256(f"{code_digest()} {features!r} {others} {facts}".encode()).hexdigest()


def native_code(features: Features) -> bytes:
    """The executor's code as an object file: from the cache, or generated and put there."""
    key = native_key(features)
    name, cache = f"{features.name}-{key[:32]}.o", code_cache()
    code = cache.read(name, key)
    if code is None:
        from hyperdex_ir.native.codegen import compile_module, native_module

        code = compile_module(native_module(features), features)
        cache.write(name, key, code)
    return code


def code_cache() -> DiskCache:
    """The cache of machine code."""
    return DiskCache(native_cache(), _MAGIC, _NAMES, _KEEP)
