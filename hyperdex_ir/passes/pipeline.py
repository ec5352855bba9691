"""Running a pipeline: each pass is checked, reported to observers, and reproducible when it fails."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import DiagnosticException, PassFailedException, ShrinkException, VerifyException

from hyperdex_ir.errors import CapacityError, HyperdexError
from hyperdex_ir.passes.pipeline_text import (
    known_passes,
    parse_pipeline,
    pipeline_lines,
    pipeline_names,
    pipeline_spec,
    typed_pipeline,
)
from hyperdex_ir.passes.reproducer import write_reproducer
from hyperdex_ir.support.xdsl import check_module, make_context, pass_failed

__all__ = [
    "Observer",
    "PipelinePlace",
    "known_passes",
    "parse_pipeline",
    "pipeline_lines",
    "pipeline_names",
    "pipeline_spec",
    "run_pass",
    "run_passes",
    "run_pipeline",
    "typed_pipeline",
]


@dataclass(frozen=True)
class PipelinePlace:
    """A place in a pipeline: the pass at `index` of `passes`, and the time that it ran (0 before it has run)."""

    passes: Sequence[ModulePass]
    index: int
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """The name of the pass."""
        return self.passes[self.index].name

    @property
    def run(self) -> Sequence[ModulePass]:
        """The passes up to this one, itself included."""
        return self.passes[: self.index + 1]

    @property
    def left(self) -> Sequence[ModulePass]:
        """The passes that come after this one."""
        return self.passes[self.index + 1 :]


class Observer:
    """Called around each pass. Must not modify the module."""

    def start(self, passes: Sequence[ModulePass], module: ModuleOp) -> None:
        """Before the first pass."""

    def before(self, place: PipelinePlace, module: ModuleOp) -> None:
        """Before a pass."""

    def after(self, place: PipelinePlace, module: ModuleOp) -> None:
        """After a pass whose module has been checked."""

    def end(self, passes: Sequence[ModulePass], module: ModuleOp) -> None:
        """After the last pass."""


def run_pass(module: ModuleOp, one: ModulePass, context: Context | None = None, *, check: bool = True) -> None:
    """Runs a pass, then checks the module: every operation verifies, every value is defined before it is used, and all
    operations are for the devices of the module's grid.

    Raises PassError, one line with pass, operation and module path, for every exception of the pass, except that errors
    of this package, such as LoweringError and CapacityError, are raised unchanged.
    """
    try:
        one.apply(context or make_context(), module)
        if check:
            from hyperdex_ir.dialects.grid import check_grid  # the dialects take long to import

            check_module(module)
            check_grid(module)
    except ShrinkException:  # not a failure: the answer of a pass to xdsl-opt's --shrink
        raise
    except (HyperdexError, VerifyException, PassFailedException, DiagnosticException) as error:
        raise pass_failed(one.name, error) from None
    except Exception as error:
        raise pass_failed(one.name, error) from error


def run_passes(
    module: ModuleOp,
    passes: Sequence[ModulePass],
    *,
    observers: Sequence[Observer] = (),
    repro: Path | None = None,
    context: Context | None = None,
    check: bool = True,
) -> None:
    """Runs passes in order; the module is checked after each.

    repro: the folder to which a reproducer of a failure is written; its path becomes the hint of the error. A
    CapacityError is not a failure of a pass: it says which choices to change. Raises what `run_pass` raises.
    """
    for observer in observers:
        observer.start(passes, module)
    for index, one in enumerate(passes):
        for observer in observers:
            observer.before(PipelinePlace(passes, index), module)
        before = module.clone() if repro is not None else None
        started = time.perf_counter()
        try:
            run_pass(module, one, context, check=check)
        except CapacityError:
            raise
        except HyperdexError as error:
            if repro is None or before is None:
                raise
            write_reproducer(repro, before, one, error)
            raise
        for observer in observers:
            observer.after(PipelinePlace(passes, index, time.perf_counter() - started), module)
    for observer in observers:
        observer.end(passes, module)


def run_pipeline(
    module: ModuleOp,
    text_or_name: str = "default",
    *,
    observers: Sequence[Observer] = (),
    repro: Path | None = None,
) -> None:
    """Runs a pipeline that a person gives by name, file or text; see `typed_pipeline` and `run_passes`."""
    run_passes(module, typed_pipeline(text_or_name), observers=observers, repro=repro)
