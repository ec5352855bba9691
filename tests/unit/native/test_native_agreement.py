"""What memory says about control flow and addresses is the same for all threads, whoever writes to it meanwhile; and
every size may be 0."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from support import SOAK
from support.programs.machine_programs import LENGTH, LMU_WORDS, SIZE, WIDTH, layout, memory_map, op, parameter

from hyperdex_ir.errors import MachineFault
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.lmu import Lmu
from hyperdex_ir.interpreter.machine import Machine
from hyperdex_ir.isa.operands import HbmRef, LmuRef, ViewRef
from hyperdex_ir.isa.program import Instruction, Program
from hyperdex_ir.native.machine import NativeMachine

MAP = memory_map()
HALT = op("halt")
SLOT: Any = MAP.main.caches[0]
NUMBERS = HbmRef(MAP.addresses["numbers"])
#: A word pair in the run-time area that holds an i64, and LMU words that hold two of them, as bits.
CELL, ONE, TWO = HbmRef(MAP.logits), LmuRef(100, 1), LmuRef(200, 1)
TRIPS = 3000 if SOAK else 1000
FOUND, SUM = 12, 13


def engine(*instructions: Instruction, threads: int, hbm: Hbm | None = None, chunk: int = 4) -> NativeMachine:
    memory = hbm or Hbm.from_parameters(MAP, layout(), parameter)
    return NativeMachine(Program(instructions, ()), memory, chunk=chunk, lmu_words=LMU_WORDS, threads=threads)


def fault_of(machine: Machine | NativeMachine, tokens: int = 1) -> str:
    """The message of the fault in a step of so many tokens, or ""."""
    try:
        machine.run([1] * tokens, 0, 0)
    except MachineFault as fault:
        return str(fault)
    return ""


def registers_of_each_thread(machine: NativeMachine) -> list[list[int]]:
    return [list(state.registers) for state in machine._states]


def write_number(machine: NativeMachine, place: LmuRef, number: int) -> None:
    machine.write_lmu(place.address, np.array([number], np.int64).view(np.float32))


def rounds(*body: Instruction) -> list[Instruction]:
    start = [op("set", dst=register, value=0) for register in (FOUND, SUM)]
    add = op("add", dst=SUM, a=SUM, b=FOUND, value=0)
    return [*start, op("repeat", count=TRIPS, length=len(body) + 1), *body, add, HALT]


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_store_does_not_overtake_a_lookup(threads: int) -> None:
    """The store belongs to the last thread; without a barrier the others come late to the number."""
    one, two = (op("store", dst=CELL, pitch=8, src=src, columns=2, rows=1) for src in (ONE, TWO))
    lookup = op("lookup", dst=FOUND, table=CELL, index=0, limit=1)
    machine = engine(*rounds(one, lookup, two), threads=threads)
    write_number(machine, ONE, 1)
    write_number(machine, TWO, 1000)
    for _ in range(10 if SOAK else 3):
        machine.run([1], 0, 0)
        assert [state[SUM] for state in registers_of_each_thread(machine)] == [TRIPS] * threads
    machine.close()


@pytest.mark.slow
@pytest.mark.parametrize("threads", [2, 3])
def test_a_load_does_not_overtake_a_fetch(threads: int) -> None:
    one, two = (op("unary", function="copy", dst=_word(0), a=_word(at), columns=1, rows=1) for at in (100, 200))
    fetch = op("fetch", dst=FOUND, src=LmuRef(0, 1), limit=1 << 20)
    machine = engine(*rounds(one, fetch, two), threads=threads)
    machine.write_lmu(100, np.array([1], np.float32))
    machine.write_lmu(200, np.array([1000], np.float32))
    machine.run([1], 0, 0)
    assert [state[SUM] for state in registers_of_each_thread(machine)] == [TRIPS] * threads
    machine.close()


def _word(address: int) -> ViewRef:
    return ViewRef(address, 1, 1, 1)


@contextmanager
def rewritten(numbers: np.ndarray, choices: tuple[int, ...]) -> Iterator[None]:
    """Another thread keeps writing these numbers to all of an array: as the owner of an image can."""
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            for choice in choices:
                numbers[...] = choice

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        over.set()
        writer.join()


def parameters_of(hbm: Hbm) -> np.ndarray:
    """The table of numbers among the parameters, which no instruction can write: i64 [3]."""
    return hbm.bytes[NUMBERS.offset : NUMBERS.offset + 24].view(np.int64)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [2, 3])
def test_a_rewritten_parameter_is_one_number_for_all_threads(threads: int) -> None:
    hbm = Hbm.from_parameters(MAP, layout(), parameter)
    lookup = op("lookup", dst=FOUND, table=NUMBERS, index=0, limit=3)
    machine = engine(*rounds(lookup), threads=threads, hbm=hbm)
    with rewritten(parameters_of(hbm), (1, 2, 3, 1000)):
        for _ in range(5 if threads == 2 else 1):  # three threads on two cores wait for one another
            machine.run([1], 0, 0)
            first, *others = registers_of_each_thread(machine)
            assert all(other == first for other in others)
    machine.close()


@pytest.mark.slow
@pytest.mark.parametrize("numbers", [(0, 1), (0,) * 300 + (1 << 20,)], ids=["inside", "outside"])
def test_rewritten_parameters_move_no_head_loop_out_of_memory(numbers: tuple[int, ...]) -> None:
    """A head loop looks up its KV heads: what it has checked is what it uses, whatever the table says by then."""
    hbm = Hbm.from_parameters(MAP, layout(), parameter)
    caches = {
        name: HbmRef(MAP.kv_start + offset, register)
        for name, offset, register in (("keys", SLOT.key_offset, 15), ("values", SLOT.value_offset, 16))
    }
    common: dict[str, Any] = {"window": 0, "rows": 1, "type": "f16", "size": SIZE}
    table = LmuRef(0, LENGTH)
    stages = [
        op("scores", dst=table, query=LmuRef(8000, 64, 14), cache=caches["keys"], scale=1.0, **common),
        op("softmax", dst=table, src=table, window=0, rows=1),
        op("values", dst=LmuRef(9000, 64, 14), src=table, cache=caches["values"], limit=LENGTH, **common),
    ]
    walk = [op("lookup", dst=FOUND, table=NUMBERS, index=17, limit=3)]
    pitches = ((15, SLOT.key_pitch), (16, SLOT.value_pitch))
    walk += [op("multiply", dst=register, a=FOUND, value=pitch) for register, pitch in pitches]
    steps = [op("add", dst=14, a=14, b=0, value=SIZE), op("add", dst=17, a=17, b=0, value=1)]
    body = [*walk, *stages, *steps]
    start = [op("set", dst=register, value=0) for register in (14, 17)]
    loop = [*start, op("repeat", count=3, length=len(body)), *body]
    machine = engine(op("repeat", count=50, length=len(loop)), *loop, HALT, threads=2, hbm=hbm)
    with rewritten(parameters_of(hbm), numbers):
        for _ in range(40 if SOAK else 15):
            fault = fault_of(machine)
            assert "the map ends at" in fault or not fault
            if not fault:
                first, second = registers_of_each_thread(machine)
                assert first == second
    machine.close()


def test_rows_of_attention_lie_where_no_instruction_writes() -> None:
    """Their addresses are not in the scratch memory that all threads share."""
    machine = engine(op("softmax", dst=LmuRef(0, 1), src=LmuRef(0, 1), window=0, rows=1), HALT, threads=2)
    start, stop = machine._lmu.ctypes.data, machine._lmu.ctypes.data + machine._lmu.nbytes
    machine.run([1], 0, 0)
    words = machine._scratch[: machine._scratch.size // 2 * 2].view(np.int64)
    own = machine._scratch.ctypes.data
    low, high = min(start, own), max(stop, own + machine._scratch.nbytes)
    assert not ((words >= low) & (words < high)).any()
    machine.close()


# ---------------------------------------------------------------------------------------------------- sizes of 0


class _Written(Lmu):
    def __init__(self, words: np.ndarray):
        super().__init__(words.size)
        self._words[:] = words
        self._written[:] = True

    def forget(self) -> None: ...


def both(*instructions: Instruction, threads: int) -> tuple[str, np.ndarray]:
    """The message and the LMU of both executors, which must be the same."""
    words = np.arange(LMU_WORDS, dtype=np.float32)
    results: list[tuple[str, bytes, Any]] = []
    for kind in (Machine, NativeMachine):
        hbm = Hbm.from_parameters(MAP, layout(), parameter)
        hbm._written[:] = True
        options: dict[str, Any] = {} if kind is Machine else {"threads": threads}
        machine: Any = kind(Program((*instructions, HALT), ()), hbm, chunk=4, lmu_words=LMU_WORDS, **options)
        lmu = _Written(words)
        if kind is Machine:
            machine.state.lmu = lmu
        else:
            machine.write_lmu(0, words)
        message = fault_of(machine, 3)
        left = lmu._words if kind is Machine else machine.lmu(0, 1, LMU_WORDS)[0]
        results.append((message, np.where(np.isnan(left), np.float32(np.nan), left).tobytes(), machine.fault))
    assert results[0] == results[1]
    return results[0][0], np.frombuffer(results[0][1], np.float32)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("function", "expected"), [("sum", 0.0), ("mean", np.nan), ("row_max", -np.inf)])
@pytest.mark.parametrize("column_stride", [1, 2])
def test_reduce_of_no_columns(function: str, expected: float, column_stride: int, threads: int) -> None:
    """Not in place, and with more results than the smallest scratch memory holds."""
    dst = ViewRef(500, 4000, 1, column_stride)
    reduce = op("reduce", function=function, dst=dst, a=ViewRef(0, 1, 1, 1), groups=4000, columns=0, rows=1)
    message, words = both(reduce, threads=threads)
    assert message == ""
    np.testing.assert_array_equal(words[500:4500], np.full(4000, expected, np.float32))


#: Every instruction with sizes, each with one of them 0.
_ROW, _VIEW, _PLACE = LmuRef(10, WIDTH), ViewRef(10, WIDTH, 1, 1), HbmRef(0)
_KEYS = HbmRef(MAP.kv_start + SLOT.key_offset)
_VALUES = HbmRef(MAP.kv_start + SLOT.value_offset)
_EMPTY = [
    op("embed", dst=_ROW, table=_PLACE, index="position", ids=_PLACE, limit=40, columns=0, type="f16", rows=1),
    op("embed", dst=_ROW, table=_PLACE, index="position", ids=_PLACE, limit=0, columns=9, type="f16", rows=1),
    op("gather", dst=_ROW, table=_PLACE, index="position", ids=_PLACE, limit=3, columns=0, rows=1),
    op("load", dst=_ROW, src=_PLACE, columns=0),
    op("store", dst=CELL, pitch=0, src=_ROW, columns=0, rows=1),
    op("store_key", cache=_KEYS, pitch=0, src=_ROW, heads=0, size=9, limit=90, type="f16", rows=1),
    op("store_key", cache=_KEYS, pitch=0, src=_ROW, heads=2, size=0, limit=90, type="f16", rows=1),
    op("store_value", cache=_VALUES, pitch=0, src=_ROW, heads=0, size=9, limit=90, type="f16", rows=1),
    op("store_value", cache=_VALUES, pitch=0, src=_ROW, heads=2, size=0, limit=90, type="f16", rows=1),
    op("store_value", cache=_VALUES, pitch=0, src=_ROW, heads=2, size=9, limit=0, type="f16", rows=1),
    op("store_state", state=_KEYS, src=_ROW, history=0, columns=9, rows=1),
    op("store_state", state=_KEYS, src=_ROW, history=2, columns=0, rows=1),
    op("matmul", dst=_ROW, src=_ROW, weight=_PLACE, k=0, n=9, type="f16", rows=1),
    op("matmul", dst=_ROW, src=_ROW, weight=_PLACE, k=9, n=0, type="f16", rows=1, gated=1),
    op("matmul", dst=_ROW, src=_ROW, weight=_PLACE, k=0, n=0, type="f16", rows=1, gated=1, gate_distance=3),
    op("scores", dst=_ROW, query=_ROW, cache=_KEYS, size=0, scale=1.0, window=0, type="f16", rows=1),
    op("scores", dst=_ROW, query=LmuRef(10, 9000, 0), cache=_KEYS, size=0, scale=1.0, window=0, type="f16", rows=1),
    op("values", dst=_ROW, src=_ROW, cache=_VALUES, size=0, limit=90, window=0, type="f16", rows=1),
    op("values", dst=_ROW, src=_ROW, cache=_VALUES, size=9, limit=0, window=0, type="f16", rows=1),
    op("unary", function="exp", dst=_VIEW, a=_VIEW, groups=0, columns=9, rows=1),
    op("unary", function="exp", dst=_VIEW, a=ViewRef(LMU_WORDS, 9, 9, 2), groups=0, columns=1 << 20, rows=1),
    op("unary", function="exp", dst=_VIEW, a=ViewRef(LMU_WORDS + 1, 9, 9, 2), groups=0, columns=1 << 20, rows=1),
    op("unary", function="exp", dst=_VIEW, a=_VIEW, groups=3, columns=0, rows=1),
    op("binary", function="add", dst=_VIEW, a=_VIEW, b=_VIEW, groups=3, columns=0, rows=1),
    op("binary_scalar", function="add", dst=_VIEW, a=_VIEW, b=1.0, groups=0, columns=5, rows=1),
    op("reduce", function="sum", dst=_VIEW, a=_VIEW, groups=0, columns=9, rows=1),
    op("reduce", function="row_max", dst=_VIEW, a=_VIEW, groups=0, columns=0, rows=1),
    op("rms_norm", dst=_VIEW, a=_VIEW, weight=_PLACE, epsilon=0.0, groups=1, columns=0, rows=1),
    op("rms_norm", dst=_VIEW, a=ViewRef(0, 0, 0, 0), weight=_PLACE, epsilon=0.0, groups=0, columns=25_000, rows=1),
    op("layer_norm", dst=_VIEW, a=_VIEW, weight=_PLACE, bias=_PLACE, epsilon=0.0, groups=1, columns=0, rows=1),
    op("rotary", dst=_VIEW, a=_VIEW, cos=_ROW, sin=_ROW, style="half", turned=0, groups=1, columns=9, rows=1),
    op("rotary", dst=_VIEW, a=_VIEW, cos=_ROW, sin=_ROW, style="half", turned=0, groups=1, columns=0, rows=1),
    op("rotary", dst=_VIEW, a=_VIEW, cos=_ROW, sin=_ROW, style="interleaved", turned=4, groups=0, columns=9, rows=1),
    op("select_rows", dst=_ROW, src=_ROW, first=0, columns=0, rows=1),
    op("select_columns", dst=_ROW, src=_ROW, index=1, columns=0, limit=9, rows=1),
    op("select_columns", dst=_ROW, src=_ROW, index=1, columns=9, limit=0, rows=1),
    op("sample", dst=7, src=_ROW, columns=0, rows=1, settings=HbmRef(MAP.sampling)),
    op("top_k", dst=_ROW, src=_ROW, columns=0, k=0, rows=1),
    op("top_k", dst=_ROW, src=_ROW, columns=9, k=0, rows=1),
    op("top_k", dst=_ROW, src=_ROW, columns=9, k=1, groups=0, rows=1),
    op("top_k", dst=_ROW, src=_ROW, columns=9, k=1, top_groups=0, rows=1),
    op("take_columns", dst=_ROW, src=_ROW, index=_ROW, columns=0, limit=0, rows=1),
    op("take_columns", dst=_ROW, src=_ROW, index=_ROW, columns=3, limit=0, rows=1),
    op("short_conv", dst=_ROW, src=_ROW, state=_KEYS, taps=_PLACE, history=0, columns=9, rows=1),
    op("short_conv", dst=_ROW, src=_ROW, state=_KEYS, taps=_PLACE, history=3, columns=0, rows=1),
    op("send", src=_ROW, hop=0, parts=0, pitch=0, columns=0, rows=1),
    op("lookup", dst=8, table=_PLACE, index=0, limit=0),
    op("fetch", dst=8, src=_ROW, limit=0),
    op("repeat_rows", rows=0, length=1),
]


@pytest.mark.parametrize("number", range(len(_EMPTY)), ids=lambda number: f"{number}-{_EMPTY[number].name}")
def test_sizes_of_0(number: int) -> None:
    """The same bits from both executors, or the same fault."""
    for threads in (1, 2):
        both(_EMPTY[number], op("set", dst=9, value=1), threads=threads)
