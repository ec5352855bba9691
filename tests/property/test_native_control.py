"""Control flow, random, valid or not: the native executor follows and refuses as the interpreter does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.programs.both_machines import Start, interpreted, native
from support.programs.choose import Drawn, examples
from support.programs.fault_texts import check_listed
from support.programs.instruction_case import OFFSET, ROWS, Case, make_control_case, op

from hyperdex_ir.isa.operands import ViewRef


@st.composite
def control_cases(draw: st.DrawFn) -> Case:
    return make_control_case(Drawn(draw))


@pytest.mark.slow
@examples(200, 20_000)
@given(case=control_cases(), threads=st.integers(1, 3))
def test_control_flow(case: Case, threads: int) -> None:
    start = Start(case)
    expected = interpreted(case, start)
    check_listed(expected.error)
    assert native(case, threads, start=start).differences(expected) == ""


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("factor", "layer"), [(1e36, 1), (1e15, 2), (1e12, 3), (1.0, None)])
def test_the_flag_names_the_first_layer(factor: float, layer: int | None, threads: int) -> None:
    """Each call multiplies what is about 1, until parts of it overflow, others a layer later."""
    case = Case("u55c", 4, 3, 0, 3, 0, 0, 64, "f16", 0, "plain", "plain")
    words = ViewRef(0, 200, 0, 1)
    scale = op("binary_scalar", function="mul", dst=words, a=words, b=factor, columns=200, rows=ROWS)
    start = len(case.program) - 1
    body = start + 4
    loop = [op("call", target=body), op("repeat", count=4, length=1), op("call", target=body), op("halt")]
    case.instructions = [*loop, op("add", dst=OFFSET, a=OFFSET, b=0, value=1), scale, op("ret")]
    expected = interpreted(case)
    assert (expected.flag.layer if expected.flag else None) == layer
    assert native(case, threads).differences(expected) == ""
