"""Compares a compiled program with transformers, module by module, in program order."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hyperdex_ir.errors import NotCompiledError, OptionError, PromptError
from hyperdex_ir.runtime.device import InterpreterDevice
from hyperdex_ir.runtime.generate import check_prompt
from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.runtime.model_folders import compiled_folder
from hyperdex_ir.verify.model import weights_folder
from hyperdex_ir.verify.modules import ModuleValue, run_program
from hyperdex_ir.verify.reference import Reference, run_reference

#: An error counts when it exceeds this multiple of the error of transformers in the matrix type ...
FACTOR = 2.0
#: ... and this fraction of the value itself.
FLOOR = 1e-6
#: Forwards of transformers in the matrix type; the one furthest from float32 counts.
FORWARDS = 4
_LAYER = re.compile(r"\.(\d+)(?:\.|$)")


@dataclass(frozen=True)
class Comparison:
    """Errors of one value against transformers in float32, as rms over the prompt.

    path: the module whose instructions computed the value. what: description of the value in the model. rms: of the
    value itself. ours: the program's error. theirs: the error of transformers in the matrix type, the largest of
    several forwards.
    """

    path: str
    what: str
    rms: float
    ours: float
    theirs: float

    @property
    def ratio(self) -> float:
        """ours / theirs; infinite when theirs is 0 and ours is not."""
        if self.theirs:
            return self.ours / self.theirs
        return float("inf") if self.ours else 0.0

    @property
    def is_off(self) -> bool:
        return not (self.ours <= FACTOR * self.theirs or self.ours <= FLOOR * self.rms)

    @property
    def layer(self) -> str:
        """The number of its layer, or an empty string."""
        found = _LAYER.search(self.path)
        return found[1] if found else ""


@dataclass(frozen=True)
class Comparisons:
    """Comparisons of all values in program order. matrix_type: the type that `theirs` was computed in."""

    values: tuple[Comparison, ...]
    matrix_type: str

    @property
    def first_off(self) -> Comparison | None:
        return next((value for value in self.values if value.is_off), None)

    def by_layer(self) -> list[Comparison]:
        """The last value of each layer, of the part before the layers, and of the part after them."""
        last: list[Comparison] = []
        for value in self.values:
            if last and last[-1].layer == value.layer:
                last[-1] = value
            else:
                last.append(value)
        return last


def compare_with_transformers(name: str, tokens: Sequence[int], num_device: int = 1) -> Comparisons:
    """Runs the compiled model and transformers, in float32 and in the matrix type, on the same tokens.

    Raises NotCompiledError, FileFormatError, OptionError for several devices, PromptError, CheckpointError for missing
    original weights, MachineFault.
    """
    folder = compiled_folder(name)
    if not folder.manifest.is_file():
        raise NotCompiledError(f"{name}: not compiled", f"hyperdex compile {shlex.quote(name)}")
    model = CompiledModel.open(folder.root, num_device, "interpreter", name=name)
    if not isinstance(model.device, InterpreterDevice):
        raise OptionError(
            f"num_device is {num_device}: only a program for one device shows the values of its modules",
            "leave num_device out; other counts give the same bits",
        )
    if not 0 < len(tokens) <= model.max_length:
        raise PromptError(f"{len(tokens)} tokens; the compiled model takes 1 to {model.max_length}")
    wrong = next((token for token in tokens if not 0 <= token < model.vocab_size), None)
    if wrong is not None:
        raise PromptError(f"token id {wrong} is outside the vocabulary of {model.vocab_size}")
    check_prompt(tokens, model.limits, room=0)
    source = weights_folder(folder)
    (exact,) = run_reference(source, "f32", tokens)
    rounded = run_reference(source, model.matrix_type, tokens, FORWARDS)
    return Comparisons(compare_program(model.device, tokens, exact, rounded), model.matrix_type)


def compare_program(
    device: InterpreterDevice, tokens: Sequence[int], exact: Reference, rounded: Sequence[Reference]
) -> tuple[Comparison, ...]:
    """Compares a program, run on the tokens, with references in float32 and in the matrix type; in program order.

    Raises MachineFault when the program does a forbidden operation.
    """
    values = run_program(device, tokens, exact.outputs)
    return tuple(_compare(values, exact, rounded))


def _compare(values: Sequence[ModuleValue], exact: Reference, rounded: Sequence[Reference]) -> list[Comparison]:
    """Compares the values of several steps; those of the same module are one value, with the rows of all steps."""
    merged: dict[tuple[str, tuple[str, ...], bool], list[ModuleValue]] = {}
    for value in values:
        merged.setdefault((value.path, value.of, value.is_input), []).append(value)
    found: list[Comparison] = []
    for (path, of, is_input), parts in merged.items():
        rows = np.concatenate([part.rows for part in parts])
        ours = np.concatenate([part.values for part in parts])
        found.extend(_compare_value(path, of, is_input, ours, exact, rounded, rows))
    return found


def _compare_value(
    path: str,
    of: tuple[str, ...],
    is_input: bool,
    ours: np.ndarray,
    exact: Reference,
    rounded: Sequence[Reference],
    rows: np.ndarray,
) -> list[Comparison]:
    """One comparison, or one for each module whose columns are side by side; none if the numbers of columns differ."""
    table, *others = (reference.inputs if is_input else reference.outputs for reference in (exact, *rounded))
    if any(name not in table for name in of) or ours.shape[1] != sum(table[name].shape[1] for name in of):
        return []
    found: list[Comparison] = []
    start = 0
    for name in of:
        reference = table[name][rows]
        mine = ours[:, start : start + reference.shape[1]]
        start += reference.shape[1]
        what = f"input of {name}" if is_input else "output"
        blamed = path if is_input else name
        with np.errstate(all="ignore"):  # NaN and infinity from a wrong program count as errors
            theirs = max(_rms(other[name][rows] - reference) for other in others)
            found.append(Comparison(blamed, what, _rms(reference), _rms(mine - reference), theirs))
    return found


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
