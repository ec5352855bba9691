"""The native executor's attention against the interpreter's: kernels, instructions, and loops over heads."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from support.programs.kernels import (
    CHUNK,
    FEATURES,
    WORDS,
    assert_same,
    compile_kernels,
    engine,
    new_hbm,
    numbers,
    run,
    same_bits,
)
from support.programs.machine_programs import HEADS, LENGTH, SIZE, attention, loop, memory_map, op

from hyperdex_ir.interpreter import attention as reference
from hyperdex_ir.interpreter.arithmetic import quiet
from hyperdex_ir.isa.formats import FORMATS
from hyperdex_ir.isa.instructions import BY_NAME, MATRIX_TYPES
from hyperdex_ir.isa.operands import HbmRef, LmuRef
from hyperdex_ir.isa.program import Instruction, Program
from hyperdex_ir.memory.tiles import tile_view
from hyperdex_ir.native import features as engine_features
from hyperdex_ir.native.attention import kernels
from hyperdex_ir.native.attention.heads import HeadLoop, Place, find_head_loops
from hyperdex_ir.native.attention.rows import BIASES, ROW_BYTES, Row, row_counts
from hyperdex_ir.native.operation import EXTRAS

NOT_FINITE = 0x7F800000
HALT = op("halt")


# ---------------------------------------------------------------------------------------------------- kernels


def _attention_kernels(name: str) -> dict[str, Callable[..., int]]:
    features = engine_features.FEATURES[name]
    makers: list[Callable[[Any], Any]] = []
    for kind in MATRIX_TYPES:
        makers += [lambda e, t=kind: kernels.round_query(e, t), lambda e, t=kind: kernels.softmax_kernel(e, t)]
        for count in row_counts(features):
            makers.append(lambda e, t=kind, n=count: kernels.scores_kernel(e, t, n))
            makers.append(lambda e, t=kind, n=count: kernels.values_kernel(e, t, n))
    return compile_kernels(features, makers)


class Block:
    """Neighbouring rows of one head, the first at `position`, and what the interpreter makes of them."""

    def __init__(
        self, kind: str, rows: int, size: int, position: int, window: int, trees: int, cap: float, wild: bool, bias: str
    ):
        rng = np.random.default_rng([rows, size, position, window])
        self.kind, self.rows, self.size, self.trees, self.cap, self.bias = kind, rows, size, trees, cap, bias
        self.slope, sink = np.float32(rng.standard_normal()), np.float32(rng.standard_normal())
        self.sink = None if rng.random() < 0.5 else sink
        self.reach = reference.span(position, rows, window)
        self.limit = self.reach.stop + 70
        keys, values = numbers(rng, (self.limit, size), wild), numbers(rng, (size, self.limit), wild)
        self.query = np.concatenate([numbers(rng, (rows, size), wild), np.full((rows, 64), np.nan, np.float32)], axis=1)
        with quiet():
            bits = FORMATS[kind].round(values)
            bits[:, self.reach.stop :] = 0x7FFF  # a NaN that nobody sees
            self.keys = np.ascontiguousarray(tile_view(FORMATS[kind].round(keys), trees))
            self.values = np.ascontiguousarray(tile_view(bits, trees))
            self._expect()

    def _expect(self) -> None:
        seen, zero = self.reach.seen, np.float32(0)
        rounded = FORMATS[self.kind].round(self.query[:, : self.size])
        self.scores = reference.scores(rounded, self.keys, self.reach, 0.125, self.cap, self.kind)
        if self.bias != "none":
            self.scores = self.scores + reference.bias(self.slope, self.reach, 0.125, self.bias == "rounded")
        self.weights = reference.softmax(np.where(seen, self.scores, zero), self.reach, self.sink)
        issued = FORMATS[self.kind].round(np.where(seen, self.weights, zero))
        self.result = reference.values(issued, self.values, self.reach, self.kind)[:, : self.size]
        scores = np.where(seen, self.scores, zero)
        self.finite = [
            (
                bool(np.isfinite(FORMATS[self.kind].load(rounded[row])).all() and np.isfinite(scores[row]).all()),
                bool(np.isfinite(self.weights[row][seen[row]]).all()),
                bool(np.isfinite(FORMATS[self.kind].load(issued[row])).all() and np.isfinite(self.result[row]).all()),
            )
            for row in range(self.rows)
        ]

    def check(self, calls: dict[str, Callable[..., int]]) -> None:
        """Does it with kernels, and compares."""
        room, steps = -(-self.limit // 64) * 64 + 128, -(-self.size // 64)
        query, weights = (np.full((self.rows, n), np.nan, np.float32) for n in (steps * 64, room))
        copies, result = np.zeros((self.rows, room), np.float32), np.zeros((self.rows, self.size + 3), np.float32)
        rows = (Row * self.rows)()
        begin, end = self.reach.first // 64 * 64, -(-self.reach.stop // 64) * 64
        for number, row in enumerate(rows):
            own = np.flatnonzero(self.reach.seen[number]) + self.reach.first
            row.first, row.stop, row.begin, row.end = int(own[0]), int(own[-1]) + 1, begin, end
            row.query, row.weights = query[number].ctypes.data, weights[number].ctypes.data - 4 * begin
            row.scores, row.result = copies[number].ctypes.data, result[number].ctypes.data
            row.bias, row.slope = BIASES.index(self.bias), int(self.slope.view(np.uint32))
            row.has_sink, row.sink = (0, 0) if self.sink is None else (1, int(self.sink.view(np.uint32)))
        at = [ctypes.addressof(rows) + ROW_BYTES * number for number in range(self.rows)]
        seen, columns = self.reach.seen, slice(self.reach.first, self.reach.stop)
        for number in range(self.rows):
            calls[f"round_query_{self.kind}"](at[number], self.query[number], self.size)
        first, stop = rows[0].first, rows[self.rows - 1].stop
        parts = [first, *range(first // 128 * 128 + 128, stop, 128), stop]
        for start, end in pairwise(parts):
            calls[f"scores_{self.kind}_{self.rows}"](at[0], self.keys, self.trees, steps, start, end, 0.125, self.cap)
        scores = weights[:, self.reach.first - begin :][:, : self.reach.columns]
        assert same_bits(scores[seen], self.scores[seen])
        for place in at:
            calls[f"softmax_{self.kind}"](place)
        assert same_bits(copies[:, columns][seen], self.weights[seen])
        assert not copies[:, columns][~seen].any()
        sums = np.zeros((kernels.ELEMENTS, self.rows, 64), np.float32)
        value_steps = -(-self.limit // 64)
        parts = [*range(0, self.size, 2 * kernels.ELEMENTS), self.size]
        for begin, end in pairwise(parts):
            calls[f"values_{self.kind}_{self.rows}"](at[0], self.values, self.trees, value_steps, begin, end, sums)
        assert same_bits(result[:, : self.size], self.result)
        assert not result[:, self.size :].any()
        for row, finite in zip(rows, self.finite, strict=True):
            watched = (row.watched_scores, row.watched_softmax, row.watched_values)
            assert tuple(bits < NOT_FINITE for bits in watched) == finite


@pytest.mark.slow
@pytest.mark.parametrize("name", FEATURES)
def test_kernels_have_the_interpreters_bits(name: str) -> None:
    """Head sizes and positions on both sides of a step, windows, softcaps, groups that are no power of two."""
    calls = _attention_kernels(name)
    rng = np.random.default_rng(8)
    sizes, positions, windows = (1, 24, 64, 65, 128, 200), (0, 1, 15, 63, 64, 127, 300, 700), (0, 0, 1, 3, 70, 130)
    for number in range(60):
        kind, rows = MATRIX_TYPES[number % 2], int(rng.choice(row_counts(engine_features.FEATURES[name])))
        size, position, window = (int(rng.choice(options)) for options in (sizes, positions, windows))
        trees, cap = int(rng.choice((16, 32, 6))), float(rng.choice((0, 0, 5)))
        Block(kind, rows, size, position, window, trees, cap, number % 5 == 0, str(rng.choice(BIASES))).check(calls)


# ---------------------------------------------------------------------------------------------------- instructions


def words(wild: bool = False) -> np.ndarray:
    return numbers(np.random.default_rng(9), (WORDS,), wild)


@pytest.mark.parametrize("position", [0, 1, 60, 63, LENGTH - 3])
@pytest.mark.parametrize("window", [0, 1, 5, 64])
@pytest.mark.parametrize("wild", [False, True])
def test_single_instructions(position: int, window: int, wild: bool) -> None:
    program = [attention(name, window=window) for name in ("scores", "softmax", "values")]
    if wild:  # values beside this buffer, that nobody may read as weights
        program = [program[0], program[2]]
    program[-1] = attention("values", window=window, dst=LmuRef(7000, SIZE))
    for threads in (1, 3):
        assert_same([*program, HALT], words(wild), 3, position, wild=wild, threads=threads)


def test_operands_that_overlap() -> None:
    buffer = LmuRef(50, LENGTH)
    cases = [
        attention("scores", dst=LmuRef(10, LENGTH)),  # over the queries
        attention("scores", dst=LmuRef(5000, 3)),  # rows over each other
        attention("softmax", dst=LmuRef(70, LENGTH), src=buffer),
        attention("softmax", dst=LmuRef(50, 7), src=LmuRef(50, 7)),
        attention("values", src=buffer, dst=LmuRef(60, SIZE)),
        attention("values", dst=LmuRef(7000, 5)),
    ]
    for case in cases:
        for threads in (1, 2):
            assert_same([case, HALT], words(), 4, 20, threads=threads)


@pytest.mark.parametrize(
    "case",
    [
        attention("scores", rows=9),
        attention("scores", dst=LmuRef(WORDS - 30, LENGTH)),
        attention("scores", query=LmuRef(WORDS - 3, 1)),
        attention("scores", cache=HbmRef(0)),
        attention("scores", cache=HbmRef(memory_map().end // 2048 * 2048)),
        attention("softmax", src=LmuRef(WORDS, 0)),
        attention("values", limit=20),
        attention("values", cache=HbmRef(memory_map().kv_start + 64)),
        attention("values", dst=LmuRef(WORDS - 3, SIZE)),
    ],
)
def test_faults_have_the_interpreters_words(case: Instruction) -> None:
    assert_same([case, HALT], words(), 3, 20)


def test_a_negative_position_is_a_fault() -> None:
    back = op("add", dst=2, a=2, b=0, value=-5)
    assert_same([back, attention("softmax"), HALT], words(), 2)


# ---------------------------------------------------------------------------------------------------- head loops

QUERY, RESULT, KEYS, VALUES = 9, 10, 11, 12
SLOPE, SINK = 20, 21
_SLOT = memory_map().main.caches[0]


def stages(**changes: Any) -> list[Instruction]:
    """scores, softmax and values with registers for what changes from head to head."""
    width = 2 * HEADS * SIZE
    key, value = memory_map().kv_start + _SLOT.key_offset, memory_map().kv_start + _SLOT.value_offset
    given = {name: changes.pop(name) for name in ("query", "dst") if name in changes}
    query, dst = given.get("query", LmuRef(0, width, QUERY)), given.get("dst", LmuRef(2000, width, RESULT))
    buffer = {"src": changes["buffer"]} if "buffer" in changes else {}
    scores_buffer = {"dst": changes["buffer"]} if "buffer" in changes else {}
    changes.pop("buffer", None)
    scale = {"scale": changes.pop("scale", 0.25)}
    return [
        attention("scores", query=query, cache=HbmRef(key, KEYS), **scale, **scores_buffer, **changes),
        attention("softmax", **scores_buffer, **buffer, **changes),
        attention("values", dst=dst, cache=HbmRef(value, VALUES), **buffer, **changes),
    ]


def step(register: int, value: int) -> Instruction:
    return op("add", dst=register, a=register, b=0, value=value)


def grouped(**changes: Any) -> list[Instruction]:
    """Two query heads for each KV head."""
    inner = loop([*stages(**changes), step(QUERY, SIZE), step(RESULT, SIZE)], 2)
    return loop([*inner, step(KEYS, _SLOT.key_pitch), step(VALUES, _SLOT.value_pitch)], HEADS)


def program(body: Sequence[Instruction]) -> list[Instruction]:
    start = [op("set", dst=register, value=0) for register in (QUERY, RESULT, KEYS, VALUES)]
    return [*start, *body, HALT]


def found(body: Sequence[Instruction]) -> list[HeadLoop]:
    return list(find_head_loops(Program(tuple(program(body)))).values())


def with_parameters(slopes: HbmRef, sinks: HbmRef, bf16: int) -> list[Instruction]:
    """A loop over heads that have a slope and a sink each."""
    scores, softmax, total = stages()
    scores = replace(scores, values={**scores.values, "slope": slopes, "bf16_bias": bf16})
    softmax = replace(softmax, values={**softmax.values, "sink": sinks})
    steps = [step(QUERY, SIZE), step(RESULT, SIZE), step(KEYS, _SLOT.key_pitch), step(VALUES, _SLOT.value_pitch)]
    body = [scores, softmax, total, *steps, step(SLOPE, 4), step(SINK, 4)]
    return [op("set", dst=SLOPE, value=0), op("set", dst=SINK, value=0), *loop(body, HEADS)]


def test_slopes_and_sinks_go_from_head_to_head() -> None:
    (head_loop,) = found(with_parameters(HbmRef(8, SLOPE), HbmRef(0, SINK), 1))
    assert [trip.slope for trip in head_loop.trips] == [Place(SLOPE, 8 + 4 * head) for head in range(HEADS)]
    assert [trip.sink for trip in head_loop.trips] == [Place(SINK, 4 * head) for head in range(HEADS)]


@pytest.mark.parametrize("bf16", [0, 1])
@pytest.mark.parametrize("position", [0, 60, LENGTH - 3])
def test_loops_with_slopes_and_sinks(position: int, bf16: int) -> None:
    for threads in (1, 3):
        code = program(with_parameters(HbmRef(64, SLOPE), HbmRef(128, SINK), bf16))
        assert_same(code, words(), 3, position, threads=threads)


@pytest.mark.parametrize("place", [memory_map().kv_start, memory_map().parameter_end - 4, memory_map().end, 2, -4])
@pytest.mark.parametrize("register", [SLOPE, SINK])
def test_parameters_of_heads_elsewhere(place: int, register: int) -> None:
    """In the run-time area, across its begin, outside HBM, off the grid: as the loop stands."""
    body = with_parameters(HbmRef(0, SLOPE), HbmRef(0, SINK), 0)
    moved = op("set", dst=register, value=place)
    assert_same(program([*body[:2], moved, *body[2:]]), words(), 3, 20)


def test_a_grouped_loop_is_found() -> None:
    (head_loop,) = found(grouped())
    assert (head_loop.index, head_loop.stop, head_loop.scores, head_loop.depth) == (4, 13, 6, 2)
    assert head_loop.executed == 1 + HEADS * (1 + 2 * 5 + 2)
    assert [trip.query for trip in head_loop.trips] == [Place(QUERY, head * SIZE) for head in range(2 * HEADS)]
    assert [trip.keys.constant // _SLOT.key_pitch for trip in head_loop.trips][:4] == [
        (memory_map().kv_start + head // 2 * _SLOT.key_pitch) // _SLOT.key_pitch for head in range(4)
    ]
    assert head_loop.finals[KEYS] == Place(KEYS, HEADS * _SLOT.key_pitch)
    assert head_loop.span == 2 * HEADS * SIZE


@pytest.mark.parametrize(
    "body",
    [
        loop([*stages(), op("set", dst=QUERY, value=3)], 2),  # another instruction
        loop(stages()[:2], 2),  # a stage is missing
        loop([*stages(), step(QUERY, SIZE)], 2),  # results on each other
        loop([*stages(), step(RESULT, SIZE - 1)], 2),
        loop([*stages(), op("add", dst=RESULT, a=RESULT, b=QUERY, value=SIZE)], 2),  # not a constant step
        loop([*stages(), step(RESULT, SIZE), step(1, 0)], 2),  # the rows change
        loop([*stages(), step(RESULT, SIZE), step(2, 1)], 2),  # the position changes
        loop([stages()[0], attention("softmax", window=3), stages()[2], step(RESULT, SIZE)], 2),
        loop([*stages()[:2], attention("values", src=LmuRef(4900, LENGTH)), step(RESULT, SIZE)], 2),
        loop([*stages(), *stages(), step(RESULT, SIZE)], 2),
    ],
)
def test_loops_that_are_something_else_are_left_alone(body: list[Instruction]) -> None:
    assert found(body) == []


def test_of_three_loops_in_each_other_the_inner_two_are_shared_out() -> None:
    heads = loop([*stages(), step(QUERY, SIZE), step(RESULT, SIZE)], 2)
    outer = loop([*loop(heads, 2), step(QUERY, -4 * SIZE), step(RESULT, -4 * SIZE)], 2)
    assert [item.index for item in found(outer)] == [5]
    assert_same(program(outer), words(), 3, 30)


def test_a_single_loop_in_a_repeat_of_other_things_is_found() -> None:
    heads = loop([*stages(), step(QUERY, SIZE), step(RESULT, SIZE)], HEADS)
    outer = loop([op("set", dst=RESULT, value=0), *heads], 3)
    assert [item.index for item in found(outer)] == [6]
    for threads in (1, 2, 3):
        assert_same(program(outer), words(), 3, 30, threads=threads)


@pytest.mark.parametrize("rows", [1, 2, CHUNK])
@pytest.mark.parametrize(("position", "window"), [(0, 0), (17, 0), (63, 0), (64, 5), (90, 70)])
def test_a_shared_loop_leaves_what_one_head_after_another_leaves(rows: int, position: int, window: int) -> None:
    for threads in (1, 2, 3):
        assert_same(program(grouped(window=window)), words(), rows, position, threads=threads)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_flag_names_the_first_head_and_stage(threads: int) -> None:
    for place in (0, 5 * SIZE, 2 * HEADS * SIZE + SIZE):  # in queries of different heads and rows
        data = words()
        data[place] = np.nan
        assert_same(program(grouped()), data, 3, 20, threads=threads)
    assert_same(program(grouped()), words(wild=True), CHUNK, 70, wild=True, threads=threads)
    assert_same(program(grouped(scale=3e38)), words(), 3, 20, threads=threads)


# ---------------------------------------------------------------------------------------------------- KV heads by table

HEAD = 13
NUMBERS = memory_map().addresses["numbers"]  # 2, 0, 1
PITCHES = {KEYS: _SLOT.key_pitch, VALUES: _SLOT.value_pitch}


def by_table(first: int = 0, table: int = NUMBERS, limit: int = 3, heads: int = 2, **changes: Any) -> list[Instruction]:
    """Heads from number `first` on, the KV head of each from a table: as the compiler writes them for several devices.

    There are two KV heads, so that one that the table gives is none.
    """
    find = op("lookup", dst=KEYS, table=HbmRef(table), index=HEAD, limit=limit)
    places = [
        op("multiply", dst=VALUES, a=KEYS, value=PITCHES[VALUES]),
        op("multiply", dst=KEYS, a=KEYS, value=PITCHES[KEYS]),
    ]
    bases = [op("add", dst=register, a=14, b=register, value=0) for register in (KEYS, VALUES)]
    steps = [step(QUERY, SIZE), step(RESULT, SIZE)]
    start = [op("set", dst=14, value=0), op("set", dst=HEAD, value=first)]
    return [*start, *loop([find, step(HEAD, 1), *places, *bases, *stages(**changes), *steps], heads)]


def test_a_loop_by_table_is_found() -> None:
    (head_loop,) = found(by_table(1))
    assert head_loop.lookups == (Place(HEAD, 0), Place(HEAD, 1))
    offset = memory_map().kv_start + _SLOT.key_offset
    assert [trip.keys for trip in head_loop.trips] == [Place(14, offset, _SLOT.key_pitch, n) for n in range(2)]
    assert head_loop.finals[VALUES] == Place(14, 0, _SLOT.value_pitch, 1)


@pytest.mark.parametrize("rows", [1, CHUNK])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_heads_by_table_leave_what_one_after_another_leaves(rows: int, threads: int) -> None:
    for first, heads, table in ((1, 2, NUMBERS), (1, 1, NUMBERS), (0, 2, NUMBERS + 8)):
        body = by_table(first, table, 2 if table != NUMBERS else 3, heads)
        assert_same(program(body), words(), rows, 30, threads=threads)
        assert_same(program(body), words(wild=True), rows, 30, wild=True, threads=threads)


def test_heads_by_table_are_shared_out() -> None:
    assert poisoned(by_table(1), 3) == ""
    assert poisoned(by_table(1), 1) == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"first": 2},  # beyond the table
        {"first": -1},
        {"table": NUMBERS + 4},  # off the grid
        {"table": memory_map().tokens},  # in the run-time area
        {"first": 0},  # a KV head beyond HBM
        {"table": memory_map().parameter_end - 8},
        {"table": memory_map().addresses["row"]},  # no numbers of KV heads
    ],
)
def test_heads_by_a_bad_table_run_one_after_another(changes: dict[str, Any]) -> None:
    body = by_table(**{"first": 1, **changes})
    if changes != {"first": 0}:
        assert poisoned(body, 3) != ""
    for threads in (1, 2):
        assert_same(program(body), words(), 3, 30, threads=threads)


@pytest.mark.parametrize(
    "instruction",
    [
        op("multiply", dst=KEYS, a=QUERY, value=2),  # not of a number that is known
        op("multiply", dst=KEYS, a=KEYS, value=0),
        op("multiply", dst=QUERY, a=KEYS, value=3),  # queries by table
        op("lookup", dst=VALUES, table=HbmRef(NUMBERS), index=KEYS, limit=3),  # a table of a table
        op("lookup", dst=VALUES, table=HbmRef(NUMBERS, 8), index=HEAD, limit=2),  # another table
        op("add", dst=KEYS, a=KEYS, b=KEYS),
    ],
)
def test_loops_with_other_lookups_are_left_alone(instruction: Instruction) -> None:
    body = by_table(1)
    start = next(index for index, item in enumerate(body) if item.name == "lookup") + 1
    inner = [*body[start - 1 : start], instruction, *body[start:]]
    assert found([*body[: start - 2], *loop(inner, 2)]) == []


def poisoned(body: Sequence[Instruction], rows: int, position: int = 30) -> str:
    """The fault of a program whose stages inside the loop are a `ret`: none when the loop is shared out."""
    code = program(body)
    machine = engine(code, new_hbm(np.random.default_rng(7)), words())
    (start,) = find_head_loops(Program(tuple(code)))
    assert machine._plan[start, 0] == EXTRAS["head_loop"].number
    for index, item in enumerate(code):
        if item.name == "scores":
            machine._plan[index, 0] = BY_NAME["ret"].opcode
    fault = run(machine, rows, position)
    machine.close()
    return fault


def test_independent_heads_are_shared_out() -> None:
    width = 2 * HEADS * SIZE
    for rows in (1, 3, CHUNK):
        assert poisoned(grouped(), rows) == ""
        assert poisoned(grouped(dst=LmuRef(0, width, QUERY)), rows) == ""  # in the queries' place


@pytest.mark.parametrize(
    "changes",
    [
        {"dst": LmuRef(100, 2 * HEADS * SIZE, RESULT)},  # on queries of other heads
        {"dst": LmuRef(2000, 2 * HEADS * SIZE - 1, RESULT)},  # rows on each other
        {"buffer": LmuRef(5000, 20)},
        {"buffer": LmuRef(1900, LENGTH)},  # on results
        {"buffer": LmuRef(0, LENGTH)},  # on queries
    ],
)
def test_heads_that_touch_each_other_run_one_after_another(changes: dict[str, Any]) -> None:
    assert "ret inside a repeat" in poisoned(grouped(**changes), 3)
    for threads in (1, 2):
        assert_same(program(grouped(**changes)), words(), 3, 30, threads=threads)


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": 9},
        {"dst": LmuRef(WORDS - SIZE, 2 * HEADS * SIZE, RESULT)},
        {"query": LmuRef(WORDS - 3 * SIZE, 2 * HEADS * SIZE, QUERY)},
        {"buffer": LmuRef(WORDS - 100, LENGTH)},
        {"query": LmuRef(0, 2 * HEADS * SIZE, 20)},
    ],
)
def test_faults_inside_a_loop(changes: dict[str, Any]) -> None:
    assert_same(program(grouped(**changes)), words(), 3, 30)


def test_registers_near_their_end_overflow_as_in_a_plain_loop() -> None:
    code = program(grouped())
    code[0] = op("set", dst=QUERY, value=(1 << 47) - 1)
    double = [op("add", dst=QUERY, a=QUERY, b=QUERY)] * 16
    assert_same([code[0], *double, *code[1:]], words(), 1, 30)


def test_values_with_another_limit_than_the_position_reaches() -> None:
    body = grouped()
    values = body[4]
    body[4] = replace(values, values={**values.values, "limit": 32})
    for position in (28, 30):
        assert_same(program(body), words(), 3, position)
