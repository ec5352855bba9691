"""The original checkpoint, as phase 2 takes it: tensors in blocks of rows, and the small files beside the weights."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hyperdex_ir.backend.convert import Blocks
from hyperdex_ir.backend.payload import BLOCK_BYTES
from hyperdex_ir.checkpoint.dequantize import open_checkpoint
from hyperdex_ir.checkpoint.files import Checkpoint, weight_files
from hyperdex_ir.checkpoint.tensors import Tensor, row_bytes, row_count
from hyperdex_ir.errors import CheckpointError, ConfigError
from hyperdex_ir.frontend.config import ModelSummary, read_config
from hyperdex_ir.frontend.family import HEAD
from hyperdex_ir.isa.formats import BF16, F16, F32, F64, FLOATS, PUBLISHED, matrix_type_of
from hyperdex_ir.memory.serialize import table_keys
from hyperdex_ir.support import reading
from hyperdex_ir.support.files import atomic_file
from hyperdex_ir.support.folder_access import link_refused
from hyperdex_ir.support.locations import CONFIG, SMALL_FILES, ModelFolder
from hyperdex_ir.support.progress import log
from hyperdex_ir.support.reading import check_no_pointer, read_bytes, read_config_json, read_object

if TYPE_CHECKING:
    from hyperdex_ir.frontend import ImportedModel

#: Length of the longest chain of links that is followed: Linux's own limit.
_MOST_LINKS = 40


def read_summary(source: Path) -> ModelSummary:
    """The summary of a checkpoint's config.json; the log says what is ignored in it. Raises as `read_config`."""
    summary = read_config(source)
    for note in summary.notes:
        log(note)
    return summary


def stored_matrix_type(source: Path, summary: ModelSummary, report: Callable[[str], None] = lambda line: None) -> str:
    """The matrix type that dtype `auto` stands for; `report` is called with the reason.

    Raises CheckpointError when the checkpoint's headers are wrong.
    """
    return matrix_type_for(open_checkpoint(source), summary, report)


def matrix_type_for(
    checkpoint: Checkpoint, summary: ModelSummary, report: Callable[[str], None] = lambda line: None
) -> str:
    """The matrix type that dtype "auto" means: that of most matrices, in doubt the token embedding's.

    float32 becomes f16, unless config.json says bfloat16. report: called with a line that says the type and the reason.

    Raises CheckpointError when there is no token embedding or its type is none of those.
    """
    embedding, prefix = _token_embedding(checkpoint, summary)
    first = checkpoint.tensors[embedding].dtype
    own = (name for name in checkpoint.tensors if name.startswith(prefix) or f".{name}".endswith(f".{summary.head}"))
    matrices = [one for one in map(checkpoint.tensors.__getitem__, own) if len(one.shape) > 1]
    counts = Counter(one.dtype for one in matrices if one.dtype in FLOATS)
    most = max(counts, key=lambda dtype: (counts[dtype], dtype == first))
    of_all = ", ".join(f"{count} {dtype}" for dtype, count in sorted(counts.items()))
    why = f"the matrices of the checkpoint are {most}" if len(counts) == 1 else f"of its matrices, {of_all}"
    if most in (F32.published, F64.published):
        called = _configured_type(checkpoint.directory)
        chosen = BF16.name if called == BF16.torch else F16.name
        why += f", and config.json's dtype is {called}" if chosen == BF16.name else f", which becomes {chosen}"
    else:
        chosen = matrix_type_of(most)
    report(f"The matrix type is {chosen}: {why}")
    return chosen


def _token_embedding(checkpoint: Checkpoint, summary: ModelSummary) -> tuple[str, str]:
    """The name of the token embedding, or of the head that stands for it, and the part of it before the model's own."""
    for suffix in (summary.token_embedding, *([summary.head] if summary.tied else [])):
        found = [name for name in sorted(checkpoint.tensors) if f".{name}".endswith(f".{suffix}")]
        if not found:
            continue
        dtype = checkpoint.tensors[found[0]].dtype
        if dtype not in FLOATS:
            from hyperdex_ir.checkpoint.names import wrong_type

            raise wrong_type(checkpoint, found[0], dtype)
        return found[0], found[0].removesuffix(suffix) if suffix == summary.token_embedding else ""
    raise CheckpointError(f"{checkpoint.directory}: no token embedding (a tensor named ...{summary.token_embedding})")


def _configured_type(directory: Path) -> str:
    """The type that config.json gives; empty when it gives none. For a model inside another, the inner one's."""
    path = directory / CONFIG
    config = read_config_json(path) if path.is_file() else {}
    inner = config.get("text_config")
    holders = [inner, config] if isinstance(inner, dict) else [config]
    values = [holder.get(key) for holder in holders for key in ("dtype", "torch_dtype")]
    return next((value for value in values if isinstance(value, str)), "")


def is_untied(table: Mapping[str, Any] | None, summary: ModelSummary) -> bool | None:
    """Test for a converted checkpoint with a head of its own, by its table; None without one."""
    if table is None:
        return None
    return summary.tied and HEAD in table_keys(table)


def checkpoint_blocks(
    imported: ImportedModel,
    source: Path,
    block_bytes: int = BLOCK_BYTES,
    watch: Callable[[Checkpoint], None] | None = None,
) -> Blocks:
    """The tensors of a model by key, derived ones included; quantized ones as the values that they stand for.

    block_bytes: about how many bytes are read at a time. watch: as of `open_checkpoint`.

    Raises CheckpointError when the checkpoint's tensors are not those of the model.
    """
    from hyperdex_ir.checkpoint.names import resolve_sources

    sources = resolve_sources(imported.names, open_checkpoint(source, watch, log), log, imported.matrix_type)

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
    dtype, rows = PUBLISHED[tensor.dtype].name, row_count(tensor)
    step = max(block_bytes // max(row_bytes(tensor), 1), 1)
    for start in range(0, rows, step):
        yield dtype, tensor.rows(start, min(start + step, rows))


def weight_files_of(folder: ModelFolder) -> list[Path]:
    """The original weight files when all are there, none otherwise."""
    try:
        files = weight_files(folder.source)
    except CheckpointError:
        return []
    return files if all(path.is_file() for path in files) else []


# -------------------------------------------------------------------------------------------------- small files
def copy_small_files(folder: ModelFolder) -> list[Path]:
    """Copies configuration and tokenizer into `ckpt/`, unless that is where they are; returns the copies.

    Raises StorageError as `small_files`.
    """
    copies = []
    for name, original in small_files(folder).items():
        content, copy = read_bytes(original, reading.TOKENIZER), folder.ckpt / name
        with atomic_file(copy, folder.anchor) as file:
            file.write(content)
        copies.append(copy)
    return copies


def small_digests(folder: ModelFolder) -> dict[str, str]:
    """A digest of each small file of the checkpoint, by name; of one that cannot be read, the reason."""
    found = {}
    for name in SMALL_FILES:
        try:
            found[name] = reading.sha256_of(folder.source / name, reading.TOKENIZER)
        except ConfigError as error:
            found[name] = str(error)
        except FileNotFoundError:
            continue
    return found


def small_files(folder: ModelFolder) -> dict[str, Path]:
    """The files that belong into `ckpt/` as copies: name -> path of the content.

    Raises StorageError for a link that leads out of the checkpoint: a copy would disclose the file behind it. Links
    into the cache of the Hub that the checkpoint is part of, and to the same file of another checkpoint, are followed.
    """
    source = folder.source
    if source == folder.ckpt:
        return {}
    files = {name: content_of(source, name) for name in SMALL_FILES if (source / name).is_file()}
    for name in files:
        check_no_pointer(source / name, ConfigError)
    return files


def content_of(source: Path, name: str) -> Path:
    """The path that a file of the checkpoint leads to, by links that are checked one by one."""
    place = source.resolve() / name
    for _ in range(_MOST_LINKS):
        if not place.is_symlink():
            return place
        target = place.parent / os.readlink(place)
        target = target.parent.resolve() / target.name
        if not (_is_inside(target, source.resolve()) or _is_of_checkpoint(target, name) or _is_blob(target, place)):
            break
        place = target
    way = "remove the link, or put the file itself in its place"
    raise link_refused(source / name, "leads out of the checkpoint: it is not copied", way)


def _is_inside(path: Path, folder: Path) -> bool:
    return folder in path.parents


def _is_of_checkpoint(path: Path, name: str) -> bool:
    """Test for the file of this name in a checkpoint, known by `model_type`: other programs have a config.json, too."""
    try:
        return path.name == name and "model_type" in read_object(path.parent / CONFIG, reading.CONFIG)
    except (ConfigError, FileNotFoundError):
        return False


def _is_blob(path: Path, link: Path) -> bool:
    """Test for a file in the same cache of the Hub as the link to it: its snapshots hold links to its blobs."""
    return any(one.parent.name == "snapshots" and path.parent == one.parent.parent / "blobs" for one in link.parents)
