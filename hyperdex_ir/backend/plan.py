"""`hyperdex plan`: the needs of a model on device and host, from config.json and the headers of its weights."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hyperdex_ir.backend.checkpoint import read_summary
from hyperdex_ir.backend.convert import model_bytes
from hyperdex_ir.backend.instructions import program_facts
from hyperdex_ir.backend.length import largest_length
from hyperdex_ir.backend.options import CompileOptions, check_devices, chosen_passes
from hyperdex_ir.backend.ram_ceiling import needed_bytes
from hyperdex_ir.backend.show import likely_matrix_type
from hyperdex_ir.backend.tracing import Traced, trace
from hyperdex_ir.checkpoint.files import weight_files
from hyperdex_ir.dialects.isa_program import to_program
from hyperdex_ir.errors import CapacityError, ConfigError
from hyperdex_ir.frontend.config import ModelSummary
from hyperdex_ir.hub.download import is_complete
from hyperdex_ir.hub.headers import fetch_headers
from hyperdex_ir.memory.map import MemoryMap, plan_memory
from hyperdex_ir.performance.inspection import inspect_program
from hyperdex_ir.support.locations import ModelFolder
from hyperdex_ir.targets import Target, load_target

#: Bytes of a memory in which everything fits: a model that does not fit its target still has sizes.
_BOUNDLESS = 1 << 60


def plan_model(name: str, folder: ModelFolder, options: CompileOptions) -> dict[str, Any]:
    """The facts as JSON values; sizes in bytes. No weights are read and no file of the model's folder is written.

    supported, architecture; device: parameters and KV cache, bytes a token, the longest context, whether all fits;
    host: bytes of the checkpoint and of what a compile writes, and the memory that it takes. For a model that fits,
    also what `inspect` says when it is compiled: LMU use, estimated cycles and tokens a second.
    Raises UnsupportedModelError and ConfigError with the reason, ModelNotFoundError, DownloadError.
    """
    with _configured(folder, options) as (place, checkpoint_bytes):
        summary = read_summary(place.source)
        check_devices(options.num_device, summary.heads)
        options = replace(options, matrix_type=options.matrix_type or likely_matrix_type(place, summary))
        return {"supported": True, "architecture": summary.architecture} | _plan(
            name, place, summary, options, checkpoint_bytes
        )


@contextmanager
def _configured(folder: ModelFolder, options: CompileOptions) -> Iterator[tuple[ModelFolder, int]]:
    """A folder that holds config.json, and the bytes of the weights that belong to it."""
    if folder.hub_id is None or is_complete(folder, options.hub):
        if not (folder.source / "config.json").is_file():
            raise ConfigError(f"{folder.source}: no config.json", "give the directory of a Hugging Face checkpoint")
        present = [path for path in weight_files(folder.source) if path.is_file()]
        yield folder, sum(path.stat().st_size for path in present)
        return
    place = Path(tempfile.mkdtemp(prefix="hyperdex-plan-"))
    try:
        size = fetch_headers(folder.hub_id, place, options.hub)
        yield ModelFolder(place, place, None, made_by_tool=False), size
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _plan(
    name: str, folder: ModelFolder, summary: ModelSummary, options: CompileOptions, checkpoint_bytes: int
) -> dict[str, Any]:
    target = load_target(options.target)
    passes = chosen_passes(options.pipeline)
    asked = replace(options, max_length=options.max_length or summary.max_positions)
    traced = trace(folder, summary, asked, passes, None)
    longest = _longest(traced, target)
    if options.max_length is None and longest and longest < traced.max_length:
        traced = traced.at(longest, asked, passes)
    memory = plan_memory(traced.layout, replace(target, hbm_bytes=_BOUNDLESS), traced.max_length)
    converted = model_bytes(traced.layout if options.num_device == 1 else traced.whole(asked, passes).layout)
    device = _device(memory, target, longest)
    images, needed = memory.parameter_end * options.num_device, needed_bytes(traced.layout)
    facts = _program(name, traced, replace(memory, target=target), options.num_device) if device["fits"] else {}
    model = {"name": name, "target": target.name, "devices": options.num_device, "matrix_type": traced.matrix_type}
    return {
        "model": model | {"max_length": traced.max_length},
        **facts,
        "device": device,
        "host": _host(checkpoint_bytes, converted, images, needed),
    }


def _longest(traced: Traced, target: Target) -> int:
    """The longest context that fits the target, up to that of the trace; 0 when none does."""
    assert traced.imported is not None
    try:
        return largest_length(traced.layout, traced.imported.derived, traced.max_length, target)
    except CapacityError:
        return 0


def _program(name: str, traced: Traced, memory: MemoryMap, num_device: int) -> dict[str, Any]:
    module = traced.lower()
    facts = program_facts(module, memory.vocab_size)
    layout = None if num_device == 1 else traced.layout
    return inspect_program(to_program(module), memory, facts, layout, num_device, name)


def _device(memory: MemoryMap, target: Target, longest: int) -> dict[str, Any]:
    kv_bytes = memory.tokens - memory.kv_start
    return {
        "fits": memory.end <= target.hbm_bytes,
        "hbm_bytes": target.hbm_bytes,
        "needed_bytes": memory.end,
        "parameter_bytes": memory.parameter_end,
        "parameter_bytes_of_a_channel": memory.parameter_end // target.channels,
        "kv_bytes": kv_bytes,
        "kv_bytes_of_a_token": round(kv_bytes / memory.max_length),
        "longest_context": longest,
    }


def _host(checkpoint: int, converted: int, images: int, memory: int) -> dict[str, int]:
    """Disk space and memory for a compile. The program and the tables are small and not counted."""
    return {
        "checkpoint_bytes": checkpoint,
        "converted_bytes": converted,
        "image_bytes": images,
        "disk_bytes": checkpoint + converted + images,
        "memory_bytes": memory,
    }
