"""The identity of the code that makes what is kept between runs: this package's files and its libraries."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import metadata
from pathlib import Path

from hyperdex_ir import __version__

#: Libraries that shape what is kept; the others show, find or transport it.
LIBRARIES = ("gguf", "llvmlite", "numpy", "safetensors", "tokenizers", "torch", "transformers", "xdsl")
_PACKAGE = Path(__file__).parents[1]


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
