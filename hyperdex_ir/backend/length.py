"""The number of positions of a model: checked when the user has chosen one, else the most that fits."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from hyperdex_ir.errors import CapacityError
from hyperdex_ir.frontend.config import ModelSummary
from hyperdex_ir.memory.layout import FunctionLayout, ModelLayout
from hyperdex_ir.memory.map import plan_memory
from hyperdex_ir.support.progress import log
from hyperdex_ir.targets import Target


def note_length(asked: int | None, summary: ModelSummary) -> None:
    """Logs that more positions are asked for than the model was made for; the trace refuses those it cannot have."""
    limit = summary.max_positions
    if asked is not None and asked > limit and not summary.learned_positions:
        log(f"max_length is {asked}: the model was made for {limit} positions, its answers beyond them may be worse")


def layout_at(layout: ModelLayout, tables: Collection[str], traced: int, length: int) -> ModelLayout:
    """The layout of a trace for `length` positions, from that for `traced`: `tables` have a row for each position."""

    def resize(function: FunctionLayout) -> FunctionLayout:
        parameters = tuple(
            replace(p, shape=(length, *p.shape[1:])) if p.shape[:1] == (traced,) and p.keys[0] in tables else p
            for p in function.parameters
        )
        return replace(function, parameters=parameters)

    return replace(layout, main=resize(layout.main), functions=tuple(resize(f) for f in layout.functions))


def largest_length(layout: ModelLayout, tables: Collection[str], traced: int, target: Target) -> int:
    """The most positions, `traced` at most, with which the model fits the target's HBM.

    Raises CapacityError when it does not fit with a single one.
    """

    def fits(length: int) -> bool:
        try:
            plan_memory(layout_at(layout, tables, traced, length), target, length)
        except CapacityError:
            return False
        return True

    if fits(traced):
        return traced
    plan_memory(layout_at(layout, tables, traced, 1), target, 1)
    low, high = 1, traced  # fits, does not fit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
