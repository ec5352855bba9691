"""Cache of encoded instructions, shared by models of the same architecture and options.

The key of an entry decides which models share it: a hash of the whole module that is to be lowered, with its locations,
and of everything else that determines the bytes. An entry holds both files of phase 4. They are written into a model's
folder like any other result of that phase, so the folder has files of its own.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict

from hyperdex_ir.backend.instructions import Encoded, encode_module
from hyperdex_ir.backend.state import digest, extension_digest
from hyperdex_ir.backend.tracing import Traced
from hyperdex_ir.passes.pipeline import pipeline_spec
from hyperdex_ir.support.disk_cache import DiskCache
from hyperdex_ir.support.locations import instruction_cache
from hyperdex_ir.support.own_code import code_digest, versions
from hyperdex_ir.support.progress import log
from hyperdex_ir.support.xdsl import print_module
from hyperdex_ir.targets import load_target

#: Entries that stay when one is added. An entry of a small program has 7 kB, of a large one 100 kB.
_KEEP = 200
_MAGIC = b"HDXP\x01\x00\x00\x00"
_NAMES = r"[0-9a-f]{32}\.bin"
_LENGTH_BYTES = 8


def encode_shared(traced: Traced, vocab_size: int, num_device: int, *, anew: bool) -> Encoded:
    """The program of a traced model: taken from the cache, or else lowered and encoded. Call it once for a trace.

    The model is always lowered when observers watch (`--dump-ir`), and when `anew`. Raises the errors of the passes,
    and PassError when they did not leave an allocated `isa` module.
    """
    key = _key(traced, vocab_size, num_device)
    name, folder = f"{key[:32]}.bin", instruction_cache()
    cache = None if folder is None else DiskCache(folder, _MAGIC, _NAMES, _KEEP)
    entry = None if cache is None or anew or traced.observers else cache.read(name, key)
    if entry is not None:
        log("Reuse the instructions of a model of the same architecture and options")
        return _unpacked(entry)
    log("Optimize the model instruction")
    encoded = encode_module(traced.lower(), vocab_size)
    if cache is not None:
        cache.write(name, key, _packed(encoded))
    return encoded


def _key(traced: Traced, vocab_size: int, num_device: int) -> str:
    text = print_module(traced.module, locations=True, generic=True)
    return digest(
        {
            "module": hashlib.sha256(text.encode()).hexdigest(),
            "passes": pipeline_spec(traced.lowering),
            "extensions": extension_digest(traced.lowering),
            "target": asdict(load_target(traced.target)),
            "versions": versions(),
            "compiler": code_digest(),
            "vocab_size": vocab_size,
            "num_device": num_device,
        }
    )


def _packed(encoded: Encoded) -> bytes:
    return len(encoded.code).to_bytes(_LENGTH_BYTES, "little") + encoded.code + encoded.origins.encode()


def _unpacked(entry: bytes) -> Encoded:
    end = _LENGTH_BYTES + int.from_bytes(entry[:_LENGTH_BYTES], "little")
    return Encoded(entry[_LENGTH_BYTES:end], entry[end:].decode())
