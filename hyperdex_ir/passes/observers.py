"""Observers of a running pipeline: the IR before and after passes, files of the IR, times, numbers of operations."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from xdsl.dialects.builtin import IntegerAttr, ModuleOp
from xdsl.passes import ModulePass

from hyperdex_ir.errors import PassError
from hyperdex_ir.passes.pipeline import Observer, PipelinePlace
from hyperdex_ir.passes.pipeline_text import pipeline_spec
from hyperdex_ir.support.files import write_text
from hyperdex_ir.support.xdsl import parse_module, print_module


@dataclass
class PrintIr(Observer):
    """Prints the IR before and after some passes, each time under a line that says which passes have run.

    before, after: names of passes. changed: only when the pass changed the text of the module.
    """

    stream: TextIO
    before_names: Collection[str] = ()
    after_names: Collection[str] = ()
    before_all: bool = False
    after_all: bool = False
    after_change: bool = False
    locations: bool = False
    _last: str = ""

    def start(self, passes: Sequence[ModulePass], module: ModuleOp) -> None:
        self._last = self._text(module) if self.after_change else ""

    def before(self, place: PipelinePlace, module: ModuleOp) -> None:
        if self.before_all or place.name in self.before_names:
            self._print(f"before {place.name}", place.passes[: place.index], self._text(module))

    def after(self, place: PipelinePlace, module: ModuleOp) -> None:
        wanted = self.after_all or place.name in self.after_names
        text = self._text(module) if wanted or self.after_change else ""
        if wanted or text != self._last:
            self._print(f"after {place.name}", place.run, text)
        self._last = text if self.after_change else ""

    def _text(self, module: ModuleOp) -> str:
        return print_module(module, locations=self.locations)

    def _print(self, place: str, run: Sequence[ModulePass], text: str) -> None:
        print(f"// IR {place}, pipeline so far: {pipeline_spec(run)}\n{text}", file=self.stream, flush=True)


@dataclass
class IrTree(Observer):
    """Writes the IR into numbered files, `00_input.mlir` and one for each pass; each file says how to continue from
    it."""

    folder: Path

    def start(self, passes: Sequence[ModulePass], module: ModuleOp) -> None:
        self._write("00_input.mlir", (), passes, module)

    def after(self, place: PipelinePlace, module: ModuleOp) -> None:
        self._write(f"{place.index + 1:02d}_{place.name}.mlir", place.run, place.left, module)

    def _write(self, name: str, run: Sequence[ModulePass], left: Sequence[ModulePass], module: ModuleOp) -> None:
        path = self.folder / name
        head = f"// pipeline so far: {pipeline_spec(run)}\n"
        command = shlex.join(["hyperdex-opt", str(path), "--pipeline", pipeline_spec(left)])
        head += f"// continue with: {command}\n" if left else ""
        write_text(path, head + print_module(module, locations=True))


@dataclass
class Times(Observer):
    """Prints the seconds of each pass, in the form of xdsl-opt."""

    stream: TextIO

    def after(self, place: PipelinePlace, module: ModuleOp) -> None:
        print(f"Pass {place.name} took {place.seconds} seconds", file=self.stream)


@dataclass
class PrintBetween(Observer):
    """Prints the IR between passes, in the form of xdsl-opt."""

    stream: TextIO

    def after(self, place: PipelinePlace, module: ModuleOp) -> None:
        if place.left:
            print(f"IR after {place.name}:\n{print_module(module)}\n\n", file=self.stream)


@dataclass
class Statistics(Observer):
    """Prints a table: operations before and after each pass, and the numbers that the pass left on the module."""

    stream: TextIO
    _operations: int = 0
    _numbers: dict[str, int] = field(default_factory=dict)
    _rows: list[tuple[str, int, int, str]] = field(default_factory=list)

    def start(self, passes: Sequence[ModulePass], module: ModuleOp) -> None:
        self._operations, self._numbers, self._rows = _count(module), _numbers(module), []

    def after(self, place: PipelinePlace, module: ModuleOp) -> None:
        operations, numbers = _count(module), _numbers(module)
        new = [f"{name} = {value:,}" for name, value in numbers.items() if self._numbers.get(name) != value]
        self._rows.append((place.name, self._operations, operations, ", ".join(new)))
        self._operations, self._numbers = operations, numbers

    def end(self, passes: Sequence[ModulePass], module: ModuleOp) -> None:
        width = max([4, *(len(name) for name, *_ in self._rows)])
        print(f"{'pass':{width}}  {'ops before':>10}  {'ops after':>10}  reported", file=self.stream)
        for name, before, after, reported in self._rows:
            print(f"{name:{width}}  {before:>10,}  {after:>10,}  {reported}".rstrip(), file=self.stream)


def _count(module: ModuleOp) -> int:
    return sum(1 for _ in module.walk())


def _numbers(module: ModuleOp) -> dict[str, int]:
    """The whole numbers among the attributes of the module."""
    attributes = sorted(module.attributes.items())
    return {name: value.value.data for name, value in attributes if isinstance(value, IntegerAttr)}


class RoundTrip(Observer):
    """Checks after each pass that the module's text, in both forms, reads back as the same module."""

    def after(self, place: PipelinePlace, module: ModuleOp) -> None:
        """Raises PassError."""
        for generic in (False, True):
            text = print_module(module, locations=True, generic=generic)
            if not parse_module(text, f"the IR after {place.name}").is_structurally_equivalent(module):
                form = "generic" if generic else "custom"
                raise PassError(f"pass {place.name}: the {form} text of the module reads back as another module")
