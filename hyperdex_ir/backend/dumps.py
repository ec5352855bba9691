"""The IR of a compile as text files that a compile can be continued from.

Each file begins with comments: its place in the pipeline, the command that continues from it, the passes that have run
and those that are left. Locations are always written: the table of instructions is made from them.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from hyperdex_ir import __version__
from hyperdex_ir.backend.options import CompileOptions
from hyperdex_ir.errors import OptionError
from hyperdex_ir.passes.pipeline import Observer, PipelinePlace, parse_pipeline, pipeline_spec, typed_pipeline
from hyperdex_ir.support.files import write_text
from hyperdex_ir.support.reading import DUMP, read_source
from hyperdex_ir.support.xdsl import parse_module, print_module

IMPORT = "import"
LOWERING = "lower-lpu-to-isa"
_RUN = "// passes run:"
_LEFT = "// passes left:"
_MORE = "//   "
_COLUMNS = 120


def dump_text(module: ModuleOp, run: Sequence[ModulePass], left: Sequence[ModulePass], command: Sequence[str]) -> str:
    """The text of a module with its header. command: the command that continues from it."""
    place = f"after {run[-1].name}, pass {len(run)} of {len(run) + len(left)}" if run else "as imported"
    lines = [
        f"// hyperdex-ir {__version__}, {place}; continue with",
        f"//   {shlex.join(command)}",
        *_passes_lines(_RUN, run),
        *_passes_lines(_LEFT, left),
    ]
    return "\n".join(lines) + "\n" + print_module(module, locations=True)


def _passes_lines(start: str, passes: Sequence[ModulePass]) -> list[str]:
    lines = [start]
    for number, one in enumerate(passes):
        text = pipeline_spec([one]) + ("," if number + 1 < len(passes) else "")
        if len(lines) > 1 and len(lines[-1]) + 1 + len(text) <= _COLUMNS:
            lines[-1] += " " + text
        else:
            lines.append(_MORE + text)
    return lines


@dataclass
class IrDump(Observer):
    """Writes a file after import and one after each pass: `00_import.mlir`, `01_lpu-token-major.mlir`, ...

    folder: the folder to write to. shown: the folder as the user named it, for the command. command: the command of the
    compile itself. passes: the whole pipeline. done: number of passes that have run.
    """

    folder: Path
    shown: str
    command: Sequence[str]
    passes: Sequence[ModulePass]
    done: int = 0

    def start(self, passes: Sequence[ModulePass], module: ModuleOp) -> None:
        if self.done == 0:
            self._write(module)

    def after(self, place: PipelinePlace, module: ModuleOp) -> None:
        self.done += 1
        self._write(module)

    def _write(self, module: ModuleOp) -> None:
        run, left = self.passes[: self.done], self.passes[self.done :]
        name = f"{self.done:02d}_{run[-1].name if run else IMPORT}.mlir"
        command = [*self.command, "--compile-from", str(Path(self.shown) / name)]
        write_text(self.folder / name, dump_text(module, run, left, command))


@dataclass(frozen=True, eq=False)
class Dump:
    """A file to continue from. text: the whole file. run: the passes that have run, by its header. left: the others."""

    path: Path
    text: str
    run: list[ModulePass]
    left: list[ModulePass]

    @property
    def passes(self) -> list[ModulePass]:
        """The whole pipeline."""
        return [*self.run, *self.left]

    @property
    def is_lowered(self) -> bool:
        """Test for a dump of an `isa` module."""
        return LOWERING in [one.name for one in self.run]

    def module(self) -> ModuleOp:
        """A new module of the text. Raises PassError when it does not parse."""
        return parse_module(self.text, str(self.path))


def read_dump(path: Path, pipeline: str | None, allowed: Collection[str] = ()) -> Dump:
    """Reads a dump. `pipeline`, by name, file or text, replaces the header's list of passes that are left.

    allowed: passes of installed packages that the header may name. Raises OptionError when the file cannot be read,
    its header names another pass than `parse_pipeline` knows, or nothing says which passes are left.
    """
    try:
        text = read_source(path, DUMP)
    except FileNotFoundError:
        raise OptionError(f"{path}: cannot read this IR: no such file", DUMP.hint) from None
    run, left = _header(text, _RUN), _header(text, _LEFT)
    if pipeline is None and left is None:
        raise OptionError(f"{path}: its header does not say which passes are left", "say so with --pipeline")
    done = parse_pipeline(run or "", f"{path}: passes run", allowed)
    if pipeline is not None:
        return Dump(path, text, done, typed_pipeline(pipeline))
    return Dump(path, text, done, parse_pipeline(left or "", f"{path}: passes left", allowed))


def read_chosen_dump(options: CompileOptions) -> Dump | None:
    """The dump that a compile is to continue from; None when it is to begin anew. Raises as `read_dump`."""
    if options.compile_from is None:
        return None
    return read_dump(options.compile_from, options.pipeline, options.asked.allow_passes)


def _header(text: str, start: str) -> str | None:
    """The passes that the header lists after `start`; None when it does not."""
    head = list(takewhile(lambda line: line.startswith("//"), text.split("\n")))
    if start not in head:
        return None
    lines = takewhile(lambda line: line.startswith(_MORE), head[head.index(start) + 1 :])
    return " ".join(line.removeprefix(_MORE) for line in lines)
