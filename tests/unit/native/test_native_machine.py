"""The native machine: control flow, memory instructions, threads, Ctrl+C and deadlines; against the interpreter."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from typing import Any

import pytest
from support.programs.machine_programs import (
    LENGTH,
    LMU_WORDS,
    WIDTH,
    attention,
    embed,
    layout,
    memory_map,
    op,
    parameter,
    view,
)

from hyperdex_ir.errors import DeadlineError, MachineFault
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.machine import Machine
from hyperdex_ir.interpreter.step import NumericFault
from hyperdex_ir.isa.operands import HbmRef, LmuRef, ViewRef
from hyperdex_ir.isa.program import Instruction, Origin, Program
from hyperdex_ir.native.features import available
from hyperdex_ir.native.machine import NativeMachine
from hyperdex_ir.native.operation import EMITTERS, Sizes
from hyperdex_ir.native.pool import Pool
from hyperdex_ir.native.program_rows import operand_values

HALT = op("halt")
TOKENS, POSITION = [1, 5, 39], 59
MAP = memory_map()
ROW, TABLE, NUMBERS = (MAP.addresses[name] for name in ("row", "table", "numbers"))


def native(*instructions: Instruction, hbm: Hbm | None = None, **options: Any) -> NativeMachine:
    origins = tuple(options.pop("origins", ()))
    memory = hbm or Hbm.from_parameters(memory_map(), layout(), parameter)
    return NativeMachine(Program(instructions, origins), memory, chunk=4, lmu_words=LMU_WORDS, **options)


def outcome(machine: Machine | NativeMachine) -> str:
    try:
        machine.run(TOKENS, POSITION, 2)
    except MachineFault as fault:
        return str(fault)
    return ""


def same(*instructions: Instruction, **options: Any) -> str:
    """Runs a program on both executors; what is forbidden, or "". Everything else must be equal too."""
    hbms = [Hbm.from_parameters(memory_map(), layout(), parameter) for _ in range(2)]
    origins = tuple(Origin("main", f"layers.*.{index}", "") for index in range(len(instructions)))
    program = Program(instructions, origins)
    interpreter = Machine(program, hbms[0], chunk=4, lmu_words=LMU_WORDS)
    engine = NativeMachine(program, hbms[1], chunk=4, lmu_words=LMU_WORDS, **options)
    expected, message = outcome(interpreter), outcome(engine)
    engine.close()
    assert message == expected
    if not expected:
        written = interpreter.state.lmu._written
        ours, theirs = engine.lmu(0, 1, LMU_WORDS)[0], interpreter.state.lmu._words
        assert ours[written].tobytes() == theirs[written].tobytes()
        assert hbms[0].bytes.tobytes() == hbms[1].bytes.tobytes()
        assert engine.fault == interpreter.fault
        assert engine.registers == interpreter.registers
    return message


def gather(**changes: Any) -> Instruction:
    values = {"dst": LmuRef(3000, 8), "table": HbmRef(TABLE), "index": "position", "ids": HbmRef(0), "limit": LENGTH}
    return op("gather", **{**values, "columns": 8, "rows": 1, **changes})


def store(address: int, pitch: int, columns: int) -> Instruction:
    return op("store", dst=HbmRef(address), pitch=pitch, src=LmuRef(0, WIDTH), columns=columns, rows=1)


def select(first: int, src: int = 0, columns: int = 8) -> Instruction:
    return op("select_rows", dst=LmuRef(0, WIDTH), src=LmuRef(src, WIDTH), first=first, columns=columns, rows=9)


def sample(**changes: Any) -> Instruction:
    values = {"dst": 7, "src": LmuRef(0, WIDTH), "columns": WIDTH, "rows": 1, "settings": HbmRef(MAP.sampling)}
    return op("sample", **{**values, **changes})


ONE = op("set", dst=9, value=1)
FINE = {
    "embed": [embed()],
    "embed, odd address and infinities": [embed(1, scale=1e38)],
    "embed, rows on each other": [embed(dst=7, columns=60), Instruction("embed", embed(7).values)],
    "gather": [gather(), gather(dst=LmuRef(7001, 3), scale=0.3)],
    "load": [op("load", dst=LmuRef(3), src=HbmRef(ROW), columns=WIDTH)],
    "load from the middle of a beat": [op("load", dst=LmuRef(3), src=HbmRef(ROW + 20), columns=51)],
    "store": [embed(), store(MAP.logits + 4, 512, WIDTH)],
    "store, rows on each other": [embed(), store(MAP.logits, 8, WIDTH)],
    "store_key": [embed(), attention("store_key"), attention("store_key", type="bf16", src=LmuRef(5, WIDTH))],
    "store_key, infinities": [embed(scale=1e6), attention("store_key")],
    "store_key, heads on each other": [embed(), attention("store_key", pitch=2048)],
    "store_value": [embed(), attention("store_value"), attention("store_value", type="bf16", size=17)],
    "store_value, heads on each other": [embed(), attention("store_value", pitch=2048)],
    "select_rows": [embed(), ONE, embed(500), select(9, 500), op("set", dst=9, value=0)],
    "select_rows in place": [embed(), ONE, select(0, WIDTH), select(0, 3, 60)],
    "lookup": [op("lookup", dst=9, table=HbmRef(NUMBERS, 10), index=0, limit=3)],
    "repeat and skip": [
        *(op("set", dst=9, value=0), op("repeat", count=5, length=4), op("repeat", count=3, length=1)),
        *(op("add", dst=9, a=9, b=0, value=2), op("skip_unless", a=9, value=6, length=1)),
        op("add", dst=9, a=9, b=9, value=-100),
    ],
    "repeat of rows": [
        *(op("set", dst=9, value=0), op("repeat_rows", rows=1, length=2), op("repeat", count=2, length=1)),
        op("add", dst=9, a=9, b=0, value=3),
    ],
    "chosen columns": [
        embed(),
        op("top_k", dst=LmuRef(900, 3), src=LmuRef(0, WIDTH), columns=12, k=3, groups=3, top_groups=2, rows=1),
        op("take_columns", dst=LmuRef(0, 3), src=LmuRef(0, WIDTH), index=LmuRef(900, 3), columns=3, limit=12, rows=1),
        op("fetch", dst=9, src=LmuRef(901), limit=12),
    ],
    "chosen in place": [embed(), op("top_k", dst=LmuRef(0, WIDTH), src=LmuRef(0, WIDTH), columns=WIDTH, k=9, rows=1)],
    "repeat of no trips": [op("repeat", count=0, length=1), op("set", dst=9, value=1)],
    "zero stays zero": [op("set", dst=0, value=7), op("add", dst=9, a=0, b=0, value=-3)],
}
FINE["lookup"].insert(0, op("set", dst=10, value=8))

FAULTS = {
    "no register": [embed(rows=9)],
    "rows": [op("set", dst=9, value=5), embed(rows=9)],
    "token": [embed(limit=3)],
    "position": [embed(index="position", offset=-60)],
    "table row": [gather(limit=60)],
    "ids": [embed(ids=HbmRef(3))],
    "table": [gather(table=HbmRef(MAP.parameter_end - 8))],
    "matrix off the stripes": [embed(table=HbmRef(64))],
    "lmu": [embed(LMU_WORDS - 10)],
    "more elements than words": [embed(), op(
        "unary", function="copy", dst=view(0), a=ViewRef(0, 0, 0, 0), columns=LMU_WORDS, groups=1, rows=1)],
    "more positions than words": [op("set", dst=2, value=LMU_WORDS), op(
        "softmax", dst=LmuRef(0), src=LmuRef(0), rows=1)],
    "more scores than words": [op("set", dst=2, value=1 << 46), embed(), attention("scores", size=0)],
    "lmu, far away": [op("set", dst=9, value=(1 << 47) - 1), embed(), op("load", dst=LmuRef(0, 0, 9), **{
        "src": HbmRef(ROW), "columns": 2})],
    "lmu, negative": [op("set", dst=9, value=-1), op("load", dst=LmuRef(0, 0, 9), src=HbmRef(ROW), columns=2)],
    "hbm": [op("load", dst=LmuRef(0), src=HbmRef(MAP.end - 4), columns=2)],
    "hbm, negative": [op("set", dst=9, value=-8), op("load", dst=LmuRef(0), src=HbmRef(4, 9), columns=2)],
    "hbm across": [op("load", dst=LmuRef(0), src=HbmRef(MAP.parameter_end - 4), columns=2)],
    "store to parameters": [embed(), store(0, 512, 8)],
    "store outside": [embed(), store(MAP.end - 900, 400, 60)],
    "cache full": [embed(), attention("store_key", limit=61)],
    "cache of values full": [embed(), attention("store_value", limit=61)],
    "cache off the stripes": [embed(), attention("store_value", cache=HbmRef(MAP.kv_start + 64))],
    "cache in the parameters": [embed(), attention("store_value", cache=HbmRef(0))],
    "cache outside": [embed(), attention("store_key", pitch=1 << 30)],
    "rows selected": [embed(), op("set", dst=9, value=2), select(2, columns=8)],
    "lookup": [op("lookup", dst=9, table=HbmRef(NUMBERS), index=2, limit=3)],
    "overflow": [op("set", dst=9, value=(1 << 47) - 1), *[op("add", dst=9, a=9, b=9)] * 17],
    "underflow": [op("set", dst=9, value=-(1 << 47)), *[op("add", dst=9, a=9, b=9)] * 17],
    "product beyond 64 bits": [op("set", dst=9, value=(1 << 47) - 1), *[op("multiply", dst=9, a=9, value=1 << 40)]],
    "empty repeat": [op("repeat", count=2, length=0)],
    "empty repeat of rows": [op("repeat_rows", rows=1, length=0)],
    "repeat of no rows": [op("repeat_rows", rows=0, length=1)],
    "word that is no number": [embed(), op("fetch", dst=9, src=LmuRef(0), limit=9)],
    "word outside": [op("fetch", dst=9, src=LmuRef(LMU_WORDS), limit=9)],
    "column that is no number": [embed(), op(
        "take_columns", dst=LmuRef(0, 9), src=LmuRef(0, WIDTH), index=LmuRef(0, WIDTH), columns=2, limit=9, rows=1)],
    "groups that are not equal": [embed(), op(
        "top_k", dst=LmuRef(0, 9), src=LmuRef(0, WIDTH), columns=9, k=2, groups=2, top_groups=1, rows=1)],
    "too few columns": [embed(), op(
        "top_k", dst=LmuRef(0, 9), src=LmuRef(0, WIDTH), columns=9, k=4, groups=3, top_groups=1, rows=1)],
    "long repeat": [op("repeat", count=2, length=9)],
    "crossing repeat": [op("repeat", count=2, length=2), op("repeat", count=2, length=2), HALT],
    "long repeat of rows": [op("repeat_rows", rows=1, length=9)],
    "crossing repeat of rows": [op("repeat", count=2, length=2), op("repeat_rows", rows=1, length=2), HALT],
    "endless repeats": [*(op("repeat", count=1, length=20 - number) for number in range(17)), *[HALT] * 9],
    "endless repeats of rows": [*(op("repeat_rows", rows=1, length=20 - number) for number in range(17)), *[HALT] * 9],
    "empty skip": [op("skip_unless", a=0, value=0, length=0)],
    "long skip": [op("skip_unless", a=0, value=0, length=3)],
    "crossing skip": [op("repeat", count=2, length=2), op("skip_unless", a=0, value=0, length=2), HALT],
    "call": [op("call", target=99)],
    "calls of itself": [op("call", target=0)],
    "endless calls": [op("repeat", count=1, length=2), op("call", target=1)],
    "ret": [op("ret")],
    "ret in a repeat": [op("call", target=1), op("repeat", count=1, length=1), op("ret")],
    "halt skipped": [op("skip_unless", a=0, value=1, length=1)],
    "columns selected": [embed(), op("set", dst=9, value=-1), op(
        "select_columns", dst=LmuRef(500, 9), src=LmuRef(0, WIDTH), index=9, columns=9, limit=WIDTH, rows=1)],
    "turned columns": [embed(), op(
        "rotary", dst=view(0), a=view(0), cos=LmuRef(0), sin=LmuRef(0), style="half", turned=3, columns=8, rows=1)],
    "position outside the cache": [embed(), attention("values", limit=61)],
    "no columns to choose from": [embed(), sample(columns=0)],
    "settings": [embed(), store(MAP.sampling, 8, 20), sample()],
    "no links": [embed(), op(
        "send", src=LmuRef(0, WIDTH), hop=0, parts=2, pitch=5, columns=3, rows=1)],
    "no links to receive by": [op("receive", dst=LmuRef(0, WIDTH), hop=1, parts=2, pitch=5, columns=3, rows=1)],
}  # fmt: skip


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("case", FINE)
def test_programs_leave_what_the_interpreter_leaves(case: str, threads: int) -> None:
    assert same(*FINE[case], HALT, threads=threads) == ""


@pytest.mark.parametrize("case", FAULTS)
def test_faults_are_the_interpreters(case: str) -> None:
    assert same(*FAULTS[case], HALT, threads=2).startswith("instruction ")


def test_a_program_without_halt() -> None:
    assert "no halt here" in same(ONE)


@pytest.mark.slow
@pytest.mark.parametrize("features", [item.name for item in available()])
def test_every_instruction_set_of_this_computer(features: str) -> None:
    chosen = next(item for item in available() if item.name == features)
    for case in FINE.values():
        assert same(*case, HALT, threads=2, features=chosen) == ""


def test_a_fault_names_the_layer_and_the_machine_goes_on() -> None:
    program = [op("call", target=2), HALT, embed(limit=6), op("ret")]
    machine = native(*program, origins=[Origin("", f"model.layers.*.{i}", "") for i in range(4)], threads=3)
    for _ in range(3):
        with pytest.raises(MachineFault, match=r"^instruction 2 \(embed\) of model.layers.0.2: row 9 of a table of 6"):
            machine.run([1, 9], 0, 0)
        machine.run([1, 5], 0, 0)


def test_the_flag_keeps_the_first_in_program_order() -> None:
    scaled = [embed(scale=3.4e38), embed(scale=3.4e38)]
    layer = [op("repeat", count=2, length=1), op("call", target=3), HALT, embed(), *scaled, op("ret")]
    machine = native(*layer, origins=[Origin("f", "model.layers.*", "")] * len(layer), threads=3)
    machine.run([1, 2, 3], 0, 0)
    first = machine.fault
    machine.run([1], 0, 0)
    assert machine.fault == first == NumericFault(0, 0, 4, "embed", "model.layers.0")
    machine.clear()
    assert machine.fault is None
    machine.run([1], 0, 0)
    assert machine.fault == NumericFault(0, 0, 4, "embed", "model.layers.0")


def test_operands_that_no_field_holds_are_refused() -> None:
    with pytest.raises(MachineFault, match=r"instruction 0 \(set\): dst is 32, must be in 0..31"):
        native(op("set", dst=32, value=1))
    with pytest.raises(MachineFault, match=r"instruction 0 \(set\): operand value is missing"):
        native(op("set", dst=1))
    with pytest.raises(MachineFault, match="no operand 'colour'"):
        native(op("halt", colour=1))


@pytest.mark.parametrize(("tokens", "first"), [([], 0), ([1] * 5, 0), ([1], 1), ([1], -1)])
def test_the_host_is_checked(tokens: list[int], first: int) -> None:
    with pytest.raises(MachineFault):
        native(HALT).run(tokens, 0, first)


def test_the_budget() -> None:
    endless = native(op("repeat", count=1 << 31, length=1), ONE, HALT, budget=1000)
    with pytest.raises(MachineFault, match="1000 instructions and no halt"):
        endless.run([1], 0, 0)


def test_long_loops_cost_nothing_to_open() -> None:
    most = (1 << 32) - 1
    add, inner = op("add", dst=9, a=9, b=0, value=1), op("repeat", count=most, length=1)
    machine = native(ONE, inner, add, op("repeat", count=most, length=2), inner, add, HALT, budget=1000)
    with pytest.raises(MachineFault, match="1000 instructions and no halt"):
        machine.run([1], 0, 0)


def endless(threads: int) -> NativeMachine:
    """A program that runs for days when its first token is 1, with barriers; it ends at once for 0."""
    tokens = HbmRef(MAP.tokens)
    days = [op("repeat", count=1 << 31, length=2), op("repeat", count=1 << 31, length=1), embed()]
    start = [op("lookup", dst=9, table=tokens, index=0, limit=1), op("skip_unless", a=9, value=1, length=len(days))]
    return native(*start, *days, HALT, budget=1 << 62, threads=threads)


@pytest.mark.usefixtures("no_hang")
@pytest.mark.parametrize("threads", [1, 3])
def test_a_deadline_ends_a_pass_and_the_machine_goes_on(threads: int) -> None:
    machine = endless(threads)
    for _ in range(2):
        machine.deadline = time.monotonic() + 0.1
        with pytest.raises(DeadlineError):
            machine.run([1], 0, 0)
        machine.deadline = None
        machine.run([0], 0, 0)


NOWHERE = ViewRef(0, 0, 0, 0)
#: Instructions of many minutes, whatever the LMU bounds.
LONG = {
    "top_k": op("top_k", dst=LmuRef(0), src=LmuRef(0), columns=1 << 21, k=1 << 21, rows=1),
    "top_k of groups": op(
        "top_k", dst=LmuRef(0), src=LmuRef(0), columns=2 * 65535, k=1, groups=65535, top_groups=65535, rows=9),
    "rms_norm of nothing": op("rms_norm", dst=NOWHERE, a=NOWHERE, epsilon=1.0, groups=65535, columns=0, rows=10),
}  # fmt: skip


@pytest.mark.usefixtures("no_hang")
@pytest.mark.parametrize("case", LONG)
def test_a_deadline_ends_a_single_instruction(case: str) -> None:
    program = Program((op("set", dst=9, value=1 << 7), op("set", dst=10, value=1 << 22), LONG[case], HALT), ())
    memory = Hbm.from_parameters(memory_map(), layout(), parameter)
    machine = NativeMachine(program, memory, chunk=1 << 22, lmu_words=1 << 24, threads=1)
    machine.deadline = time.monotonic() + 0.1
    with pytest.raises(DeadlineError):
        machine.run([1], 0, 0)
    machine.close()


@pytest.mark.parametrize("threads", [1, 3])
def test_ctrl_c_ends_a_pass_and_the_machine_goes_on(threads: int) -> None:
    machine = endless(threads)
    for _ in range(2):
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            machine.run([1], 0, 0)
        timer.join()
        machine.run([0], 0, 0)


def test_ctrl_c_when_the_pass_is_over_does_not_stop_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = native(op("add", dst=9, a=1, b=0), HALT, threads=2)
    wait = Pool._wait

    def interrupted(pool: Pool, target: int, deadline: float | None) -> bool:
        wait(pool, target, deadline)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Pool, "_wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            machine.run([1], 0, 0)
    machine.run([1, 2, 3], 0, 0)
    assert machine.registers[9] == 3


def test_ctrl_c_while_threads_are_waited_for_leaves_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = endless(2)

    def interrupted(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Pool, "_wait", interrupted)
        patch.setattr(Pool, "_drain", interrupted)
        patch.setattr(Pool, "settle", lambda pool: None)
        with pytest.raises(KeyboardInterrupt):
            machine.run([1], 0, 0)
    machine.run([0], 7, 0)
    assert machine.registers[9] == 0


def test_passes_of_several_python_threads_take_turns() -> None:
    machine = native(*[embed()] * 50, HALT, threads=2)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(30):
                machine.run(TOKENS, POSITION, 2)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not errors


def test_a_closed_machine_says_so() -> None:
    machine = native(HALT, threads=2)
    machine.run([1], 0, 0)
    machine.close()
    machine.close()
    with pytest.raises(MachineFault, match="the machine has been closed"):
        machine.run([1], 0, 0)


@pytest.mark.slow
def test_threads_end_with_their_machine() -> None:
    before = set(threading.enumerate())
    machine = native(HALT, threads=3)
    machine.run([1], 0, 0)
    own = set(threading.enumerate()) - before
    assert len(own) == 3
    del machine
    gc.collect()
    for thread in own:
        thread.join(timeout=10)
        assert not thread.is_alive()


def test_more_memory_than_there_is() -> None:
    memory = Hbm.from_parameters(memory_map(), layout(), parameter)
    with pytest.raises(MachineFault, match=r"\d{10,} bytes of scratch memory"):
        NativeMachine(Program((HALT,), ()), memory, chunk=4, lmu_words=1 << 50)


def test_what_can_only_fault_needs_no_scratch_memory() -> None:
    most = (1 << 24) - 1
    broadcast = ViewRef(0, 0, 0, 0)
    huge = op("unary", function="copy", dst=broadcast, a=broadcast, groups=65535, columns=most, rows=1)
    assert "has 20000 words" in same(huge, HALT)


#: By name, an instruction, and the most words of scratch memory for a chunk of 256, an LMU of 1 << 22 words, 2 threads.
MODEST = {
    "taps that no HBM holds": (op(
        "short_conv", dst=LmuRef(0), src=LmuRef(0), state=HbmRef(0), taps=HbmRef(0), history=65535, columns=1_000_000,
        rows=1), 0),
    "one row of the LMU's size": (op(
        "matmul", dst=LmuRef(0), src=LmuRef(0), weight=HbmRef(0), k=1 << 22, n=1, type="f16", rows=1), 1 << 24),
    "a result of the LMU's size": (op(
        "matmul", dst=LmuRef(0), src=LmuRef(0), weight=HbmRef(0), k=1, n=1 << 22, type="f16", rows=1), 1 << 25),
    "a matrix that no HBM holds": (op(
        "matmul", dst=LmuRef(0), src=LmuRef(0), weight=HbmRef(0), k=1 << 21, n=1 << 21, type="f16", rows=1), 0),
}  # fmt: skip


@pytest.mark.parametrize("case", MODEST)
def test_scratch_memory_is_for_what_passes_the_checks(case: str) -> None:
    item, most = MODEST[case]
    scratch = EMITTERS[item.name].scratch
    assert scratch is not None
    assert scratch(operand_values(0, item), Sizes(256, 16, 2, 1 << 22, 1 << 34)) <= most


def test_an_instruction_that_is_not_executed_needs_not_fit() -> None:
    assert same(op("skip_unless", a=0, value=1, length=1), MODEST["taps that no HBM holds"][0], HALT) == ""


@pytest.mark.parametrize("case", ["one row of the LMU's size", "a matrix that no HBM holds"])
def test_large_matmuls_fault_as_in_the_interpreter(case: str) -> None:
    assert same(MODEST[case][0], HALT).startswith("instruction 0 (matmul)")


def test_a_matmul_of_nothing_without_an_lmu() -> None:
    """Absent operands have no words that could lie outside."""
    nothing = op("matmul", dst=LmuRef(0), src=LmuRef(0), weight=HbmRef(0), k=0, n=0, type="f16", rows=1)
    memory = Hbm.from_parameters(memory_map(), layout(), parameter)
    program = Program((nothing, HALT), ())
    for machine in (
        Machine(program, memory, chunk=4, lmu_words=0),
        NativeMachine(program, memory, chunk=4, lmu_words=0),
    ):
        machine.run([1], 0, 0)
