"""The IR of a model, made once a compile: traced, and run through the passes that come before lowering."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdsl.dialects.builtin import ModuleOp

from hyperdex_ir.backend.checkpoint import checkpoint_blocks, stored_matrix_type
from hyperdex_ir.backend.convert import Blocks
from hyperdex_ir.backend.length import largest_length
from hyperdex_ir.backend.options import CompileOptions
from hyperdex_ir.errors import OptionError
from hyperdex_ir.files import write_text
from hyperdex_ir.frontend import ImportedModel, trace_model
from hyperdex_ir.frontend.config import ModelSummary
from hyperdex_ir.locations import ModelFolder
from hyperdex_ir.memory.collect import collect_layout
from hyperdex_ir.memory.layout import ModelLayout
from hyperdex_ir.passes.pipeline import parse_pipeline, pipeline_spec, run_pipeline
from hyperdex_ir.progress import log
from hyperdex_ir.targets import load_target
from hyperdex_ir.xdsl_support import print_module

_LOWERING = "lower-lpu-to-isa"


@dataclass(eq=False)
class Traced:
    """A traced model: `module` has been through the `lpu` passes; `layout` is what it stores."""

    imported: ImportedModel
    module: ModuleOp
    layout: ModelLayout
    max_length: int
    source: Path
    lowering: str
    dump_ir: Path | None

    def lower(self) -> ModuleOp:
        """Runs the rest of the pipeline on `module`, which becomes an `isa` module. To be called once."""
        run_pipeline(self.module, self.lowering)
        _dump(self.dump_ir, 3, "isa", self.module)
        return self.module

    def open_blocks(self) -> Blocks:
        """The tensors of the checkpoint and the derived ones. Raises CheckpointError when they do not fit the model."""
        return checkpoint_blocks(self.imported, self.source)


def trace(
    folder: ModelFolder,
    summary: ModelSummary,
    options: CompileOptions,
    pipeline: str,
    known: dict[str, Any] | None,
) -> Traced:
    """Traces the model; `known` is the table of its converted checkpoint, if that is to be used as it is.

    Raises UnsupportedOpError and others of the frontend, PassError, CapacityError.
    """
    if known is not None:
        return _trace_at(folder, known["max_length"], known["matrix_type"], options, pipeline)
    matrix_type = options.matrix_type or stored_matrix_type(folder.source, summary)
    if options.max_length is not None:
        return _trace_at(folder, options.max_length, matrix_type, options, pipeline)
    limit = summary.max_positions
    traced = _trace_at(folder, limit, matrix_type, options, pipeline)
    length = largest_length(traced.layout, traced.imported.derived, limit, load_target(options.target))
    if length == limit:
        log(f"max_length is {limit}: the model's own limit")
        return traced
    log(f"max_length is {length}: the most that fits the HBM of {options.target} (the model's own limit is {limit})")
    return _trace_at(folder, length, matrix_type, options, pipeline)


def _trace_at(folder: ModelFolder, max_length: int, matrix_type: str, options: CompileOptions, pipeline: str) -> Traced:
    before, lowering = split_pipeline(pipeline)
    imported = trace_model(folder.source, target=options.target, max_length=max_length, matrix_type=matrix_type)
    _dump(options.dump_ir, 1, "import", imported.module)
    run_pipeline(imported.module, before)
    _dump(options.dump_ir, 2, "lpu", imported.module)
    layout = collect_layout(imported.module)
    return Traced(imported, imported.module, layout, max_length, folder.source, lowering, options.dump_ir)


def split_pipeline(pipeline: str) -> tuple[str, str]:
    """The passes before lowering, which fix what the model stores, and the rest.

    Raises OptionError when the pipeline does not lower.
    """
    passes = parse_pipeline(pipeline)
    names = [one.name for one in passes]
    if _LOWERING not in names:
        raise OptionError(f"the pipeline has no {_LOWERING}", "a pipeline for a compile ends with an isa module")
    place = names.index(_LOWERING)
    return pipeline_spec(passes[:place]), pipeline_spec(passes[place:])


def _dump(directory: Path | None, number: int, name: str, module: ModuleOp) -> None:
    if directory is not None:
        write_text(directory / f"{number}_{name}.mlir", print_module(module))
