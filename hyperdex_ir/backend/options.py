"""The arguments of a compile, checked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from xdsl.passes import ModulePass

from hyperdex_ir.backend.ram_ceiling import parse_size
from hyperdex_ir.errors import OptionError
from hyperdex_ir.hub.download import HubOptions
from hyperdex_ir.memory.serialize import MOST_POSITIONS
from hyperdex_ir.support.locations import user_path
from hyperdex_ir.targets import load_target

#: dtype argument -> matrix type; None: that of the token embedding in the checkpoint.
MATRIX_TYPES = {
    "auto": None,
    "f16": "f16",
    "float16": "f16",
    "bf16": "bf16",
    "bfloat16": "bf16",
}
#: The default of `max_length`, as the product has it: not chosen.
NOT_CHOSEN = 1
_PARTITION = "lpu-partition"


@dataclass(frozen=True)
class CompileOptions:
    """What is asked of a compile.

    matrix_type None: the checkpoint's. max_length None: the largest that fits. pipeline None: `default`, or
    what the header of `compile_from` says is left. allowed_passes: those of installed packages that this header may
    name. max_ram: bytes. dump_shown: `dump_ir` as the user named it. command: the command line that asks for the same
    compile, but for pipeline and dumps.
    """

    hub: HubOptions
    target: str = "u55c"
    num_device: int = 1
    max_length: int | None = None
    matrix_type: str | None = None
    pipeline: str | None = None
    dump_ir: Path | None = None
    dump_shown: str = ""
    compile_from: Path | None = None
    allowed_passes: tuple[str, ...] = ()
    command: tuple[str, ...] = ("hyperdex", "compile")
    low_memory_usage: bool = False
    fast_compile: bool = False
    force: bool = False
    max_ram: int | None = None


def check_numbers(num_device: int, max_length: int) -> None:
    """Raises OptionError for a number that cannot be used."""
    if isinstance(num_device, bool) or not isinstance(num_device, int):
        raise OptionError(f"num_device is {num_device!r}: must be a whole number")
    if isinstance(max_length, bool) or not isinstance(max_length, int) or max_length < 1:
        raise OptionError(f"max_length is {max_length!r}: must be a positive whole number")
    if max_length > MOST_POSITIONS:
        raise OptionError(f"max_length is {max_length}: must be at most {MOST_POSITIONS}")


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


def make_options(
    *,
    num_device: int,
    max_length: int,
    dtype: str,
    type_device: str,
    max_ram: str | int | None = None,
    pipeline: str | None = None,
    dump_ir: str | Path | None = None,
    low_memory_usage: bool = False,
    fast_compile: bool = False,
    force: bool = False,
    hub: HubOptions,
    compile_from: str | Path | None = None,
    allow_passes: Sequence[str] = (),
    command: Sequence[str] = ("hyperdex", "compile"),
) -> CompileOptions:
    """The options that the arguments of `AutoCompiler.compile` stand for. Raises OptionError."""
    check_numbers(num_device, max_length)
    if dtype not in MATRIX_TYPES:
        raise OptionError(f"no dtype {dtype!r}; there are {', '.join(MATRIX_TYPES)}")
    folder = None if dump_ir is None else user_path(dump_ir).absolute()
    if folder is not None and folder.exists() and not folder.is_dir():
        raise OptionError(f"dump_ir {folder}: not a directory", "name a folder, which may not exist yet")
    return CompileOptions(
        hub=hub,
        target=load_target(type_device).name,
        num_device=num_device,
        max_length=None if max_length == NOT_CHOSEN else max_length,
        matrix_type=MATRIX_TYPES[dtype],
        pipeline=pipeline or None,
        dump_ir=folder,
        dump_shown="" if dump_ir is None else str(dump_ir),
        compile_from=None if compile_from is None else user_path(compile_from),
        allowed_passes=tuple(allow_passes),
        command=tuple(command),
        low_memory_usage=low_memory_usage,
        fast_compile=fast_compile,
        force=force,
        max_ram=None if max_ram is None else parse_size(max_ram),
    )


def command_line(
    model_id: str,
    *,
    num_device: int,
    max_length: int,
    type_device: str,
    dtype: str,
    output_dir: object,
    revision: str | None,
    local_files_only: bool,
    allow_passes: Sequence[str] = (),
) -> list[str]:
    """The command that compiles the same model with the same options."""
    command = ["hyperdex", "compile", model_id]
    for option, value, default in (
        ("--num-device", num_device, 1),
        ("--max-length", max_length, NOT_CHOSEN),
        ("--type-device", type_device, "u55c"),
        ("--dtype", dtype, "auto"),
        ("--output-dir", output_dir, None),
        ("--revision", revision, None),
    ):
        command += [] if value == default else [option, str(value)]
    command += ["--local-files-only"] * local_files_only
    return [*command, *(word for name in allow_passes for word in ("--allow-pass", name))]
