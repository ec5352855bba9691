"""The IR of a model, made once a compile: traced, or read from a dump, and run through the passes before lowering."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from hyperdex_ir.backend.arguments import command_line
from hyperdex_ir.backend.checkpoint import checkpoint_blocks, is_untied, stored_matrix_type
from hyperdex_ir.backend.convert import Blocks
from hyperdex_ir.backend.dumps import LOWERING, Dump, IrDump
from hyperdex_ir.backend.length import largest_length
from hyperdex_ir.backend.options import CompileOptions
from hyperdex_ir.checkpoint.files import Checkpoint
from hyperdex_ir.dialects import lpu
from hyperdex_ir.dialects.module_facts import ModuleFacts
from hyperdex_ir.errors import OptionError
from hyperdex_ir.frontend.config import ModelSummary
from hyperdex_ir.frontend.model import ImportedModel, trace_model
from hyperdex_ir.memory.collect import collect_layout
from hyperdex_ir.memory.layout import ModelLayout
from hyperdex_ir.memory.serialize import read_table
from hyperdex_ir.passes.pipeline import Observer, run_passes
from hyperdex_ir.passes.reproducer import FOLDER
from hyperdex_ir.support.locations import ModelFolder
from hyperdex_ir.support.progress import log
from hyperdex_ir.targets import load_target, shown_target


@dataclass(eq=False)
class Traced:
    """A model's IR. module: the IR after the `lpu` passes. layout: the layout of its stored parameters.

    lowering: the passes that are left. imported: the frontend's result, None when the module was read from a dump.
    """

    module: ModuleOp
    layout: ModelLayout
    max_length: int
    matrix_type: str
    lowering: Sequence[ModulePass]
    folder: ModelFolder
    target: str
    observers: Sequence[Observer] = ()
    imported: ImportedModel | None = None

    def lower(self) -> ModuleOp:
        """Runs the rest of the pipeline on `module`, which becomes an `isa` module. Call it once."""
        run_passes(self.module, self.lowering, observers=self.observers, repro=self.folder.root / FOLDER)
        return self.module

    def open_blocks(self, block_bytes: int, watch: Callable[[Checkpoint], None]) -> Blocks:
        """The tensors of the checkpoint, and the derived ones. watch: called with the checkpoint as it is stored.

        block_bytes: about how many bytes are read at a time.

        Raises CheckpointError when they do not fit the model.
        """
        return checkpoint_blocks(self._imported_anew(), self.folder.source, block_bytes, watch)

    def whole(self, options: CompileOptions, passes: Sequence[ModulePass]) -> Traced:
        """The model as one device stores it, optimized by the same passes."""
        alone = replace(options, num_device=1, dump_ir=None)
        return _optimize_imported(self._imported_anew(), self.folder, alone, passes)

    def at(self, max_length: int, options: CompileOptions, passes: Sequence[ModulePass]) -> Traced:
        """The model for another length, optimized by the same passes."""
        asked = replace(options, max_length=max_length)
        return _optimize_imported(self._imported_anew().at(max_length, self.target), self.folder, asked, passes)

    def _imported_anew(self) -> ImportedModel:
        return self.imported or trace_model(
            self.folder.source, target=self.target, max_length=self.max_length, matrix_type=self.matrix_type
        )


def trace(
    folder: ModelFolder,
    summary: ModelSummary,
    options: CompileOptions,
    passes: Sequence[ModulePass],
    known: dict[str, Any] | None,
) -> Traced:
    """Imports and optimizes the model; `known` is the table of its converted checkpoint, if that is used as it is.

    Raises UnsupportedOpError and other errors of the frontend, PassError, CapacityError.
    """
    length = options.max_length or summary.max_positions if known is None else known["max_length"]
    matrix_type = known["matrix_type"] if known is not None else options.matrix_type
    if matrix_type is None:
        matrix_type = stored_matrix_type(folder.source, summary, log)
    else:
        log(f"The matrix type is {matrix_type}: {'as asked for' if known is None else 'as converted before'}")
    imported = trace_model(
        folder.source,
        target=options.target,
        max_length=length,
        matrix_type=matrix_type,
        anew=options.asked.force,
        untied=is_untied(known, summary),
        report=log,
    )
    traced = _optimize_imported(imported, folder, options, passes)
    if known is None and options.max_length is None:
        length = _chosen_length(traced, imported, summary.max_positions)
    if length != traced.max_length:
        traced = traced.at(length, options, passes)
    assert traced.imported is not None
    for choice in traced.imported.derived.choices():
        log(choice)
    return traced


def _chosen_length(traced: Traced, imported: ImportedModel, limit: int) -> int:
    """The largest length that fits; the log says why."""
    length = largest_length(traced.layout, imported.derived.tables, limit, load_target(traced.target))
    if length == limit:
        log(f"max_length is {limit}: the model's own limit")
        return limit
    name = shown_target(traced.target)
    log(f"max_length is {length}: the most that fits the HBM of {name} (the model's own limit is {limit})")
    return length


def _optimize_imported(
    imported: ImportedModel, folder: ModelFolder, options: CompileOptions, passes: Sequence[ModulePass]
) -> Traced:
    module = module_for(imported, options.num_device)
    traced = _optimize(module, passes, dump_observers(options, passes), folder, imported)
    check_facts(traced.module, options, "the module after the pipeline")
    return traced


def module_for(imported: ImportedModel, num_device: int) -> ModuleOp:
    """A copy of the imported module for the passes. It records its number of devices, unless that is one."""
    module = imported.module.clone()
    if num_device > 1:
        module.attributes[lpu.GRID] = lpu.GridAttr(num_device)
    return module


def resume(folder: ModelFolder, options: CompileOptions, dump: Dump) -> Traced:
    """Continues from a dump of the `lpu` level: runs the passes that are left before lowering.

    Raises PassError when it does not parse, OptionError when it is no such dump or is not what the options ask for.
    """
    module = dump.module()
    check_facts(module, options, str(dump.path))
    observers = dump_observers(options, dump.passes, len(dump.run))
    return _optimize(module, dump.left, observers, folder, None)


def resume_lowered(folder: ModelFolder, options: CompileOptions, dump: Dump) -> ModuleOp:
    """Continues from a dump of the `isa` level: runs the rest of the pipeline. Phases 2 and 3 must be finished.

    Raises as `resume`, and OptionError when the dump was made for another length or matrix type than those phases.
    """
    module = dump.module()
    known = read_table(folder.model_config)
    asked = replace(options, max_length=known["max_length"], matrix_type=known["matrix_type"])
    check_facts(module, asked, str(dump.path))
    observers = dump_observers(options, dump.passes, len(dump.run))
    run_passes(module, dump.left, observers=observers, repro=folder.root / FOLDER)
    return module


def _optimize(
    module: ModuleOp,
    passes: Sequence[ModulePass],
    observers: Sequence[Observer],
    folder: ModelFolder,
    imported: ImportedModel | None,
) -> Traced:
    place = place_of_lowering(passes)
    run_passes(module, passes[:place], observers=observers, repro=folder.root / FOLDER)
    facts = ModuleFacts(module, _not_of_a_dump)
    return Traced(
        module=module,
        layout=collect_layout(module),
        max_length=facts.max_length,
        matrix_type=facts.matrix_type,
        lowering=passes[place:],
        folder=folder,
        target=facts.target,
        observers=observers,
        imported=imported,
    )


def dump_observers(options: CompileOptions, passes: Sequence[ModulePass], done: int = 0) -> list[Observer]:
    """The observers that write the IR into files, if that is asked for. done: number of passes that have run before."""
    if options.dump_ir is None:
        return []
    return [IrDump(options.dump_ir, str(options.asked.dump_ir), command_line(options.asked), passes, done)]


def _not_of_a_dump(attribute: str, kind: str) -> OptionError:
    return OptionError(f"the module has no attribute {attribute}", "continue from a file of --dump-ir")


def check_facts(module: ModuleOp, options: CompileOptions, name: str) -> None:
    """Raises OptionError when the module was made for something else than the options ask for, or records nothing."""
    facts = ModuleFacts(module, _not_of_a_dump)
    for fact in ("num_device", "target", "max_length", "matrix_type"):
        found, asked = getattr(facts, fact), getattr(options, fact)
        if asked is not None and asked != found:
            option = {"target": "--type-device", "matrix_type": "--dtype"}.get(fact, f"--{fact.replace('_', '-')}")
            raise OptionError(
                f"{name}: made for {fact} {found}, asked for is {asked}", f"add {option} {shlex.quote(str(found))}"
            )


def place_of_lowering(passes: Sequence[ModulePass]) -> int:
    """Number of passes before lowering. Raises OptionError when the pipeline does not lower."""
    names = [one.name for one in passes]
    if LOWERING not in names:
        raise OptionError(f"the pipeline has no {LOWERING}", "a pipeline for a compile ends with an isa module")
    return names.index(LOWERING)
