"""Programs and modules of strangers: what looks at one takes a time, a memory and a depth that its length bounds."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from support.programs.machine_programs import layout, memory_map, op, parameter

from hyperdex_ir.errors import AssemblyError, FileFormatError, PassError
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.machine import Machine
from hyperdex_ir.isa.assembly import parse_program, print_program
from hyperdex_ir.isa.codec import decode_program, encode_program
from hyperdex_ir.isa.instructions import TOKENS, WORD_BYTES
from hyperdex_ir.isa.operands import HbmRef, LmuRef, ViewRef
from hyperdex_ir.isa.program import Instruction, Program
from hyperdex_ir.isa.structure import MAX_DEPTH, MAX_INSTRUCTIONS, StructureError, check_structure, fewest_executed
from hyperdex_ir.native.attention import heads
from hyperdex_ir.native.attention.heads import MAX_SEARCHED, find_head_loops
from hyperdex_ir.native.machine import NativeMachine
from hyperdex_ir.performance import estimate as estimates
from hyperdex_ir.performance import inspection, scoreboard
from hyperdex_ir.performance.estimate import estimate
from hyperdex_ir.support.xdsl import parse_module, print_module
from hyperdex_ir.targets import load_target

HALT, RET = op("halt"), op("ret")
ADD = op("add", dst=9, a=9, b=0, value=1)


def repeat(count: int, length: int) -> Instruction:
    return op("repeat", count=count, length=length)


def attention(trips: int) -> list[Instruction]:
    """A loop over heads that fits in 320 bytes."""
    rows = {"rows": TOKENS, "window": 0}
    shared = {"limit": 64, "type": "f16", **rows}
    scores = op(
        "scores", dst=LmuRef(4096, 64), query=LmuRef(0, 64, 9), cache=HbmRef(0, 10), size=64, scale=1.0, **shared
    )
    softmax = op("softmax", dst=LmuRef(4096, 64), src=LmuRef(4096, 64), **rows)
    values = op("values", dst=LmuRef(65536, 64, 9), src=LmuRef(4096, 64), cache=HbmRef(0, 10), size=64, **shared)
    return [repeat(trips, 4), scores, softmax, values, op("add", dst=9, a=9, b=0, value=64)]


# ---------------------------------------------------------------------------------------------------- head loops
def searched(code: list[Instruction], monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """How many head loops there are, and how many instructions were executed to find them."""
    walks: list[Any] = []

    class Counted(heads._Walk):
        def __init__(self, *arguments: Any, **named: Any):
            super().__init__(*arguments, **named)
            walks.append(self)

    monkeypatch.setattr(heads, "_Walk", Counted)
    found = find_head_loops(Program(tuple(code)))
    return len(found), sum(walk.executed for walk in walks)


def test_loops_without_heads_are_not_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two instructions each: a quarter of a second for each of them, when they were."""
    assert searched([*[repeat(1 << 31, 1), ADD] * 1000, HALT], monkeypatch) == (0, 0)
    nested = [repeat(1 << 31, 60 - depth) for depth in range(60)]
    assert searched([*[*nested, ADD] * 100, HALT], monkeypatch) == (0, 0)


@pytest.mark.slow
def test_all_loops_together_are_executed_for_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    loops, executed = searched([*attention(1000) * 200, HALT], monkeypatch)
    assert loops == MAX_SEARCHED // 4001
    assert executed <= MAX_SEARCHED + len(heads._STAGES)
    failing = [repeat(4000, 5), *attention(1)[1:], op("multiply", dst=10, a=10, value=2)]
    assert searched([*failing * 500, HALT], monkeypatch)[1] <= MAX_SEARCHED


@pytest.mark.slow
def test_a_model_of_many_layers_has_all_its_loops_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """126 layers of their own with 128 heads each."""
    assert searched([*attention(128) * 126, HALT], monkeypatch)[0] == 126


# ---------------------------------------------------------------------------------------------------- structure
def chain(length: int) -> list[Instruction]:
    """Functions of which each calls the next."""
    calls = [op("call", target=2 * number + 2) for number in range(length)]
    ends = [HALT, *[RET] * length]
    return [item for pair in zip(calls, ends, strict=False) for item in pair] + [RET]


def bodies(depth: int) -> list[Instruction]:
    """Repeats inside each other."""
    return [*(repeat(1 << 31, depth - number) for number in range(depth)), ADD, HALT]


@pytest.mark.slow
@pytest.mark.parametrize("make", [chain, bodies])
def test_depth(make: Any) -> None:
    code = make(MAX_DEPTH)
    check_structure(code)
    assert fewest_executed(code) > 0
    for depth in (MAX_DEPTH + 1, 20_000):
        with pytest.raises(StructureError, match=r"repeats, skips and calls nested \d+ deep, the most is 16"):
            check_structure(make(depth))


REPEATS = [op("set", dst=9, value=0), *(repeat(1, MAX_DEPTH - depth) for depth in range(MAX_DEPTH)), ADD, HALT]


@pytest.mark.parametrize("kind", [Machine, NativeMachine])
@pytest.mark.parametrize("code", [chain(MAX_DEPTH), REPEATS], ids=["calls", "repeats"])
def test_machines_execute_what_nests_as_deep_as_it_may(code: list[Instruction], kind: Any) -> None:
    check_structure(code)
    memory = Hbm.from_parameters(memory_map(), layout(), parameter)
    machine = kind(Program(tuple(code)), memory, chunk=4, lmu_words=100)
    machine.run([1], 0, 0)
    assert machine.executed >= len(code) - MAX_DEPTH


def test_depth_of_bodies_and_calls_together() -> None:
    inner = [*bodies(MAX_DEPTH - 3)[:-1], RET]
    code = [repeat(2, 1), op("call", target=3), HALT, repeat(2, 1), ADD, RET]
    check_structure(code)
    code = [repeat(2, 2), op("skip_unless", a=9, value=0, length=1), op("call", target=4), HALT, *inner]
    check_structure(code)
    with pytest.raises(StructureError, match="nested 17 deep"):
        check_structure([*code[:4], *[repeat(1, len(inner) - 1)], *inner])


@pytest.mark.slow
def test_how_many_instructions_there_can_be() -> None:
    halt = encode_program([HALT])
    with pytest.raises(FileFormatError, match="a program of 65537 instructions, the most is 65536"):
        decode_program(halt * (MAX_INSTRUCTIONS + 1))
    with pytest.raises(AssemblyError, match="the program has 65537 instructions, the most is 65536"):
        encode_program([HALT] * (MAX_INSTRUCTIONS + 1))
    with pytest.raises(AssemblyError, match="t:65537:1: a program has at most 65536 instructions"):
        parse_program("halt\n" * (MAX_INSTRUCTIONS + 1), "t")
    assert len(halt) == WORD_BYTES


@pytest.mark.slow
def test_many_functions_and_labels() -> None:
    """Each name is looked for once: pairs of 20,000 would take minutes."""
    code = (HALT, *[RET] * 20_000)
    text = print_program(Program(code))
    assert parse_program(text).instructions == code
    assert fewest_executed(code) == 1
    labels = " ".join(f"a{number}:" for number in range(MAX_INSTRUCTIONS))
    assert parse_program(f"{labels} halt").instructions == (HALT,)
    with pytest.raises(AssemblyError, match="t:1:513179: a program has at most 65536 labels"):
        parse_program(f"{labels} more: halt", "t")


def test_a_line_is_read_to_its_first_fault() -> None:
    """Its words are not all made before."""
    text = "halt " + "x " * (1 << 20)
    tracemalloc.start()
    with pytest.raises(AssemblyError, match="t:1:6: halt: expected nothing, got 'x'"):
        parse_program(text, "t")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * len(text)


# ---------------------------------------------------------------------------------------------------- estimates
def moving(count: int, trips: int) -> list[Instruction]:
    """Instructions in a loop, whose places are others each time."""
    unary = op(
        "unary", function="exp", dst=ViewRef(0, 0, 0, 1, 9), a=ViewRef(64, 0, 0, 1, 9), groups=1, columns=1, rows=TOKENS
    )
    return [repeat(trips, count + 1), *[unary] * count, ADD, HALT]


TARGET = load_target("u55c")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (moving(1, 1 << 20), "10000 instructions and no halt: too many to estimate"),
        ([repeat(1 << 20, 2), *moving(1, 1)[1:3], *[ADD] * 5000, HALT], "10000 instructions and no halt"),
        (moving(1, 5000), "instructions that work on 100 places: too many to estimate"),
    ],
)
def test_what_takes_too_long_is_not_estimated(code: list[Instruction], message: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(estimates, "MOST_EXECUTED", 10_000)
    monkeypatch.setattr(estimates, "_MOST_KINDS", 100 if "places" in message else 1 << 17)
    with pytest.raises(FileFormatError, match=message):
        estimate(Program(tuple(code)), TARGET)


def test_stretches_that_overlap_are_counted(monkeypatch: Any) -> None:
    """Each is compared with all."""
    monkeypatch.setattr(scoreboard, "MOST_PAIRS", 10_000)
    wide = [
        op(
            "unary",
            function="exp",
            dst=ViewRef(number, 0, 0, 1),
            a=ViewRef(0, 0, 0, 1),
            groups=1,
            columns=4096,
            rows=TOKENS,
        )
        for number in range(200)
    ]
    with pytest.raises(FileFormatError, match=r"\d+ stretches of the LMU that overlap: too many to estimate"):
        estimate(Program((*wide, HALT)), TARGET)


def test_stretches_in_use_are_counted(monkeypatch: Any) -> None:
    monkeypatch.setattr(inspection, "_MOST_STRETCHES", 1000)
    code = [*[ADD] * 100, HALT]
    function = {"start": 0, "stop": len(code)}
    lives = [(number // 2, 100, number, number + 1) for number in range(100)]
    with pytest.raises(FileFormatError, match=r"\d+ stretches of the LMU in use: too many to add up"):
        inspection._collect(code, function, lives, {0: {}}, {}, 0)


# ---------------------------------------------------------------------------------------------------- modules
def attribute(text: str) -> str:
    return f"builtin.module attributes {{x = {text}}} {{}}"


DEEP = {
    "regions": lambda depth: "builtin.module {" * depth + "}" * depth,
    "generic regions": lambda depth: '"builtin.module"() ({' * depth + "^bb0:" + "}) : () -> ()" * depth,
    "arrays": lambda depth: attribute("[" * depth + "]" * depth),
    "objects": lambda depth: attribute("{y = " * depth + "1 : i32" + "}" * depth),
    "types": lambda depth: attribute("tuple<" * depth + "i32" + ">" * depth),
    "functions": lambda depth: attribute("(" * depth + ") -> ()" * depth),
    "parentheses": lambda depth: attribute(f"affine_map<(d0) -> ({'(' * depth}d0{')' * depth})>"),
    "signs": lambda depth: attribute(f"affine_map<(d0) -> ({'-' * depth}d0)>"),
    "sums": lambda depth: attribute(f"affine_map<(d0) -> ({'d0 floordiv 2 + ' * depth}d0)>"),
    "after a string": lambda depth: attribute('["}", ' + "[" * depth + "]" * depth + "]"),
    "after a comment": lambda depth: attribute("[ // }]\n" + "[" * depth + "]" * depth + "]"),
}


@pytest.mark.parametrize("case", DEEP)
def test_depth_of_a_module(case: str) -> None:
    """What is read is also printed, verified and copied; what is deeper is one line."""
    module = parse_module(DEEP[case](25))
    module.verify()
    print_module(module.clone())
    for depth in (65, 400, 100_000):
        with pytest.raises(PassError, match=r"t: nested too deeply at line \d+, column \d+, the most is 64$"):
            parse_module(DEEP[case](depth), "t")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("9" * 5000 + " : i32", "a number of 5000 digits at line 1"),
        ("0x" + "f" * 5000 + " : i32", "a number of 5002 digits at line 1"),
        (f"tensor<{'9' * 5000}xf32>", "a number of 500. digits at line 1"),
        (f"tensor<{'?x' * 9}f32>", "9 dimensions, the most is 8"),
        (f"vector<{'1 x ' * 9}f32>", "9 dimensions, the most is 8"),
        (f"memref<{'1x' * 9}f32>", "9 dimensions, the most is 8"),
        ("dense<5> : tensor<200000x1000xi8>", "dense attributes of 200000000 elements, the most of a text is 262144"),
        (
            'dense<"0xFF"> : tensor<9999999999xi8>',
            "dense attributes of 9999999999 elements, the most of a text is 262144",
        ),
    ],
)
def test_numbers_of_a_module(text: str, message: str) -> None:
    with pytest.raises(PassError, match=message):
        parse_module(attribute(text))
