"""The arguments of a compile, each declared once, as a field of `CompileArguments`.

Each field gives a parameter of `AutoCompiler.compile`, an option of the command line, the check of its kind and range,
and its place in the command that compiles the same. The command line imports this module, so it imports little.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from hyperdex_ir.errors import OptionError
from hyperdex_ir.isa.operands import MOST_POSITION
from hyperdex_ir.targets import DEFAULT_TARGET

DEFAULT_MODEL = "facebook/opt-1.3b"
#: The default of `max_length`, the same as the product's: not chosen.
NOT_CHOSEN = 1


@dataclass(frozen=True)
class Option:
    """An argument on the command line.

    help: its text. brief: the text in `plan`, where it differs. flag: its name without `--`, where it is not the
    argument's. metavar: the name of its value. is_path: the value is a path. same: the option is part of the command
    that compiles the same model in the same way. low, high: the range of a number.
    """

    help: str
    brief: str = ""
    flag: str = ""
    metavar: str | None = None
    is_path: bool = False
    same: bool = False
    low: int | None = None
    high: int | None = None


@dataclass(frozen=True)
class CompileArguments:
    """The arguments of `AutoCompiler.compile`.

    model_id: a Hub id, a directory with a checkpoint, or an absolute path to install to that ends in the Hub id.
    num_device: number of LPUs. max_length: positions, prompt and response together; 1 means not chosen: the
    model's own limit, or the most that fits the target. low_memory_usage: delete the original weights and the
    converted checkpoint at the end, in a folder that the compiler made. token, revision, local_files_only: for
    the Hub. type_device: target, by its name, or the path of a user's own. dtype: `auto` (the checkpoint's), `f16` or
    `bf16`. fast_compile: finished phases are not compared with the checkpoint's files again. pipeline: name, file or
    text of the passes. dump_ir: a folder for the IR as numbered text files. output_dir: the folder to write to.
    max_ram: most resident memory of the process, bytes or a text such as `1536MiB`. force: do everything anew.
    compile_from: a file that dump_ir wrote, to continue from; pipeline then names the passes that are left.
    allow_passes: passes and fusion patterns of installed packages that this file may name.
    """

    model_id: str | os.PathLike[str] = DEFAULT_MODEL
    num_device: Annotated[int, Option("Number of LPUs.", same=True)] = 1
    max_length: Annotated[
        int,
        Option(
            "Positions, prompt and response together. 1: as many as fit.",
            brief="Positions. 1: as many as fit.",
            same=True,
            low=1,
            high=MOST_POSITION,
        ),
    ] = NOT_CHOSEN
    low_memory_usage: Annotated[bool, Option("Delete downloaded weights at the end.")] = False
    token: Annotated[
        str | None,
        Option(
            "Hugging Face access token, by default HF_TOKEN or a stored login; -: ask for it, or read it from stdin."
        ),
    ] = None
    _: KW_ONLY
    type_device: Annotated[
        str | os.PathLike[str], Option("Target: u55c, asic, or a .toml file of your own.", same=True)
    ] = DEFAULT_TARGET
    dtype: Annotated[
        str,
        Option(
            "Type of matrices: auto (the checkpoint's), f16, bf16.",
            brief="Type of matrices: auto, f16, bf16.",
            same=True,
        ),
    ] = "auto"
    fast_compile: Annotated[bool, Option("Do not compare the checkpoint's files again.")] = False
    pipeline: Annotated[str | None, Option("Passes: a name, a .pipeline file, or the text itself.")] = None
    dump_ir: Annotated[
        str | os.PathLike[str] | None, Option("Folder for the IR, as numbered text files.", is_path=True)
    ] = None
    output_dir: Annotated[str | os.PathLike[str] | None, Option("Folder to write to.", same=True)] = None
    max_ram: Annotated[str | int | None, Option("Ceiling on the compiler's resident memory, such as 1536MiB.")] = None
    revision: Annotated[str | None, Option("Branch, tag or commit on the Hub.", same=True)] = None
    local_files_only: Annotated[bool, Option("Do not use the network.", same=True)] = False
    force: Annotated[bool, Option("Do every phase anew.")] = False
    compile_from: Annotated[
        str | os.PathLike[str] | None,
        Option("Go on from a file of --dump-ir; --pipeline is then what is left.", is_path=True),
    ] = None
    allow_passes: Annotated[
        Sequence[str],
        Option(
            "A pass or fusion pattern of an installed package that the file's pipeline may name; again for others.",
            flag="allow-pass",
            metavar="NAME",
            same=True,
        ),
    ] = ()


@dataclass(frozen=True)
class Declared:
    """A declared argument that is an option. types: the types that its value may have."""

    name: str
    option: Option
    types: tuple[Any, ...]
    default: Any

    @property
    def flags(self) -> tuple[str, ...]:
        """Its names on the command line, with hyphens first."""
        name = self.option.flag or self.name
        return tuple(dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name.replace('-', '_')}")))

    @property
    def is_list(self) -> bool:
        return Sequence in self.types

    @property
    def typed(self) -> type:
        """The type of a value that the command line gives."""
        if self.option.is_path:
            return Path
        return self.types[0] if self.types[0] in (bool, int) else str

    def check(self, value: Any) -> None:
        """Raises OptionError for a value of another type, or out of its range."""
        low, high = self.option.low, self.option.high
        is_other = isinstance(value, bool) is not (bool in self.types) or not isinstance(value, self.types)
        if is_other or (self.is_list and isinstance(value, str)) or (low is not None and value < low):
            raise OptionError(f"{self.name} is {value!r:.200}: must be {self._expected}")
        if high is not None and value > high:
            raise OptionError(f"{self.name} is {value}: must be at most {high}")

    @property
    def _expected(self) -> str:
        if self.typed is int:
            return "a whole number" if self.option.low is None else "a positive whole number"
        return "True or False" if self.typed is bool else "a list of names" if self.is_list else "text"

    def words(self, value: Any) -> list[str]:
        """The words of a command line that give this value, none for the default."""
        if value == self.default:
            return []
        if self.is_list:
            return [word for item in value for word in (self.flags[0], item)]
        return [self.flags[0]] if self.typed is bool else [self.flags[0], str(value)]


@cache
def declared(arguments: type) -> dict[str, Declared]:
    """The options among the fields of a dataclass, by name and in order: those with an `Option`."""
    found: dict[str, Declared] = {}
    parameters = signature(arguments).parameters
    for name, hint in get_type_hints(arguments, include_extras=True).items():
        options = [item for item in getattr(hint, "__metadata__", ()) if isinstance(item, Option)]
        if options and name in parameters:
            plain = get_args(hint)[0]
            union = () if get_origin(plain) is Sequence else get_args(plain)
            types = tuple(get_origin(one) or one for one in union or (plain,))
            found[name] = Declared(name, options[0], types, parameters[name].default)
    return found


def check_arguments(arguments: Any) -> None:
    """Raises OptionError for the first of the declared arguments whose value is none of its kind."""
    for name, one in declared(type(arguments)).items():
        one.check(getattr(arguments, name))


def command_line(arguments: Any) -> list[str]:
    """The command that compiles the same model with the same options, but for pipeline, dumps and the like."""
    command = ["hyperdex", "compile", os.fspath(arguments.model_id)]
    for name, one in declared(type(arguments)).items():
        command += one.words(getattr(arguments, name)) if one.option.same else []
    return command
