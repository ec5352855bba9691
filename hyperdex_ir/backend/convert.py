"""Phase 2: checkpoint and derived parameters -> `hyperdex_model.bin` and its table `hyperdex_config.json`.

The binary holds every parameter of the layout, in the layout's order: logical [rows, columns], row-major, in its final
type; the rows of merged tensors one after another; each parameter at an offset, from the header's end, that is a
multiple of 64. The table holds all that phase 3 needs, so that another target or number of devices needs no checkpoint.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from hyperdex_ir.backend.payload import PayloadWriter, atomic_payloads
from hyperdex_ir.checkpoint.values import convert, lost_to_underflow
from hyperdex_ir.errors import CheckpointError
from hyperdex_ir.isa.formats import ELEMENTS
from hyperdex_ir.memory.layout import ModelLayout, Parameter
from hyperdex_ir.memory.serialize import FORMAT, dump_json, layout_to_json
from hyperdex_ir.support.files import Kind, write_text
from hyperdex_ir.support.locations import ModelFolder

#: The tensor of a key, in blocks of rows from the first to the last: (stored type, values [rows, ...]).
Blocks = Callable[[str], Iterator[tuple[str, np.ndarray]]]


#: Type and key -> number of values that became zero.
Lost = Counter[tuple[str, str]]


def _write_key(
    writer: PayloadWriter, digest: Any, blocks: Blocks, key: str, dtype: str, advance: Callable[[int], None], lost: Lost
) -> int:
    """Writes the tensor of one key; returns its number of elements."""
    row = count = 0
    for source, values in blocks(key):
        data = np.ascontiguousarray(convert(values, source, dtype, key, row), ELEMENTS[dtype].dtype)
        lost[dtype, key] += lost_to_underflow(values, source, data, dtype)
        writer.write(data)
        digest.update(data)
        advance(data.nbytes)
        row += len(values) if values.ndim else 1
        count += data.size
    return count


def _blocks_of(parameter: Parameter, blocks: Blocks) -> Blocks:
    """The source of the parameter's values: the checkpoint, or the layout itself."""
    if parameter.values is None:
        return blocks
    values = np.array(parameter.values, ELEMENTS[parameter.dtype].dtype).reshape(parameter.shape)
    return lambda key: iter([(parameter.dtype, values)])


def _write_parameter(
    writer: PayloadWriter, blocks: Blocks, parameter: Parameter, advance: Callable[[int], None], lost: Lost
) -> dict[str, Any]:
    writer.pad()
    offset, digest = writer.size, hashlib.sha256()
    source = _blocks_of(parameter, blocks)
    count = sum(_write_key(writer, digest, source, key, parameter.dtype, advance, lost) for key in parameter.keys)
    if count != prod(parameter.shape):
        raise CheckpointError(
            f"{parameter.name}: {count} elements from {', '.join(parameter.keys)}, the model has {parameter.shape}"
        )
    return {
        "name": parameter.name,
        "dtype": parameter.dtype,
        "shape": list(parameter.shape),
        "offset": offset,
        "keys": list(parameter.keys),
        "sha256": digest.hexdigest(),
    }


def model_bytes(layout: ModelLayout) -> int:
    """Bytes of all parameters, padding not included."""
    return sum(ELEMENTS[p.dtype].bytes_of(prod(p.shape)) for p in layout.parameters())


def write_model(
    folder: ModelFolder,
    layout: ModelLayout,
    blocks: Blocks,
    facts: dict[str, Any],
    advance: Callable[[int], None] = lambda count: None,
    report: Callable[[str], None] = lambda line: None,
) -> list[Path]:
    """Writes `hyperdex_model.bin` and `hyperdex_config.json`; returns their paths.

    facts: further entries of the table (target, max_length, ...). advance: called with the bytes written. report:
    called with a line when values became zero.
    Raises CheckpointError for values that the wanted type cannot hold, StorageError when the file system refuses.
    """
    tensors: list[dict[str, Any]] = []
    lost: Lost = Counter()
    with atomic_payloads([folder.model_binary], folder.anchor, Kind.MODEL, PayloadWriter) as (writer,):
        for parameter in layout.parameters():
            tensors.append(_write_parameter(writer, blocks, parameter, advance, lost))
    if count := lost.total():
        (dtype, key), most = max(lost.items(), key=lambda item: item[1])
        report(f"{count:,} values are too small for {dtype} and became 0, the most in {key}: {most:,}")
    table = {
        "format": FORMAT,
        "matrix_type": layout.matrix_type,
        "vocab_size": layout.vocab_size,
        **facts,
        "layout": layout_to_json(layout),
        "tensors": tensors,
    }
    write_text(folder.model_config, dump_json(table), folder.anchor)
    return [folder.model_binary, folder.model_config]
