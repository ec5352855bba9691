"""Input of `verify`: the module of a model right after import, and its parameters by key."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.passes import ModulePass

from hyperdex_ir.backend.checkpoint import checkpoint_blocks, is_untied, read_summary, stored_matrix_type
from hyperdex_ir.backend.convert import Blocks
from hyperdex_ir.backend.kept_sources import kept_source
from hyperdex_ir.backend.options import check_devices, chosen_passes
from hyperdex_ir.backend.tracing import module_for
from hyperdex_ir.checkpoint.files import weight_files
from hyperdex_ir.checkpoint.values import convert
from hyperdex_ir.dialects.lpu import WeightOp, shape_of
from hyperdex_ir.errors import COMPILE_AGAIN, CheckpointError, FileFormatError, NotCompiledError
from hyperdex_ir.frontend.model import ImportedModel, trace_model
from hyperdex_ir.isa.formats import ELEMENTS
from hyperdex_ir.memory.serialize import manifest_entries, read_table, read_tensors
from hyperdex_ir.runtime.model_folders import checkpoint_folders, compiled_folder
from hyperdex_ir.support.files import HEADER_BYTES, Kind, read_header
from hyperdex_ir.support.locations import ModelFolder
from hyperdex_ir.support.reading import open_regular
from hyperdex_ir.targets import DEFAULT_TARGET

#: Limit for the positions of a model that is not compiled.
_POSITIONS = 4096
Parameters = Callable[[str], np.ndarray]


@dataclass(frozen=True, eq=False)
class Model:
    """A model to verify. parameters: key -> array in its logical shape.

    module: right after import; passes may run on it. passes: the requested ones, otherwise those that the model was
    compiled with, otherwise the compiler's own. compiled: True when there is a program for `num_device` devices on
    disk.
    """

    name: str
    folder: ModelFolder
    module: ModuleOp
    parameters: Parameters
    max_length: int
    passes: Sequence[ModulePass]
    compiled: bool
    num_device: int = 1


def open_model(name: str, num_device: int = 1, pipeline: str | None = None, allowed: Collection[str] = ()) -> Model:
    """Traces the model, compiled or only downloaded, and finds its parameters without loading them.

    pipeline: a name, file or text, as typed by the user. None: the pipeline that the model was compiled with, which may
    contain the passes `allowed` beside this package's own.

    Raises NotCompiledError when there is no model, OptionError when it cannot be divided over so many devices,
    CheckpointError when neither the converted checkpoint nor the original one is complete, and the frontend's errors.
    """
    folder = compiled_folder(name)
    if not (folder.source / "config.json").is_file():
        raise NotCompiledError(f"{name}: not compiled", f"hyperdex compile {shlex.quote(name)}")
    summary = read_summary(folder.source)
    check_devices(num_device, summary.heads)
    compiled = manifest_entries(folder.manifest).get(str(num_device), {})
    table = read_table(folder.model_config) if folder.model_config.is_file() else None
    passes = chosen_passes(pipeline, compiled.get("options", {}).get("pipeline"), allowed)
    if table is None:
        length, matrix_type = (
            min(summary.max_positions, _POSITIONS),
            stored_matrix_type(weights_folder(folder), summary),
        )
    else:
        length, matrix_type = table["max_length"], table["matrix_type"]
    target = compiled.get("target", DEFAULT_TARGET)
    # Flat, so that outlining is verified like the other passes.
    imported = trace_model(
        folder.source,
        target=target,
        max_length=length,
        matrix_type=matrix_type,
        outlined=False,
        untied=is_untied(table, summary),
    )
    return Model(
        name=name,
        folder=folder,
        module=module_for(imported, num_device),
        parameters=_parameters(folder, imported, table),
        max_length=length,
        passes=passes,
        compiled=bool(compiled),
        num_device=num_device,
    )


def weights_folder(folder: ModelFolder) -> Path:
    """Folder of the original weights, as far as the folder of the compiled model, or the user's record, shows it."""
    kept = kept_source(folder)
    places = (*checkpoint_folders(folder), *([] if kept is None else [kept]))
    return next((place for place in places if _has_weights(place)), folder.source)


def _has_weights(place: Path) -> bool:
    return all(path.is_file() for path in weight_files(place))


def _parameters(folder: ModelFolder, imported: ImportedModel, table: dict[str, Any] | None) -> Parameters:
    types = _types(imported.module)
    if table is not None and folder.model_binary.is_file():
        stored = _stored_at(folder, types)
    elif table is not None and not _has_weights(weights_folder(folder)):
        raise CheckpointError(
            f"{folder.root}: the weights were deleted after they were compiled",
            "compile again with low_memory_usage=False",
        )
    else:
        stored = _from_blocks(checkpoint_blocks(imported, weights_folder(folder)), types)

    def get(key: str) -> np.ndarray:
        return imported.derived[key] if key in imported.derived else stored(key)

    return get


def _types(module: ModuleOp) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Element type and shape of each parameter by key; after import, each parameter has one key."""
    types: dict[str, tuple[str, tuple[int, ...]]] = {}
    for op in module.walk():
        if isinstance(op, WeightOp) and isinstance(type_ := op.res.type, TensorType):
            types[op.key_names[0]] = (str(type_.element_type), shape_of(type_))
    return types


def _stored_at(folder: ModelFolder, types: dict[str, tuple[str, tuple[int, ...]]]) -> Parameters:
    """Parameters from the converted checkpoint, whose tensors may hold the rows of several keys."""
    path = folder.model_binary
    with open_regular(path, FileFormatError, COMPILE_AGAIN) as file:
        read_header(file, path, Kind.MODEL)
    places: dict[str, int] = {}
    for tensor in read_tensors(folder.model_config)[1]:
        offset = HEADER_BYTES + tensor["offset"]
        for key in tensor["keys"]:
            if key not in types:
                break
            places[key] = offset
            dtype, shape = types[key]
            offset += ELEMENTS[dtype].bytes_of(prod(shape))

    def get(key: str) -> np.ndarray:
        if key not in places:
            raise FileFormatError(f"{path}: holds no {key}", COMPILE_AGAIN)
        dtype, shape = types[key]
        size = ELEMENTS[dtype].bytes_of(prod(shape))
        with open_regular(path, FileFormatError, COMPILE_AGAIN, buffering=0) as file:
            if places[key] + size > os.fstat(file.fileno()).st_size:
                raise FileFormatError(f"{path}: ends before {key}, {size} bytes at {places[key]}", COMPILE_AGAIN)
            values = np.fromfile(file, ELEMENTS[dtype].dtype, prod(shape), offset=places[key])
        return values.reshape(shape)

    return get


def _from_blocks(blocks: Blocks, types: dict[str, tuple[str, tuple[int, ...]]]) -> Parameters:
    """Parameters from the original checkpoint."""

    def get(key: str) -> np.ndarray:
        if key not in types:
            raise CheckpointError(f"the model has no parameter {key}")
        dtype, shape = types[key]
        parts = [convert(values, source, dtype, key).reshape(-1) for source, values in blocks(key)]
        return np.ascontiguousarray(np.concatenate(parts), ELEMENTS[dtype].dtype).reshape(shape)

    return get
