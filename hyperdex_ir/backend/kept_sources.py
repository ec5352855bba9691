"""The folders of checkpoints whose compiled models lie elsewhere (`output_dir`), in the user's own cache.

A record in the compiled folder would be a path that a stranger may have written.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from hyperdex_ir.errors import ConfigError
from hyperdex_ir.support.disk_cache import DiskCache
from hyperdex_ir.support.locations import CONFIG, ModelFolder, source_cache
from hyperdex_ir.support.reading import read_config_json

_MAGIC = b"HDXS\x01\x00\x00\x00"
_NAMES = r"[0-9a-f]{32}\.path"
#: Number of records that stay when one is added.
_KEEP = 1000


def keep_source(folder: ModelFolder) -> None:
    """Records the checkpoint of a compiled model, unless it lies in the model's own folder."""
    cache = _cache()
    if cache is not None and folder.source not in (folder.root, folder.ckpt):
        key = str(folder.root.resolve())
        cache.write(_name(key), key, os.fsencode(folder.source.resolve()))


def kept_source(folder: ModelFolder) -> Path | None:
    """The checkpoint that a model was compiled from, if it is still one of the same config.json; None otherwise."""
    key, cache = str(folder.root.resolve()), _cache()
    data = None if cache is None else cache.read(_name(key), key)
    if data is None:
        return None
    source = Path(os.fsdecode(data))
    try:
        return source if read_config_json(source / CONFIG) == read_config_json(folder.ckpt / CONFIG) else None
    except ConfigError:
        return None


def _cache() -> DiskCache | None:
    place = source_cache()
    return None if place is None else DiskCache(place, _MAGIC, _NAMES, _KEEP)


def _name(key: str) -> str:
    return f"{hashlib.sha256(os.fsencode(key)).hexdigest()[:32]}.path"
