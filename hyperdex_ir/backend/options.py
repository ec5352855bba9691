"""The arguments of a compile, checked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from xdsl.passes import ModulePass

from hyperdex_ir.backend.arguments import NOT_CHOSEN, CompileArguments, check_arguments
from hyperdex_ir.backend.ram_ceiling import parse_size
from hyperdex_ir.errors import OptionError
from hyperdex_ir.hub.download import HubOptions
from hyperdex_ir.isa.formats import FORMATS
from hyperdex_ir.support.locations import user_path
from hyperdex_ir.targets import find_target

#: dtype argument -> matrix type; None: that of the token embedding in the checkpoint.
MATRIX_TYPES: dict[str, str | None] = {"auto": None}
MATRIX_TYPES |= {spelling: kind.name for kind in FORMATS.values() for spelling in (kind.name, kind.torch)}
_PARTITION = "lpu-partition"


@dataclass(frozen=True)
class CompileOptions:
    """The checked arguments of a compile.

    asked: the arguments, as they were given. target: the text that `load_target` takes. max_length None: the largest
    that fits. matrix_type None: the checkpoint's. pipeline None: `default`, or the passes that the header of
    `compile_from` lists as left. max_ram: bytes.
    """

    asked: CompileArguments
    hub: HubOptions
    target: str
    num_device: int
    max_length: int | None
    matrix_type: str | None
    pipeline: str | None
    dump_ir: Path | None
    compile_from: Path | None
    max_ram: int | None


def check_devices(num_device: int, heads: int) -> None:
    """Raises OptionError unless a model with that many query heads can be divided over so many devices."""
    if not 1 <= num_device <= heads:
        raise OptionError(
            f"num_device is {num_device}: must be from 1 to {heads}, the number of the model's query heads"
        )


def chosen_passes(typed: str | None, recorded: str | None = None, allowed: Collection[str] = ()) -> list[ModulePass]:
    """The passes that a person has typed, else those that a manifest records, else the compiler's own.

    allowed: passes of installed packages that the record may name. Raises OptionError.
    """
    from hyperdex_ir.passes.pipeline_text import parse_pipeline, typed_pipeline

    if typed:
        return typed_pipeline(typed)
    return parse_pipeline(recorded or "default", "the pipeline in manifest.json", allowed)


def check_dividing(passes: Sequence[ModulePass], num_device: int) -> None:
    """Raises OptionError when a pipeline for several devices would not divide the model."""
    if num_device > 1 and _PARTITION not in [one.name for one in passes]:
        raise OptionError(f"num_device is {num_device}, but the pipeline has no {_PARTITION}", "--pipeline default")


def make_options(arguments: CompileArguments) -> CompileOptions:
    """The options that the arguments of `AutoCompiler.compile` stand for. Raises OptionError."""
    check_arguments(arguments)
    if arguments.dtype not in MATRIX_TYPES:
        raise OptionError(f"no dtype {arguments.dtype!r}; there are {', '.join(MATRIX_TYPES)}")
    folder = None if arguments.dump_ir is None else user_path(arguments.dump_ir).absolute()
    if folder is not None and folder.exists() and not folder.is_dir():
        raise OptionError(f"dump_ir {folder}: not a directory", "name a folder, which may not exist yet")
    return CompileOptions(
        asked=arguments,
        hub=HubOptions(arguments.token, arguments.revision, arguments.local_files_only, refresh=arguments.force),
        target=find_target(arguments.type_device),
        num_device=arguments.num_device,
        max_length=None if arguments.max_length == NOT_CHOSEN else arguments.max_length,
        matrix_type=MATRIX_TYPES[arguments.dtype],
        pipeline=arguments.pipeline or None,
        dump_ir=folder,
        compile_from=None if arguments.compile_from is None else user_path(arguments.compile_from),
        max_ram=None if arguments.max_ram is None else parse_size(arguments.max_ram),
    )
