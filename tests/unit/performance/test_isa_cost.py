"""The cost model on cases worked out by hand, for u55c: 16 trees, 64 lanes, 25 cycles to HBM, 48 through a tree, 32
through the vector engine, 220 to the next device."""

from __future__ import annotations

from typing import Any

import pytest
from support import ROOT

from hyperdex_ir.isa.instructions import SPECS, Engine
from hyperdex_ir.isa.operands import HbmRef, LmuRef, ViewRef
from hyperdex_ir.isa.program import Instruction, Program
from hyperdex_ir.performance.cost import Cost, instruction_cost
from hyperdex_ir.performance.estimate import estimate
from hyperdex_ir.performance.reference import cost_table
from hyperdex_ir.targets import load_target, target_names

U55C = load_target("u55c")
FIRST_BEAT, TREE, VECTOR = 25, 48, 32
HOP = 220  # cycles to the next device, at 56 bytes a cycle
MATMUL: dict[str, Any] = {
    "dst": LmuRef(1000, 64), "src": LmuRef(0, 128), "weight": HbmRef(0), "k": 128, "n": 64, "type": "f16",
    "bias": None, "scale": 1.0, "softcap": 0.0, "activation": "none", "times": None, "plus": None, "rows": 1,
    "gated": 0, "prefetch": 0, "gate_distance": 0,
}  # fmt: skip


def _matmul(**changes: Any) -> Instruction:
    return Instruction("matmul", {**MATMUL, **changes})


def _unary(dst: int, a: int, columns: int, stride: int = 0) -> Instruction:
    values = {
        "function": "neg",
        "dst": ViewRef(dst, stride or columns),
        "a": ViewRef(a, stride or columns),
        "groups": 1,
    }
    return Instruction("unary", {**values, "columns": columns, "rows": 1})


def _load(dst: int, columns: int) -> Instruction:
    return Instruction("load", {"dst": LmuRef(dst, 0), "src": HbmRef(0), "columns": columns})


def _store_value(src: int) -> Instruction:
    values = {"cache": HbmRef(0), "pitch": 0, "src": LmuRef(src, 64), "heads": 1, "size": 64, "limit": 100}
    return Instruction("store_value", {**values, "type": "f16", "rows": 1})


def _cycles(*instructions: Instruction) -> int:
    return estimate(Program((*instructions, Instruction("halt"))), U55C).cycles


def test_the_targets_say_all_that_the_model_needs() -> None:
    for name in target_names():
        target = load_target(name)
        assert target.hbm_bytes_per_cycle == target.stripe_bytes, "both feed their trees at full speed"
        assert min(target.vector_lanes, target.prefetch_stripes, target.partial_write_cycles) >= 1
    assert (U55C.hbm_latency_cycles, U55C.tree_latency_cycles, U55C.vector_latency_cycles) == (FIRST_BEAT, TREE, VECTOR)


@pytest.mark.parametrize(
    ("name", "changes", "rows", "position", "expected"),
    [
        ("matmul", {}, 1, 0, Cost(Engine.SXE, 8, TREE, 8, 2)),
        ("matmul", {}, 5, 0, Cost(Engine.SXE, 40, TREE, 8, 10)),
        ("matmul", {"n": 65, "k": 129}, 1, 0, Cost(Engine.SXE, 15, TREE, 15, 3)),
        ("matmul", {"gated": 1}, 1, 0, Cost(Engine.SXE, 16, TREE + VECTOR, 16, 4)),
        ("matmul", {"activation": "silu"}, 1, 0, Cost(Engine.SXE, 8, TREE + VECTOR, 8, 2)),
        ("scores", {"size": 64, "window": 0}, 1, 99, Cost(Engine.SXE, 7, TREE + VECTOR, 7, 1)),
        ("scores", {"size": 64, "window": 16}, 1, 99, Cost(Engine.SXE, 2, TREE + VECTOR, 2, 1)),
        ("values", {"size": 64, "window": 0}, 1, 99, Cost(Engine.SXE, 8, TREE, 8, 2)),
        ("softmax", {"window": 0}, 1, 99, Cost(Engine.VXE, 6 + 2 * VECTOR, VECTOR)),
        ("rms_norm", {"columns": 576, "groups": 1}, 1, 0, Cost(Engine.VXE, 18 + VECTOR, VECTOR)),
        ("unary", {"columns": 65, "groups": 2}, 3, 0, Cost(Engine.VXE, 9, VECTOR)),
        ("sample", {"columns": 640}, 4, 0, Cost(Engine.VXE, 10, VECTOR)),
        ("store_key", {"heads": 3, "size": 64}, 2, 0, Cost(Engine.SMA, 12, FIRST_BEAT)),
        ("store_value", {"heads": 3, "size": 64}, 1, 0, Cost(Engine.SMA, 384, FIRST_BEAT)),
        ("store_value", {"heads": 3, "size": 64}, 64, 0, Cost(Engine.SMA, 384, FIRST_BEAT)),
        ("embed", {"columns": 576, "index": "token"}, 2, 0, Cost(Engine.SMA, 18, 2 * FIRST_BEAT)),
        ("gather", {"columns": 576, "index": "position"}, 2, 0, Cost(Engine.SMA, 4, FIRST_BEAT)),
        ("load", {"columns": 576}, 1, 0, Cost(Engine.SMA, 2, FIRST_BEAT)),
        ("store", {"columns": 576}, 3, 0, Cost(Engine.SMA, 6, FIRST_BEAT)),
        ("store_state", {"columns": 576, "history": 2}, 3, 0, Cost(Engine.SMA, 4, FIRST_BEAT)),
        ("short_conv", {"columns": 576, "history": 2}, 1, 0, Cost(Engine.VXE, 27 + 2 * VECTOR, VECTOR)),
        ("set", {}, 1, 0, Cost(Engine.ICP, 1)),
        ("multiply", {}, 1, 0, Cost(Engine.ICP, 1)),
        ("lookup", {}, 1, 0, Cost(Engine.ICP, 1 + FIRST_BEAT)),
        ("select_columns", {"columns": 65}, 2, 0, Cost(Engine.VXE, 4, VECTOR)),
        ("matmul", {"gated": 1, "n": 16, "gate_distance": 40}, 1, 0, Cost(Engine.SXE, 6, TREE + VECTOR, 6, 4)),
        ("send", {"columns": 64}, 1, 0, Cost(Engine.ESL, 5, HOP)),
        ("send", {"columns": 64}, 3, 0, Cost(Engine.ESL, 14, HOP)),
        ("receive", {"columns": 64}, 3, 0, Cost(Engine.ESL, 0)),
    ],
)
def test_costs(name: str, changes: dict[str, Any], rows: int, position: int, expected: Cost) -> None:
    values = {**MATMUL, **changes} if name == "matmul" else changes
    assert instruction_cost(name, values, U55C, rows, position) == expected


def test_the_documentation_has_the_table_of_rules() -> None:
    page = (ROOT / "docs" / "cost.md").read_text(encoding="utf-8")
    start = "<!-- costs: python -m hyperdex_ir.performance.reference -->\n"
    assert start + cost_table() + "\n" in page


def test_every_instruction_has_its_engine() -> None:
    values = {**MATMUL, "window": 0, "size": 64, "heads": 1, "columns": 64, "groups": 1, "history": 2}
    values["index"] = "position"
    for spec in SPECS:
        assert instruction_cost(spec.name, values, U55C, 1, 0).engine is spec.engine


# ---------------------------------------------------------------------------------------------------- programs
def test_a_matrix_waits_for_its_operand_unless_it_streams_ahead() -> None:
    operand = 1 + 2 + VECTOR  # issued in cycle 1, 128 elements in two cycles
    work = 8 + TREE
    assert _cycles(_unary(0, 500, 128), _matmul()) == operand + FIRST_BEAT + work
    assert _cycles(_unary(0, 500, 128), _matmul(prefetch=8)) == operand + work
    waits = estimate(Program((_unary(0, 500, 128), _matmul(), Instruction("halt"))), U55C).waits
    assert waits == {1: operand - 2}


def test_matrices_follow_each_other_without_a_gap() -> None:
    assert _cycles(_matmul(), _matmul(dst=LmuRef(2000, 64))) == 1 + FIRST_BEAT + 16 + TREE


def test_a_consumer_of_some_columns_starts_when_they_are_finished() -> None:
    wide = _matmul(n=1600, dst=LmuRef(1000, 1600))  # 100 groups of 2 cycles
    first, last = _unary(5000, 1000, 16, 1600), _unary(5000, 2584, 16, 1600)
    done = 1 + FIRST_BEAT + 200 + TREE
    assert _cycles(wide, last) == done + 1 + VECTOR
    assert _cycles(wide, first) == done, "hidden behind the rest of the matrix"


def test_hazards_on_words() -> None:
    """Write after read: the load must not overtake what reads the words. Other words do not wait."""
    reader = _unary(9000, 0, 6400)  # reads until cycle 101
    assert _cycles(reader, _load(0, 128), _unary(20_000, 0, 128)) == 101 + 1 + 2 + VECTOR
    assert _cycles(reader, _load(7000, 128), _unary(20_000, 7000, 128)) == 101 + 2 + VECTOR


def test_stores_run_beside_earlier_streams_and_hold_up_later_ones() -> None:
    stream = _matmul(dst=LmuRef(9000, 1600), n=1600)
    written_late = _cycles(_load(3000, 64), _store_value(3000), stream)
    written_beside = _cycles(_load(3000, 64), stream, _store_value(3000))
    assert written_late - written_beside > 100
    assert written_beside == estimate(Program((_load(3000, 64), stream, Instruction("halt"))), U55C).cycles


# ---------------------------------------------------------------------------------------------------- links
def _exchange(hop: int, buffer: int = 0, columns: int = 64, parts: int = 2) -> tuple[Instruction, Instruction]:
    """A part of 64 columns to the next device, and the one before it from the device before."""
    values = {"parts": parts, "pitch": 64, "first": 0, "columns": columns, "rows": 1}
    send = Instruction("send", {"src": LmuRef(buffer, 64 * parts), "hop": hop, **values})
    return send, Instruction("receive", {"dst": LmuRef(buffer, 64 * parts), "hop": hop + 1, **values})


def test_a_part_is_there_when_the_own_one_is_at_the_next_device() -> None:
    made, consumer = _unary(0, 500, 64), _unary(900, 64, 64)
    sent = 1 + 1 + VECTOR + 5
    assert _cycles(made, *_exchange(0), consumer) == sent + HOP + 1 + VECTOR
    two_hops = (*_exchange(0, parts=3), *_exchange(1, parts=3))
    assert _cycles(made, *two_hops, _unary(900, 64, 64)) == sent + HOP + 5 + HOP + 1 + VECTOR
    assert _cycles(made, *two_hops, _unary(900, 128, 64)) == sent + HOP + 5 + HOP, "part 2 is there after one hop"


def test_messages_leave_one_after_another_and_travel_together() -> None:
    first, second = _exchange(0, 0), _exchange(0, 1000)
    assert _cycles(*first, *second) == 1 + 5 + 5 + HOP
    program = Program((*first, *second, Instruction("halt")))
    assert estimate(program, U55C).busy[Engine.ESL] == 10
    assert estimate(program, U55C).link_bytes == 2 * 4 * 64


def test_what_travels_while_others_work() -> None:
    work = _matmul(dst=LmuRef(9000, 1600), src=LmuRef(5000, 128), n=1600)  # 200 cycles
    program = Program((*_exchange(0), work, Instruction("halt")))
    alone, link = FIRST_BEAT + 200 + TREE, 1 + 5 + HOP
    assert estimate(program, U55C).cycles == 3 + alone
    assert estimate(program, U55C, overlap=False).cycles == link + 1 + alone
    late = Program((work, *_exchange(0), Instruction("halt")))
    assert estimate(late, U55C, overlap=False).cycles == 1 + alone + 5 + HOP + 1, "the halt waits too"


def test_what_travels_in_repeats() -> None:
    body = (_unary(0, 64, 64), *_exchange(0))
    for count in (1, 2, 3, 50):
        program = Program((Instruction("repeat", {"count": count, "length": 3}), *body, Instruction("halt")))
        found = estimate(program, U55C)
        assert found.cycles == 2 + (1 + VECTOR + 5 + HOP) * count
        assert found.link_bytes == 256 * count


def test_repeats_calls_and_choices() -> None:
    body = (_matmul(src=LmuRef(1000, 64), k=64), _unary(1000, 1000, 64))
    program = (
        Instruction("repeat", {"count": 1_000_000, "length": 1}), Instruction("call", {"target": 3}),
        Instruction("halt"), *body, Instruction("ret"),
    )  # fmt: skip
    many = estimate(Program(program), U55C)
    assert many.cycles == 3 + (FIRST_BEAT + 4 + TREE + 1 + VECTOR) * 1_000_000
    assert many.weight_stripes == 4_000_000
    assert many.executed == [1, 1_000_000, 1, 1_000_000, 1_000_000, 1_000_000]
    skips = (
        Instruction("repeat", {"count": 5, "length": 5}),
        Instruction("lookup", {"dst": 14, "table": HbmRef(0), "index": 13, "limit": 5}),
        Instruction("skip_unless", {"a": 14, "value": 0, "length": 1}), _unary(0, 0, 64),
        Instruction("skip_unless", {"a": 14, "value": 1, "length": 1}), _unary(64, 64, 64),
        Instruction("halt"),
    )  # fmt: skip
    assert estimate(Program(skips), U55C).executed == [1, 5, 5, 3, 5, 2, 1]


@pytest.mark.parametrize("count", [1, 2, 3, 17])
def test_work_only_grows_with_trips(count: int) -> None:
    program = (Instruction("repeat", {"count": count, "length": 1}), _unary(0, 64, 64), Instruction("halt"))
    assert estimate(Program(program), U55C).cycles == 2 + count + VECTOR
