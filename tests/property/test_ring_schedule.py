"""Reordering what sends and receives keeps every result on every device, on random `isa` functions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.programs.machine_programs import LENGTH, LMU_WORDS, WIDTH, layout, memory_map, parameter
from test_schedule_properties import BUFFERS, POSITION, PROFILE, TOKENS
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp

from hyperdex_ir.dialects.isa_program import to_program
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.link import in_memory_links
from hyperdex_ir.interpreter.machine import Machine
from hyperdex_ir.passes.isa_order import RULES
from hyperdex_ir.passes.isa_schedule import orders_of, reorder, schedule_module
from hyperdex_ir.performance.estimate import estimate
from hyperdex_ir.runtime.ring import Ring
from hyperdex_ir.support.xdsl import check_module, parse_module
from hyperdex_ir.targets import load_target

pytestmark = pytest.mark.slow

DEVICES, PITCH, HALF = 3, 20, 10
_MAP = memory_map()
_BUFFER = st.sampled_from(BUFFERS)
_FIRST = st.sampled_from([0, HALF])


def _begin() -> list[str]:
    """Every device fills every buffer with numbers of its own."""
    lines = [f"isa.multiply dst=r16 a=device value={PITCH}"]
    for name in BUFFERS:
        lines += [
            f"%{name} = isa.buffer : !isa.lmu<tokens x {WIDTH}>",
            f"isa.embed dst=%{name} table=hbm[{_MAP.addresses['embedding']}] index=token ids=hbm[{_MAP.tokens}]"
            f" limit=40 columns={WIDTH} type=f16 rows=tokens",
            f"isa.select_columns dst=%{name} src=%{name} index=device columns={PITCH} limit={WIDTH} rows=tokens",
        ]
    return lines


def _end() -> list[str]:
    return [
        f"isa.store dst=hbm[{_MAP.logits + number * 4096}] pitch=400 src=%{name} columns={WIDTH} rows=tokens"
        for number, name in enumerate(BUFFERS)
    ]


def _hop(buffer: str, hop: int, first: int, columns: int = HALF) -> list[str]:
    common = f"parts={DEVICES} pitch={PITCH} first={first} columns={columns} rows=tokens"
    return [
        f"isa.send src=%{buffer} hop={hop} {common}",
        f"isa.receive dst=%{buffer} hop={(hop + 1) % DEVICES} {common}",
    ]


@st.composite
def _work(draw: st.DrawFn) -> str:
    return "\n".join(draw(_works()))


@st.composite
def _works(draw: st.DrawFn) -> list[str]:
    a, b, first = draw(_BUFFER), draw(_BUFFER), draw(_FIRST)
    match draw(st.sampled_from(["own", "matmul", "vector", "hop", "gather", "two", "whole"])):
        case "own":
            copy = f"isa.unary function=neg dst=%{a}[{first} + r16] a=%{b}[{draw(st.integers(0, 30))}]"
            return [f"{copy} columns={HALF} rows=tokens"]
        case "matmul":
            weight = f"weight=hbm[{_MAP.addresses['matrix']}] k={WIDTH} n={HALF} type=f16 scale=0.125"
            return [f"isa.matmul dst=%{a}[{first} + r16] src=%{b} {weight} rows=tokens"]
        case "vector":
            return [f"isa.binary function=max dst=%{a} a=%{b} b=%{draw(_BUFFER)} columns={WIDTH} rows=tokens"]
        case "hop":
            return _hop(a, draw(st.integers(0, 2)), first)
        case "gather":
            return [*_hop(a, 0, first), *_hop(a, 1, first)]
        case "two":
            (send, receive), (other, answer) = _hop(a, 0, first), _hop(b, 0, HALF - first)
            return [send, other, receive, answer]
    return [*_hop(a, 0, 0, PITCH), *_hop(a, 1, 0, PITCH)]


@st.composite
def modules(draw: st.DrawFn) -> str:
    """The text of a module with random work, some of it in a repeat."""
    lines = [*_begin(), *draw(st.lists(_work(), min_size=2, max_size=8))]
    if draw(st.booleans()):
        lines += ["isa.repeat 2 {", *draw(st.lists(_work(), min_size=1, max_size=3)), "}"]
        lines += draw(st.lists(_work(), max_size=3))
    body = "\n".join([*lines, *_end(), "func.return"])
    attributes = f'"lpu.target" = "u55c", "lpu.max_length" = {LENGTH} : i64'
    return f"builtin.module attributes {{{attributes}}} {{\nfunc.func @main() {{\n{body}\n}}\n}}"


def _run(module: ModuleOp) -> bytes:
    """All that was stored on any device."""
    program = to_program(module, chunk=4, head_rows=1)
    links = in_memory_links(DEVICES)
    hbms = [Hbm.from_parameters(memory_map(), layout(), parameter) for _ in range(DEVICES)]
    machines = [
        Machine(program, hbm, chunk=4, lmu_words=LMU_WORDS, device=device, link=links[device])
        for device, hbm in enumerate(hbms)
    ]
    for machine in machines:  # the words that no part reaches are there too
        machine.state.lmu.forget = lambda: None
        machine.state.lmu.write(0, (LMU_WORDS, 1), np.zeros((1, LMU_WORDS), np.float32))
    Ring(machines, links).run(TOKENS, POSITION, 0)
    rows = [
        hbm.read(_MAP.logits + number * 4096 + row * 400, (WIDTH,), np.float32)
        for hbm in hbms
        for number in range(len(BUFFERS))
        for row in range(len(TOKENS))
    ]
    return np.stack(rows).tobytes()


@PROFILE
@given(modules())
def test_reordering_keeps_results_on_every_device(text: str) -> None:
    given = parse_module(text)
    expected = _run(given)
    for rule in RULES:
        module = given.clone()
        (function,) = module.ops
        assert isinstance(function, FuncOp)
        reorder(orders_of(function), rule, load_target("u55c"), LENGTH - 1)
        check_module(module)
        assert _run(module) == expected, rule
    _check_pass(given, expected)


def _check_pass(module: ModuleOp, expected: bytes) -> None:
    """The pass keeps the results and makes nothing worse."""
    result = schedule_module(module)
    assert result is not None
    assert result.after <= result.before
    assert _run(module) == expected
    program, target = to_program(module, chunk=1, head_rows=1), load_target("u55c")
    assert estimate(program, target).cycles <= estimate(program, target, overlap=False).cycles
