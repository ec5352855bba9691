"""The IR of a model at any point of the pipeline, traced anew: needs config.json, neither weights nor a compile."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.passes import ModulePass

from hyperdex_ir.backend.arguments import command_line
from hyperdex_ir.backend.checkpoint import is_untied, read_summary, stored_matrix_type, weight_files_of
from hyperdex_ir.backend.dumps import IMPORT, LOWERING, Dump, dump_text, read_chosen_dump
from hyperdex_ir.backend.links import check_links
from hyperdex_ir.backend.options import CompileOptions, check_devices, check_dividing, chosen_passes
from hyperdex_ir.backend.tracing import module_for, place_of_lowering, resume, resume_lowered, trace
from hyperdex_ir.errors import NotCompiledError, OptionError
from hyperdex_ir.frontend.config import ModelSummary
from hyperdex_ir.frontend.model import trace_model
from hyperdex_ir.frontend.wrapper import text_values
from hyperdex_ir.hub.download import fetch_anything
from hyperdex_ir.isa.formats import matrix_type_of
from hyperdex_ir.memory import serialize
from hyperdex_ir.passes.pipeline import run_passes
from hyperdex_ir.passes.reproducer import FOLDER
from hyperdex_ir.support.locations import ModelFolder
from hyperdex_ir.support.reading import read_config_json
from hyperdex_ir.support.xdsl import print_module
from hyperdex_ir.targets import DEFAULT_TARGET

LEVELS = (IMPORT, "lpu", "isa")


def show_ir(
    name: str,
    folder: ModelFolder,
    *,
    pipeline: str | None = None,
    after: str | None = None,
    function: str | None = None,
    locations: bool = False,
    num_device: int = 1,
    allowed: Collection[str] = (),
) -> str:
    """The text of a model's IR, for `num_device` devices.

    pipeline: by name, file or text; None: the one that the model was compiled with, else the compiler's own. after: the
    name of a pass (the last of that name), `import`, or a number of passes; None: all. allowed: passes of installed
    packages that the manifest may name. function: only this one. locations: with module paths. Raises NotCompiledError
    when there is no config.json, OptionError for a pass or function that is not there, and the errors of the frontend
    and the passes.
    """
    if not (folder.source / "config.json").is_file():
        raise NotCompiledError(f"{name}: nothing is there yet", f"hyperdex compile {shlex.quote(name)}")
    summary = read_summary(folder.source)
    check_devices(num_device, summary.heads)
    compiled = serialize.manifest_entries(folder.manifest).get(str(num_device), {})
    table = serialize.read_table(folder.model_config) if folder.model_config.is_file() else {}
    recorded = compiled.get("options", {}).get("pipeline")
    passes = chosen_passes(pipeline, recorded, allowed)
    imported = trace_model(
        folder.source,
        target=compiled.get("target", DEFAULT_TARGET),
        max_length=table.get("max_length", summary.max_positions),
        matrix_type=table.get("matrix_type") or likely_matrix_type(folder, summary),
        untied=is_untied(table or None, summary),
    )
    module = module_for(imported, num_device)
    run_passes(module, passes[: _position(passes, after)], repro=Path(FOLDER))
    shown = module if function is None else _function(module, function)
    return print_module(shown, locations=locations)


def _position(passes: list[ModulePass], after: str | None) -> int:
    names = [one.name for one in passes]
    if after is None:
        return len(names)
    if after == IMPORT:
        return 0
    if after in map(str, range(len(names) + 1)):
        return int(after)
    if after in names:
        return len(names) - names[::-1].index(after)
    raise OptionError(f"--after {after}: the pipeline has no such pass", f"choose from {IMPORT}, {', '.join(names)}")


def _function(module: ModuleOp, name: str) -> FuncOp:
    functions = {op.sym_name.data: op for op in module.ops if isinstance(op, FuncOp)}
    if name.removeprefix("@") not in functions:
        raise OptionError(f"--function {name}: the module has no such function", f"choose from {', '.join(functions)}")
    return functions[name.removeprefix("@")]


def likely_matrix_type(folder: ModelFolder, summary: ModelSummary) -> str:
    """The matrix type that dtype `auto` stands for: by the weights when they are there, else by config.json."""
    if weight_files_of(folder):
        return stored_matrix_type(folder.source, summary)
    config = text_values(read_config_json(folder.source / "config.json"))
    return matrix_type_of(config.get("dtype", config.get("torch_dtype")))


# ---------------------------------------------------------------------------------------------------- --compile-to
def compile_to(folder: ModelFolder, options: CompileOptions, level: str) -> str:
    """The module's text at a level, `import`, `lpu` or `isa`, where the compile stops. A compile can continue from it.

    Nothing but config.json is downloaded, and nothing is written but the files that `options.dump_ir` asks for.
    Raises OptionError for another level, or one that lies before what the compile continues from; else as a compile.
    """
    if level not in LEVELS:
        raise OptionError(f"--compile-to {level}: no such level", f"choose from {', '.join(LEVELS)}")
    check_links(folder)
    fetch_anything(folder, options.hub)
    module, passes, done = _module_at(folder, options, level)
    command = [*command_line(options.asked), "--compile-from", "FILE"]
    return dump_text(module, passes[:done], passes[done:], command)


def _module_at(folder: ModelFolder, options: CompileOptions, level: str) -> tuple[ModuleOp, list[ModulePass], int]:
    """The module, the whole pipeline, and the number of its passes that have run."""
    if (dump := read_chosen_dump(options)) is not None:
        return _resumed_at(folder, options, dump, level)
    summary = read_summary(folder.source)
    check_devices(options.num_device, summary.heads)
    passes = chosen_passes(options.pipeline)
    check_dividing(passes, options.num_device)
    options = replace(options, matrix_type=options.matrix_type or likely_matrix_type(folder, summary))
    traced = trace(folder, summary, options, passes, None)
    if level == "isa":
        return traced.lower(), passes, len(passes)
    if level == "lpu":
        return traced.module, passes, place_of_lowering(passes)
    assert traced.imported is not None
    return module_for(traced.imported, options.num_device), passes, 0


def _resumed_at(
    folder: ModelFolder, options: CompileOptions, dump: Dump, level: str
) -> tuple[ModuleOp, list[ModulePass], int]:
    if level == IMPORT or (level == "lpu" and dump.is_lowered):
        raise OptionError(f"{dump.path}: lies behind --compile-to {level}", "leave one of the two out")
    if dump.is_lowered:
        return resume_lowered(folder, options, dump), dump.passes, len(dump.passes)
    traced = resume(folder, options, dump)
    if level == "isa":
        return traced.lower(), dump.passes, len(dump.passes)
    return traced.module, dump.passes, [one.name for one in dump.passes].index(LOWERING)
