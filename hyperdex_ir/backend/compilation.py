"""One compile of one model: the phases in order, under the folder's lock."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hyperdex_ir.backend.dumps import read_chosen_dump
from hyperdex_ir.backend.finished import FinishedPhases
from hyperdex_ir.backend.kept_sources import keep_source
from hyperdex_ir.backend.links import check_links
from hyperdex_ir.backend.lock import locked_folder
from hyperdex_ir.backend.low_memory import delete_weights
from hyperdex_ir.backend.options import CompileOptions, chosen_passes
from hyperdex_ir.backend.phases import Phases, check_model
from hyperdex_ir.backend.ram_ceiling import Ceiling
from hyperdex_ir.backend.staging import remove_empty_folders, settle
from hyperdex_ir.backend.written import unfinished_files
from hyperdex_ir.errors import HyperdexError
from hyperdex_ir.memory.serialize import read_table
from hyperdex_ir.support.folder_access import FolderTree
from hyperdex_ir.support.locations import ModelFolder
from hyperdex_ir.support.progress import log, log_banner
from hyperdex_ir.targets import load_target

_ELSEWHERE = "name another folder to write to: --output-dir DIR, or output_dir= in Python"


@dataclass(frozen=True)
class CompiledFiles:
    """The paths of a compiled model.

    root: its folder. model: the converted checkpoint, None once it has been deleted. parameters: one image a channel,
    device after device.
    """

    root: Path
    model: Path | None
    model_config: Path
    parameters: tuple[Path, ...]
    memory_map: Path
    instructions: Path
    origins: Path
    manifest: Path
    max_length: int
    matrix_type: str


def compile_model(folder: ModelFolder, options: CompileOptions) -> CompiledFiles:
    """Compiles. Raises HyperdexError subclasses; an earlier compiled model is unchanged then."""
    dump, memory = read_chosen_dump(options), Ceiling(options.max_ram)
    passes = chosen_passes(options.pipeline) if dump is None else dump.passes
    log_banner()
    with locked_folder(folder.root, _ELSEWHERE), _empty_folders_removed(folder):
        check_links(folder)
        state = settle(folder)
        summary = check_model(folder, options, passes)
        done = FinishedPhases(folder, options, dump, passes, summary, state)
        if done.are_all():
            matrix_type = read_table(folder.model_config)["matrix_type"]
            log(f"Compiled already with these options, with matrices in {matrix_type}: {folder.root}")
        else:
            _run(Phases(done, memory))
            state = settle(folder)
        keep_source(folder)
        if options.asked.low_memory_usage:
            delete_weights(folder, state)
    log(memory.report())
    log("Model compile Complete!")
    return _compiled_files(folder, options)


def _run(phases: Phases) -> None:
    done = phases.done
    phases.memory.check_base()
    phases.download()
    for name in unfinished_files(done.state.tree):
        done.state.tree.remove(name)
    done.discard_outdated()
    phases.convert()
    phases.map()
    phases.generate()
    phases.write_manifest()


def _compiled_files(folder: ModelFolder, options: CompileOptions) -> CompiledFiles:
    table, number = read_table(folder.model_config), options.num_device
    channels = range(load_target(options.target).channels)
    return CompiledFiles(
        root=folder.root,
        model=folder.model_binary if folder.model_binary.is_file() else None,
        model_config=folder.model_config,
        parameters=tuple(
            folder.parameter_file(number, device, channel) for device in range(number) for channel in channels
        ),
        memory_map=folder.memory_map(number),
        instructions=folder.instructions(number),
        origins=folder.origins(number),
        manifest=folder.manifest,
        max_length=table["max_length"],
        matrix_type=table["matrix_type"],
    )


@contextlib.contextmanager
def _empty_folders_removed(folder: ModelFolder) -> Iterator[None]:
    """Removes empty folders after a failed compile, `ckpt/` only if it was not there before."""
    new = not folder.ckpt.exists()
    try:
        yield
    except (HyperdexError, OSError, KeyboardInterrupt):
        with contextlib.suppress(OSError):
            tree = FolderTree(folder.root)
            remove_empty_folders(tree)
            if new:
                tree.remove_if_empty(folder.ckpt.name)
        raise
