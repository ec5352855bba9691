"""Passes that fail, each in its way, in a package that adds them to hyperdex-ir: tests look at what is left behind."""

from __future__ import annotations

from pathlib import Path

_SOURCE = '''
from dataclasses import dataclass

from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from hyperdex_ir.dialects import lpu
from hyperdex_ir.errors import LoweringError
from hyperdex_ir.support.xdsl import apply_patterns, module_path


class Divide(RewritePattern):
    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: lpu.ExpOp, rewriter: PatternRewriter, /) -> None:
        1 // 0


@dataclass(frozen=True)
class RaisesPass(ModulePass):
    """Raises an exception of Python's in a pattern."""

    name = "broken-raises"

    def apply(self, ctx, op):
        apply_patterns(op, Divide())


@dataclass(frozen=True)
class OrderPass(ModulePass):
    """Moves an operation before one that it needs."""

    name = "broken-order"

    def apply(self, ctx, op):
        exp = next(o for o in op.walk() if o.name == "lpu.exp")
        needed = exp.operands[0].owner
        exp.detach()
        needed.parent.insert_op_before(exp, needed)


@dataclass(frozen=True)
class TypePass(ModulePass):
    """Leaves an operation that does not verify."""

    name = "broken-type"
    times: int = 1

    def apply(self, ctx, op):
        tanh = next(o for o in op.walk() if o.name == "lpu.tanh")
        tanh.operands = [tanh.operands[0].owner.parent.args[1]]


@dataclass(frozen=True)
class RefusesPass(ModulePass):
    """Raises an error of the package."""

    name = "broken-refuses"

    def apply(self, ctx, op):
        raise LoweringError("nothing can be done", "do nothing")


@dataclass(frozen=True)
class LabelPass(ModulePass):
    """Raises an error that shows its option, a text."""

    name = "broken-label"
    label: str

    def apply(self, ctx, op):
        raise LoweringError(f"label {self.label!r}")
'''
_ENTRIES = """[hyperdex_ir.passes]
broken-raises = broken_passes_package:RaisesPass
broken-order = broken_passes_package:OrderPass
broken-type = broken_passes_package:TypePass
broken-refuses = broken_passes_package:RefusesPass
broken-label = broken_passes_package:LabelPass
broken-missing = broken_passes_package:MissingPass
broken-nothing = broken_passes_package:Divide
"""


def write_package(folder: Path) -> Path:
    """Writes the package as pip would have installed it; gives the folder, to be put on PYTHONPATH."""
    write_distribution(folder, "broken_passes", _ENTRIES)
    (folder / "broken_passes_package.py").write_text(_SOURCE)
    return folder


def write_distribution(folder: Path, name: str, entries: str) -> None:
    """Writes the metadata of an installed package with these entry points."""
    info = folder / f"{name}-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(entries)
