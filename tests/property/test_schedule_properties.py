"""Reordering keeps every dependence and every result, whatever the rule, on random `isa` functions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SOAK
from support.programs.machine_programs import (
    HEADS,
    LENGTH,
    LMU_WORDS,
    SIZE,
    VOCAB,
    WIDTH,
    layout,
    memory_map,
    parameter,
)
from xdsl.dialects.builtin import IntegerAttr, ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation

from hyperdex_ir.dialects.isa import BufferOp, InstructionOp, RepeatOp, buffer_type
from hyperdex_ir.dialects.isa_program import to_program
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.machine import Machine
from hyperdex_ir.passes.isa_order import RULES
from hyperdex_ir.passes.isa_schedule import orders_of, reorder, schedule_module
from hyperdex_ir.performance.estimate import estimate
from hyperdex_ir.support.xdsl import check_module, parse_module, print_module
from hyperdex_ir.targets import load_target

pytestmark = pytest.mark.slow

settings.register_profile("schedule", max_examples=1000 if SOAK else 60, deadline=None)
PROFILE = settings.get_profile("schedule")
BUFFERS = ("a", "b", "c", "d")
TOKENS, POSITION = [3, 1, 4], 2

_MAP = memory_map()
_KEYS = _MAP.kv_start + _MAP.main.caches[0].key_offset
_VALUES = _MAP.kv_start + _MAP.main.caches[0].value_offset
_CACHE = f"heads={HEADS} size={SIZE} limit={LENGTH} type=f16 rows=tokens"


def _prologue() -> Iterator[str]:
    """Everything is written once, so that nothing that follows can fault."""
    yield "isa.set dst=r8 value=1"
    yield "isa.set dst=r9 value=0"
    for name in BUFFERS:
        yield f"%{name} = isa.buffer : !isa.lmu<tokens x {WIDTH}>"
        yield (
            f"isa.embed dst=%{name} table=hbm[{_MAP.addresses['embedding']}] index=token ids=hbm[{_MAP.tokens}]"
            f" limit={VOCAB} columns={WIDTH} type=f16 rows=tokens"
        )
    yield f"%s = isa.buffer : !isa.lmu<tokens x {LENGTH}>"
    yield from (_store("key", "a"), _store("value", "b"), _scores("c"))


def _store(kind: str, source: str) -> str:
    address, pitch = (
        (_KEYS, _MAP.main.caches[0].key_pitch) if kind == "key" else (_VALUES, _MAP.main.caches[0].value_pitch)
    )
    return f"isa.store_{kind} cache=hbm[{address}] pitch={pitch} src=%{source} {_CACHE}"


def _scores(query: str) -> str:
    return f"isa.scores dst=%s query=%{query} cache=hbm[{_KEYS}] size={SIZE} scale=0.25 window=1 type=f16 rows=tokens"


def _epilogue() -> Iterator[str]:
    """Everything that a buffer holds goes where the test can see it."""
    for number, name in enumerate(BUFFERS):
        yield (f"isa.store dst=hbm[{_MAP.logits + number * 4096}] pitch=400 src=%{name} columns={WIDTH} rows=tokens")


_BUFFER = st.sampled_from(BUFFERS)
_OFFSET = st.integers(0, 30)


@st.composite
def _work(draw: st.DrawFn) -> str:
    a, b, c = draw(_BUFFER), draw(_BUFFER), draw(_BUFFER)
    i, j, columns = draw(_OFFSET), draw(_OFFSET), draw(st.integers(1, 20))
    kind = draw(
        st.sampled_from(
            ["unary", "offset", "binary", "reduce", "matmul", "epilogue", "embed", "key", "value", "attend", "count"]
        )
    )
    match kind:
        case "unary":
            return f"isa.unary function=neg dst=%{a}[{i}] a=%{b}[{j}, column 2] columns={columns} rows=tokens"
        case "offset":
            return f"isa.unary function=tanh dst=%{a}[r9] a=%{b}[{j} + r9] columns={columns} rows=tokens"
        case "binary":
            return (
                f"isa.binary function=max dst=%{a}[{i}, group 20] a=%{b}[{j}, group 20] b=%{c}[row 0] groups=2"
                f" columns={columns} rows=tokens"
            )
        case "reduce":
            return f"isa.reduce function=row_max dst=%{a}[{i}] a=%{b}[{j}] columns={columns} rows=tokens"
        case "matmul" | "epilogue":
            plus = f" plus=%{c}" if kind == "epilogue" else ""
            weight = _MAP.addresses["matrix"]
            return (
                f"isa.matmul dst=%{a} src=%{b} weight=hbm[{weight}] k={WIDTH} n={WIDTH} type=f16 scale=0.125{plus}"
                " rows=tokens"
            )
        case "embed":
            return (
                f"isa.gather dst=%{a}[{i}] table=hbm[{_MAP.addresses['table']}] index=position"
                f" ids=hbm[{_MAP.tokens}] limit={LENGTH} columns=8 rows=tokens"
            )
        case "key" | "value":
            return _store(kind, a)
        case "attend":
            values = (
                f"isa.values dst=%{a} src=%s cache=hbm[{_VALUES}] size={SIZE} limit={LENGTH} window=1 type=f16"
                " rows=tokens"
            )
            return f"{_scores(b)}\n{values}"
    return f"isa.add dst=r9 a=r8 b=zero value={draw(st.integers(0, 15))}"


@st.composite
def modules(draw: st.DrawFn) -> str:
    """The text of a module with random work on four buffers, some of it in a repeat."""
    lines = [*_prologue(), *draw(st.lists(_work(), min_size=2, max_size=10))]
    if draw(st.booleans()):
        lines += ["isa.repeat 2 {", *draw(st.lists(_work(), min_size=1, max_size=3)), "}"]
        lines += draw(st.lists(_work(), max_size=3))
    body = "\n".join([*lines, *_epilogue(), "func.return"])
    attributes = f'"lpu.target" = "u55c", "lpu.max_length" = {LENGTH} : i64'
    return f"builtin.module attributes {{{attributes}}} {{\nfunc.func @main() {{\n{body}\n}}\n}}"


# ---------------------------------------------------------------------------------------------------- checking
def _cells(op: Operation) -> tuple[set[Any], set[Any]]:
    """Every single thing that an operation reads and that it writes, by name: words, registers, areas of HBM."""
    reads: set[Any] = set()
    writes: set[Any] = set()
    for inner in op.walk():
        if isinstance(inner, InstructionOp):
            _add_cells(inner, reads, writes)
    return reads, writes


def _add_cells(op: InstructionOp, reads: set[Any], writes: set[Any]) -> None:
    name = op.spec().name
    for operand, use in op.uses():
        cells = writes if operand == "dst" else reads
        columns = range(buffer_type(use.buffer).width)
        if (name, operand) in (("scores", "query"), ("values", "dst")):
            columns = range(SIZE)
        elif not use.register and name not in ("scores", "values", "softmax"):
            columns = _columns(op, operand, use)
        cells |= {(use.buffer, column) for column in columns}
        reads.add(("register", use.register))
    if name in ("set", "add"):
        writes.add(("register", op.operand("dst")))
    if name == "add":
        reads |= {("register", op.operand("a")), ("register", op.operand("b"))}
    writes |= {("cache", name)} if name in ("store_key", "store_value") else set()
    reads |= {("cache", {"scores": "store_key", "values": "store_value"}.get(name))}


def _columns(op: InstructionOp, operand: str, use: Any) -> list[int]:
    """The columns that an operand touches, one by one."""
    values = op.values()
    if "groups" not in values:
        sizes = {"matmul": WIDTH, "store_key": HEADS * SIZE, "store_value": HEADS * SIZE}
        count = sizes.get(op.spec().name) or values["columns"]
        return [use.offset + column for column in range(count)]
    count = 1 if op.spec().name == "reduce" and operand == "dst" else values["columns"]
    groups = range(values["groups"])
    return [use.offset + g * use.group_stride + c * use.column_stride for g in groups for c in range(count)]


def find_broken(old: list[Operation], new: list[Operation]) -> list[str]:
    """Every dependence between operations of the old order that the new one breaks."""
    place = {op: number for number, op in enumerate(new)}
    cells = {op: _cells(op) for op in old}
    broken = []
    for number, first in enumerate(old):
        for second in old[number + 1 :]:
            (reads, writes), (later_reads, later_writes) = cells[first], cells[second]
            if place[first] > place[second] and (writes & (later_reads | later_writes) or reads & later_writes):
                broken.append(f"{first.name} and {second.name}")
    return broken


def _run(module: ModuleOp) -> bytes:
    """All that the epilogue stored."""
    hbm = Hbm.from_parameters(memory_map(), layout(), parameter)
    machine = Machine(to_program(module, chunk=4, head_rows=1), hbm, chunk=4, lmu_words=LMU_WORDS)
    machine.run(TOKENS, POSITION, 0)
    rows = [
        hbm.read(_MAP.logits + number * 4096 + row * 400, (WIDTH,), np.float32)
        for number in range(4)
        for row in range(3)
    ]
    return np.stack(rows).tobytes()


def _main(module: ModuleOp) -> FuncOp:
    (function,) = module.ops
    assert isinstance(function, FuncOp)
    return function


@PROFILE
@given(modules())
def test_reordering_keeps_dependences_and_results(text: str) -> None:
    given = parse_module(text)
    expected = _run(given)
    for rule in RULES:
        module = given.clone()
        old = orders_of(_main(module))
        reorder(old, rule, load_target("u55c"), LENGTH - 1)
        check_module(module)
        for before in old:
            after = list(before.block.ops)
            assert sorted(map(id, before.ops)) == sorted(map(id, after))
            assert find_broken([op for op in before.ops if not isinstance(op, BufferOp)], after) == []
        assert _run(module) == expected, rule
    _check_pass(given, expected)


def _check_pass(module: ModuleOp, expected: bytes) -> None:
    """The pass keeps the results and makes nothing worse, not even what it has made."""
    result = schedule_module(module)
    assert result is not None
    assert result.after <= result.before
    assert module.attributes["isa.cycles"] == IntegerAttr(result.after, 64)
    once = print_module(module)
    assert _run(module) == expected
    assert schedule_module(module) is not None
    again = print_module(module)
    assert _body(again) == _body(once) or module.attributes["isa.cycles"].value.data < result.after


def _body(text: str) -> str:
    return text.split("\n", 1)[1]


@PROFILE
@given(modules(), st.integers(1, 40), st.integers(0, LENGTH - 1))
def test_trips_that_are_added_up_count_as_those_that_run(text: str, count: int, position: int) -> None:
    """A repeat costs as much as its body written out, but for the word that says so."""
    module = parse_module(text)
    for op in list(_main(module).walk()):
        if isinstance(op, RepeatOp):
            op.properties["trip_count"] = IntegerAttr(count, 64)
    program = to_program(module, chunk=4, head_rows=1)
    body = next((i for i, item in enumerate(program.instructions) if item.name == "repeat"), None)
    if body is None:
        return
    length = program.instructions[body]["length"]
    assert isinstance(length, int)
    inside = program.instructions[body + 1 : body + 1 + length]
    unrolled = [*program.instructions[:body], *inside * count, *program.instructions[body + 1 + length :]]
    target = load_target("u55c")
    whole = estimate(type(program)(tuple(unrolled)), target, position=position)
    folded = estimate(program, target, position=position)
    assert abs(folded.cycles - whole.cycles) <= 1
    assert folded.weight_stripes == whole.weight_stripes
    assert folded.cache_stripes == whole.cache_stripes


def test_what_a_repeat_wrote_is_ready_after_its_last_trip() -> None:
    """Also for an engine that the repeat does not use."""
    before = 'builtin.module attributes {lpu.target = "u55c", lpu.max_length = 100 : i64} {\nfunc.func @main() {\n'
    body = "isa.unary function=neg dst=%a a=%a columns=70 rows=tokens\n" * 2
    body += "isa.unary function=neg dst=%b a=%a columns=70 rows=tokens\n"
    text = f"""{before}%a = isa.buffer : !isa.lmu<tokens x 70>
        %b = isa.buffer : !isa.lmu<tokens x 70>
        isa.embed dst=%a table=hbm[0] index=token ids=hbm[86016] limit=40 columns=70 type=f16 rows=tokens
        BODY
        isa.matmul dst=%b src=%a weight=hbm[12288] k=70 n=70 type=f16 rows=tokens
        func.return }} }}"""
    texts = [text.replace("BODY", choice) for choice in (f"isa.repeat 9 {{\n{body}}}", body * 9)]
    programs = [to_program(parse_module(choice), chunk=4, head_rows=1) for choice in texts]
    folded, whole = (estimate(program, load_target("u55c"), position=0).cycles for program in programs)
    assert abs(folded - whole) <= 1


def test_the_checker_sees_broken_orders() -> None:
    module = parse_module(
        "func.func @main() {\n%a = isa.buffer : !isa.lmu<tokens x 8>\n%b = isa.buffer : !isa.lmu<tokens x 8>\n"
        "isa.load dst=%a src=hbm[0] columns=8\nisa.unary function=neg dst=%b a=%a columns=8 rows=tokens\n"
        "isa.load dst=%a[4] src=hbm[0] columns=4\nfunc.return\n}"
    )
    a, b, load, neg, again, end = _main(module).body.block.ops
    assert find_broken([load, neg, again], [a, b, load, neg, again, end]) == []
    assert len(find_broken([load, neg, again], [neg, load, again])) == 1
    assert len(find_broken([load, neg, again], [load, again, neg])) == 1
