"""The original checkpoint, as phase 2 takes it: tensors in blocks of rows, and the small files beside the weights."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hyperdex_ir.backend.convert import Blocks
from hyperdex_ir.backend.payload import BLOCK_BYTES
from hyperdex_ir.files import atomic_file
from hyperdex_ir.frontend.checkpoint import Checkpoint, matrix_type_for
from hyperdex_ir.frontend.config import ModelSummary
from hyperdex_ir.hub import SMALL_FILES, weight_files
from hyperdex_ir.locations import ModelFolder

if TYPE_CHECKING:
    from hyperdex_ir.frontend import ImportedModel

#: Types of the safetensors format -> types of `values.convert`.
_TYPES = {"F16": "f16", "BF16": "bf16", "F32": "f32", "F64": "f64"}


def stored_matrix_type(source: Path, summary: ModelSummary) -> str:
    """What dtype `auto` stands for. Raises CheckpointError when the checkpoint's headers do not hold."""
    return matrix_type_for(Checkpoint(source), summary)


def checkpoint_blocks(imported: ImportedModel, source: Path) -> Blocks:
    """The tensors of a model by key, derived ones included.

    Raises CheckpointError when the checkpoint's tensors are not those of the model.
    """
    from hyperdex_ir.frontend.names import resolve_sources

    checkpoint = Checkpoint(source)
    sources = resolve_sources(imported.names, checkpoint)

    def blocks(key: str) -> Iterator[tuple[str, np.ndarray]]:
        if key in imported.derived:
            values = imported.derived[key]
            yield ("i64" if values.dtype.kind == "i" else "f32"), values
            return
        for name in sources[key].checkpoint_keys:
            yield from _rows(checkpoint, name)

    return blocks


def _rows(checkpoint: Checkpoint, name: str) -> Iterator[tuple[str, np.ndarray]]:
    entry = checkpoint.tensors[name]
    dtype, rows = _TYPES[entry.dtype], entry.shape[0]
    step = max(BLOCK_BYTES // max(prod(entry.shape[1:]) * entry.numpy_dtype.itemsize, 1), 1)
    for start in range(0, rows, step):
        yield dtype, checkpoint.rows(name, start, min(start + step, rows))


def weight_files_of(folder: ModelFolder) -> list[Path]:
    """The original weight files that are there."""
    return [path for path in weight_files(folder.source) if path.is_file()]


def copy_small_files(folder: ModelFolder) -> list[Path]:
    """Copies configuration and tokenizer into `ckpt/`, unless that is where they are; returns the copies."""
    if folder.source == folder.ckpt:
        return []
    copies = []
    for name in SMALL_FILES:
        original, copy = folder.source / name, folder.ckpt / name
        if not original.is_file():
            continue
        content = original.read_bytes()
        with atomic_file(copy) as file:
            file.write(content)
        copies.append(copy)
    return copies
