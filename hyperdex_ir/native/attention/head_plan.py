"""A head loop in the plan: the fields of its operation, and its table, which lies behind the instructions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

from hyperdex_ir.isa.program import Instruction, Program
from hyperdex_ir.native.attention.heads import HeadLoop, Place, find_head_loops
from hyperdex_ir.native.attention.operations import workspace_words
from hyperdex_ir.native.attention.rows import BIASES, row_counts
from hyperdex_ir.native.features import Features
from hyperdex_ir.native.operation import EXTRAS, Sizes
from hyperdex_ir.native.program_rows import SLOTS, slots_of

#: Header of a loop's table: what its lookups have in common, and which parameters of heads are present.
HEADER = ("lookups", "offset", "register", "limit", "bias", "has_sink")
#: Numbers of a trip: constants of the addresses, instructions before it, the run of trips with its cache where nothing
#: is looked up, the index of the lookup of that number, and the factors of its result in the caches' addresses.
TRIP = (
    "query", "keys", "values", "result", "slope", "sink", "executed", "run_first", "run_length",
    "index_register", "index_constant", "keys_factor", "values_factor",
)  # fmt: skip
FINAL = ("register", "base", "constant", "factor", "lookup")
PLACES = TRIP[:6]

#: Fields of the operation; the first two are those of `repeat`.
FIELDS = (
    "count", "length", "table", "trips", "finals", "needed", "executed", "stop", "depth", "scores_index", "span",
    *(f"{name}_register" for name in PLACES), "query_stride", "result_stride", "buffer_address", "buffer_stride",
    "buffer_register", "size", "value_size", "limit", "window", "type", "rows", "scale", "softcap",
)  # fmt: skip


def share_head_loops(plan: np.ndarray, program: Program, sizes: Sizes, features: Features) -> tuple[np.ndarray, int]:
    """Replaces the head loops in a plan, i64 [instructions, SLOTS].

    Returns the plan with the loops' tables behind the instructions, and the words of scratch memory that they need.
    """
    loops, operation = find_head_loops(program), EXTRAS["head_loop"]
    slots = slots_of(operation.fields)
    tables: list[int] = []
    words = 0
    plan = plan.copy()
    for index, loop in loops.items():
        start = plan.size + len(tables)
        stages = program.instructions[loop.scores : loop.scores + 3]
        tables += _table(loop, stages)
        fields = _field_values(loop, stages, plan[loop.scores : loop.scores + 3], start)
        for name, value in fields.items():
            plan[index, slots[name]] = value
        plan[index, 0] = operation.number
        size = max(fields["size"], fields["value_size"])
        positions = min(fields["limit"], sizes.lmu_words)  # no row sees more: their scores would not fit
        words = max(words, workspace_words(row_counts(features)[-1], size, positions) * sizes.threads)
    rows = -(-len(tables) // SLOTS)
    behind = np.zeros((rows, SLOTS), np.int64)
    behind.reshape(-1)[: len(tables)] = tables
    return np.concatenate([plan, behind]), words


def _table(loop: HeadLoop, stages: Sequence[Instruction]) -> list[int]:
    """Header, trips and finals, one number after another."""
    numbers = [len(loop.lookups), loop.table.offset, loop.table.register, loop.limit, *_parameters(stages)]
    indices = [*loop.lookups, *[Place(0, 0)] * (len(loop.trips) - len(loop.lookups))]
    for trip, (first, length), index in zip(loop.trips, _runs(loop), indices, strict=True):
        constants = [place.constant for place in trip.places]
        factors = [trip.keys.factor, trip.values.factor]
        numbers += [*constants, trip.executed, first, length, index.register, index.constant, *factors]
    for register, place in loop.finals.items():
        numbers += [register, place.register, place.constant, place.factor, place.lookup]
    return numbers


def _parameters(stages: Sequence[Instruction]) -> tuple[int, int]:
    """Number of the bias that scores get, and 1 if there is a sink."""
    scores, softmax = (stage.values for stage in stages[:2])
    kind = "none" if scores.get("slope") is None else "rounded" if scores.get("bf16_bias") else "distance"
    return BIASES.index(kind), int(softmax.get("sink") is not None)


def _runs(loop: HeadLoop) -> Iterator[tuple[int, int]]:
    """For each trip, the first and the number of the trips around it that use the same keys and values."""
    first = 0
    for _, group in groupby(loop.trips, lambda trip: (trip.keys, trip.values)):
        length = len(list(group))
        for _ in range(length):
            yield first, length
        first += length


def _field_values(loop: HeadLoop, stages: Sequence[Instruction], rows: np.ndarray, table: int) -> dict[str, int]:
    """The operation's fields except those of the repeat; fields of its stages as they are in the plan."""

    slots = [slots_of(stage.spec.fields()) for stage in stages]

    def of(row: int, name: str) -> int:
        return int(rows[row, slots[row][name]])

    places = loop.trips[0].places
    return {
        "table": table,
        "trips": len(loop.trips),
        "finals": len(loop.finals),
        "needed": sum(1 << register for register in loop.needed),
        "executed": loop.executed,
        "stop": loop.stop,
        "depth": loop.depth,
        "scores_index": loop.scores,
        "span": loop.span,
        **{f"{name}_register": place.register for name, place in zip(PLACES, places, strict=True)},
        "query_stride": of(0, "query.stride"),
        "result_stride": of(2, "dst.stride"),
        "buffer_address": of(0, "dst.address"),
        "buffer_stride": of(0, "dst.stride"),
        "buffer_register": of(0, "dst.register"),
        "size": of(0, "size"),
        "value_size": of(2, "size"),
        **{name: of(2, name) for name in ("limit", "window", "type", "rows")},
        **{name: of(0, name) for name in ("scale", "softcap")},
    }
