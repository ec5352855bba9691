"""Weights that no checkpoint of transformers has by that name or in that place: their names, and a remedy."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from hyperdex_ir.checkpoint.leftover import listed
from hyperdex_ir.support.locations import MERGE, SAFETENSORS, SAFETENSORS_INDEX
from hyperdex_ir.support.reading import SINGLE_TORCH_FILE, TORCH_INDEX

_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".npz", ".gguf")
#: Folders of the compiler's own files beside a checkpoint, whose names end alike.
_OWN_FOLDERS = ("ckpt", "param", "config", "inst")
_SHARD = re.compile(r"(.+)-\d+-of-\d+(\.safetensors|\.bin)", re.ASCII)
_WHOLE = (SAFETENSORS, SAFETENSORS_INDEX, SINGLE_TORCH_FILE, TORCH_INDEX)
_CONVERT = "convert them to the format of transformers, or take the checkpoint that is published for transformers"


def names_in(directory: Path) -> list[str]:
    """The names of the files in a directory and in its folders, but hidden ones and those of the compiler."""
    if not directory.is_dir():
        return []
    paths = [*directory.glob("*"), *directory.glob("*/*")]
    names = (path.relative_to(directory).as_posix() for path in paths if path.is_file())
    return sorted(name for name in names if not name.startswith((".", *(f"{own}/" for own in _OWN_FOLDERS))))


def weights_among(names: Iterable[str]) -> list[str]:
    """The names that are those of weights in any format."""
    return [name for name in names if name.endswith(_SUFFIXES)]


def other_weights(names: Iterable[str]) -> tuple[str, str]:
    """Other weights among the names of a model's files, as the end of a message, and a hint; empty without any.

    names: relative to the model's folder, sorted.
    """
    names = [*names]
    found = weights_among(names)
    if not found:
        return "", ""
    return f"; there are other weights: {listed(found)}", _hint(names, found)


def _hint(names: list[str], found: list[str]) -> str:
    if any(PurePosixPath(name).name.startswith("adapter_model.") for name in found):
        return f"the weights of a LoRA adapter are there: {MERGE}"
    whole = [PurePosixPath(name) for name in names if "/" in name and PurePosixPath(name).name in _WHOLE]
    if whole:
        return f"the folder {whole[0].parent.as_posix()} in it holds weights: give that folder, with a config.json"
    shard = next(filter(None, map(_SHARD.fullmatch, found)), None)
    if shard is not None:
        return f"the index of the files is missing: download {shard[1]}{shard[2]}.index.json"
    one = [name for name in found if name.endswith((".safetensors", ".bin"))]
    if "/" in found[0] or not one or one[0].startswith("consolidated"):
        return _CONVERT
    single = SAFETENSORS if one[0].endswith(".safetensors") else SINGLE_TORCH_FILE
    return f"if {one[0]} is the whole model, rename it to {single}"
