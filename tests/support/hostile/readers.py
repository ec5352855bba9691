"""Calls each reader of a file with files that are none, in a process with little memory; prints what came of it, JSON.

{"reader and file": "HDX0102 the error"}, or the name of another exception. A reader that waits is ended by an alarm.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hyperdex_ir.backend.check import Listed, check_file
from hyperdex_ir.backend.dumps import read_dump
from hyperdex_ir.backend.state import State
from hyperdex_ir.checkpoint.files import Checkpoint, read_header, shards
from hyperdex_ir.checkpoint.gguf_header import architecture_of
from hyperdex_ir.checkpoint.torch_weights import load_tensors
from hyperdex_ir.cli.assembly import assemble, disassemble
from hyperdex_ir.errors import HyperdexError
from hyperdex_ir.frontend.config import read_config
from hyperdex_ir.memory.serialize import load_json
from hyperdex_ir.passes.pipeline_text import typed_pipeline
from hyperdex_ir.runtime.model import read_generation_config
from hyperdex_ir.runtime.program import _read_header
from hyperdex_ir.runtime.tokenizer import Tokenizer
from hyperdex_ir.support.files import Kind, read_binary
from hyperdex_ir.support.locations import MARKER, read_marker
from hyperdex_ir.support.tokenizer_files import BUILT_CONFIG, made_of, read_built, read_settings

SECONDS = 20
MEMORY = 1 << 30
#: Name of the file -> what reads it.
READERS: dict[str, Callable[[Path], Any]] = {
    "config.json": lambda path: read_config(path.parent),
    "generation_config.json": lambda path: read_generation_config(path.parent),
    "tokenizer_config.json": lambda path: read_settings(path.parent),
    "tokenizer.model": lambda path: made_of(path.parent),
    "tokenizer.json": lambda path: Tokenizer.load(path.parent),
    "vocab.json": lambda path: Tokenizer.load(path.parent),
    "model.safetensors": read_header,
    "model.safetensors.index.json": lambda path: Checkpoint(path.parent),
    "pytorch_model.bin.index.json": shards,
    "pytorch_model.bin": load_tensors,
    "model.gguf": architecture_of,
    "manifest.json": load_json,
    "inst_1lpu.bin": lambda path: read_binary(path, Kind.INSTRUCTIONS),
    "param_1lpu_00_00.bin": _read_header,
    "program.bin": lambda path: disassemble(path, sys.stderr),
    "program.s": lambda path: assemble(path, path.with_suffix(".out")),
    "module.mlir": lambda path: read_dump(path, None),
    "a.pipeline": lambda path: typed_pipeline(str(path)),
    # These count as not there when they are none.
    BUILT_CONFIG: lambda path: read_built(path.parent),
    ".hyperdex_state.json": lambda path: State.load(path.parent).phases or None,
    MARKER: lambda path: read_marker(path.parent),
    "listed.bin": lambda path: check_file(path.parent, Listed(path.name, 5, "")),
}


def _link_to_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 8 << 30)


def _socket(path: Path) -> None:
    here = os.open(path.parent, os.O_RDONLY)  # the name of a socket is short
    os.fchdir(here)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


FILES: dict[str, Callable[[Path], None]] = {
    "a FIFO": os.mkfifo,
    "a link to /dev/zero": _link_to_zeros,
    "a directory": os.mkdir,
    "a socket": _socket,
    "8 GB of zeros": _sparse,
}


def _late(number: int, frame: object) -> None:
    raise TimeoutError(f"{SECONDS} seconds")


def main(root: Path) -> None:
    import torch  # noqa: F401  before memory is short

    signal.signal(signal.SIGALRM, _late)
    with open("/proc/self/statm", encoding="ascii") as file:
        limit = int(file.read().split()[0]) * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    said: dict[str, str] = {}
    for what, make in FILES.items():
        for number, (name, read) in enumerate(READERS.items()):
            folder = root / what.replace("/", "").replace(" ", "-") / str(number)
            folder.mkdir(parents=True)
            if name == "tokenizer_config.json":
                (folder / "tokenizer.json").write_text("{}")
            make(folder / name)
            signal.alarm(SECONDS)
            try:
                said[f"{name}: {what}"] = f"read {read(folder / name)!r}"
            except HyperdexError as error:
                said[f"{name}: {what}"] = f"{error.code} {error}"
            except BaseException as error:
                said[f"{name}: {what}"] = f"{type(error).__name__}: {error}"
            signal.alarm(0)
    print(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
