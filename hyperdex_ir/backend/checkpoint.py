"""The original checkpoint, as phase 2 takes it: tensors in blocks of rows, and the small files beside the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hyperdex_ir.backend.convert import Blocks
from hyperdex_ir.backend.payload import BLOCK_BYTES
from hyperdex_ir.errors import CheckpointError
from hyperdex_ir.files import atomic_file
from hyperdex_ir.frontend.checkpoint import Checkpoint, matrix_type_for, weight_paths
from hyperdex_ir.frontend.config import ModelSummary
from hyperdex_ir.frontend.quantized import open_checkpoint
from hyperdex_ir.frontend.tensors import Tensor, row_bytes, row_count
from hyperdex_ir.locations import SMALL_FILES, ModelFolder
from hyperdex_ir.reading import TOKENIZER, read_bytes

if TYPE_CHECKING:
    from hyperdex_ir.frontend import ImportedModel

#: Types of the safetensors format -> types of `values.convert`.
_TYPES = {"F16": "f16", "BF16": "bf16", "F32": "f32", "F64": "f64"}


def stored_matrix_type(source: Path, summary: ModelSummary) -> str:
    """What dtype `auto` stands for. Raises CheckpointError when the checkpoint's headers do not hold."""
    return matrix_type_for(open_checkpoint(source), summary)


def checkpoint_blocks(
    imported: ImportedModel,
    source: Path,
    block_bytes: int = BLOCK_BYTES,
    watch: Callable[[Checkpoint], None] | None = None,
) -> Blocks:
    """The tensors of a model by key, derived ones included; quantized ones as what they stand for.

    block_bytes: about as many are read at a time. watch: as of `open_checkpoint`.

    Raises CheckpointError when the checkpoint's tensors are not those of the model.
    """
    from hyperdex_ir.frontend.names import resolve_sources

    sources = resolve_sources(imported.names, open_checkpoint(source, watch))

    def blocks(key: str) -> Iterator[tuple[str, np.ndarray]]:
        if key in imported.derived:
            values = imported.derived[key]
            yield ("i64" if values.dtype.kind == "i" else "f32"), values
            return
        tensor = sources[key].tensor
        assert tensor is not None
        yield from _rows(tensor, block_bytes)

    return blocks


def _rows(tensor: Tensor, block_bytes: int) -> Iterator[tuple[str, np.ndarray]]:
    dtype, rows = _TYPES[tensor.dtype], row_count(tensor)
    step = max(block_bytes // max(row_bytes(tensor), 1), 1)
    for start in range(0, rows, step):
        yield dtype, tensor.rows(start, min(start + step, rows))


def weight_files_of(folder: ModelFolder) -> list[Path]:
    """The original weight files that are there."""
    try:
        return [path for path in weight_paths(folder.source) if path.is_file()]
    except CheckpointError:
        return []


def copy_small_files(folder: ModelFolder) -> list[Path]:
    """Copies configuration and tokenizer into `ckpt/`, unless that is where they are; returns the copies."""
    if folder.source == folder.ckpt:
        return []
    copies = []
    for name in SMALL_FILES:
        original, copy = folder.source / name, folder.ckpt / name
        if not original.is_file():
            continue
        content = read_bytes(original, TOKENIZER)
        with atomic_file(copy, folder.anchor) as file:
            file.write(content)
        copies.append(copy)
    return copies
