"""Runs a model before and after each pass on the same tokens, and compares the logits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from hyperdex_ir.dialects.lpu import shape_of
from hyperdex_ir.errors import HyperdexError, LoweringError, PromptError
from hyperdex_ir.memory.collect import find_function
from hyperdex_ir.passes.pipeline import run_passes
from hyperdex_ir.passes.reproducer import FOLDER
from hyperdex_ir.runtime.device import InterpreterDevice, RingDevice
from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.support.xdsl import print_module
from hyperdex_ir.verify.levels import DeviceLevel, IsaLevel, Level, LpuLevel, is_isa
from hyperdex_ir.verify.model import Model
from hyperdex_ir.verify.values import Run, Value, first_difference, plan_runs, split_runs

EXACT = "exact"


@dataclass(frozen=True)
class Difference:
    """First operations that differ between two runs.

    after: the first operation whose value was not computed before the pass, nor any value that follows from it.
    before: the first operation whose value is no longer computed, nor any value that followed from it.
    """

    after: Value | None
    before: Value | None


@dataclass(frozen=True)
class Result:
    """Result of one comparison, mostly of a pass.

    error: message of the error that the pass, or running its module, raised. rms: of the logits' difference, relative
    to that of the logits before. pass_milliseconds: of the pass. run_milliseconds: of the runs after it.
    """

    name: str
    exactness: str
    equal: bool
    error: str
    rms: float
    pass_milliseconds: float
    run_milliseconds: float
    difference: Difference | None

    @property
    def passed(self) -> bool:
        """True without an error, if the bits are equal or equal bits are not promised."""
        return not self.error and (self.equal or self.exactness != EXACT)


OnResult = Callable[[Result], None]


def random_tokens(model: Model, count: int, seed: int) -> list[int]:
    """Token ids below the vocabulary size. Raises PromptError when there are fewer positions than `count`."""
    if count > model.max_length:
        raise PromptError(f"{count} tokens; there are {model.max_length} positions", "give fewer tokens")
    return np.random.default_rng(seed).integers(0, vocabulary_size(model), count).tolist()


def vocabulary_size(model: Model) -> int:
    """Columns of the logits."""
    (logits,) = find_function(model.module, "main").function_type.outputs.data
    return shape_of(logits)[1]


def check_tokens(model: Model, tokens: Sequence[int]) -> None:
    """Raises PromptError for no tokens, more tokens than positions, or an invalid token id."""
    size = vocabulary_size(model)
    wrong = next((token for token in tokens if not 0 <= token < size), None)
    if not tokens:
        raise PromptError("no tokens to run", "give at least one token")
    if wrong is not None:
        raise PromptError(f"token id {wrong} is outside the vocabulary of {size}")
    if len(tokens) > model.max_length:
        raise PromptError(f"{len(tokens)} tokens; there are {model.max_length} positions", "give fewer tokens")


def exactness_of(one: ModulePass) -> str:
    """Exactness that a pass declares; xDSL's own passes change no arithmetic."""
    return getattr(one, "exactness", EXACT)


@dataclass
class _Outcome:
    """Outcome of running a level: logits or an error, and the time."""

    level: Level
    logits: np.ndarray | None
    error: str
    milliseconds: float


class Verifier:
    """Verifies one model on some tokens; the model's module is transformed on the way."""

    def __init__(self, model: Model, tokens: Sequence[int], on_result: OnResult = lambda result: None):
        check_tokens(model, tokens)
        self._model, self._runs, self._on_result = model, plan_runs(tokens), on_result
        self._module = model.module
        self._lpu = model.module  # the module, or its last `lpu` form when it is `isa` now
        self.results: list[Result] = []

    def each_pass(self, passes: Sequence[ModulePass]) -> list[Result]:
        """Compares the model before and after each pass, up to the first pass that fails.

        A module that a pass leaves unchanged to the letter gives the logits that it gave before: it is not run again.
        """
        before = self._run(self._level())
        if before.error:
            return self._report(_failed("import", before.error))
        text = self._text()
        for one in passes:
            previous = self._module.clone()
            milliseconds, error = self._apply(one)
            if error:
                return self._report(_failed(one.name, error, exactness_of(one)))
            before.level = self._level(previous) if isinstance(before.level, LpuLevel) else before.level
            old, text = text, self._text()
            after = self._run(self._level()) if text != old else replace(before, level=self._level(), milliseconds=0.0)
            self._compare(one.name, exactness_of(one), before, after, milliseconds)
            if after.error:
                return self.results
            before = after
        return self._compiled(before)

    def whole(self, passes: Sequence[ModulePass]) -> list[Result]:
        """Compares the module right after import with the program that the pipeline makes."""
        imported = self._module.clone()
        before = self._run(self._level())
        if before.error:
            return self._report(_failed("import", before.error))
        milliseconds, exactness = 0.0, EXACT
        for one in passes:
            elapsed, error = self._apply(one)
            if error:
                return self._report(_failed(one.name, error, exactness_of(one)))
            milliseconds += elapsed
            exactness = exactness_of(one) if exactness == EXACT else exactness
        before.level = self._level(imported)
        after = self._run(self._level())
        self._compare("pipeline", exactness, before, after, milliseconds)
        return self.results if after.error else self._compiled(after)

    def _apply(self, one: ModulePass) -> tuple[float, str]:
        """Runs a pass; returns milliseconds and any error. A reproducer of a failure goes to the model's folder."""
        if not is_isa(self._module):
            self._lpu = self._module.clone()
        started = time.perf_counter()
        try:
            run_passes(self._module, [one], repro=self._model.folder.root / FOLDER)
        except HyperdexError as error:
            return 0.0, f"{error} ({error.hint})" if error.hint else str(error)
        milliseconds = 1e3 * (time.perf_counter() - started)
        if not is_isa(self._module):
            self._lpu = self._module
        return milliseconds, ""

    def _level(self, module: ModuleOp | None = None) -> Level:
        module = self._module if module is None else module
        model = self._model
        if not is_isa(module):
            return LpuLevel(module, model.parameters, model.max_length)
        return IsaLevel(module, self._lpu, model.parameters, model.max_length)

    def _text(self) -> str:
        return print_module(self._module, locations=True)

    def _run(self, level: Level) -> _Outcome:
        started = time.perf_counter()
        try:
            logits, error = level.logits(self._runs), ""
        except HyperdexError as raised:
            logits, error = None, str(raised)
        return _Outcome(level, logits, error, 1e3 * (time.perf_counter() - started))

    def _compiled(self, before: _Outcome) -> list[Result]:
        """Compares the program on disk with the one that was just made."""
        if not self._model.compiled or not isinstance(before.level, IsaLevel):
            return self.results
        model = self._model
        device = CompiledModel.open(model.folder.root, model.num_device, "interpreter", name=model.name).device
        if not isinstance(device, InterpreterDevice | RingDevice):
            raise LoweringError("only the interpreter can be verified")
        exactness = EXACT if all(result.exactness == EXACT for result in self.results) else "rounding"
        self._compare("compiled program", exactness, before, self._run(DeviceLevel(device)), 0.0)
        return self.results

    def _compare(self, name: str, exactness: str, before: _Outcome, after: _Outcome, milliseconds: float) -> None:
        equal, rms, difference = False, 0.0, None
        if before.logits is not None and after.logits is not None:
            equal = before.logits.tobytes() == after.logits.tobytes()
            rms = _relative_rms(after.logits, before.logits)
        if not equal and exactness == EXACT:
            difference = _locate(before.level, after.level, self._runs)
        self._report(Result(name, exactness, equal, after.error, rms, milliseconds, after.milliseconds, difference))

    def _report(self, result: Result) -> list[Result]:
        self.results.append(result)
        self._on_result(result)
        return self.results


def _failed(name: str, error: str, exactness: str = EXACT) -> Result:
    return Result(name, exactness, False, error, 0.0, 0.0, 0.0, None)


def _relative_rms(values: np.ndarray, reference: np.ndarray) -> float:
    scale = np.sqrt(np.mean(np.square(reference, dtype=np.float64)))
    error = np.sqrt(np.mean(np.square(values.astype(np.float64) - reference)))
    return float(error / scale) if scale else float(error)


def _locate(before: Level, after: Level, runs: Sequence[Run]) -> Difference:
    parts = split_runs(runs, min(before.most, after.most))
    values, reference = after.trace(parts), before.trace(parts)
    return Difference(first_difference(values, reference), first_difference(reference, values))
