"""Every instruction on random operands: the native executor leaves the interpreter's bits, flag, registers and faults.

Numbers of every kind, NaNs among them, and every set of vector instructions; `test_native_hostile.py` has the counts.
"""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support.programs.both_machines import Start, interpreted, native
from support.programs.choose import Drawn, examples
from support.programs.fault_texts import check_listed
from support.programs.instruction_case import Case
from support.programs.instruction_cases import MAKERS, make_case

from hyperdex_ir.isa.instructions import SPECS, Group
from hyperdex_ir.native.features import available

pytestmark = pytest.mark.slow

NAMES = tuple(sorted(MAKERS))
#: The sets of vector instructions that this computer has: each example runs on all of them.
SETS = available()


@st.composite
def cases(draw: st.DrawFn, names: tuple[str, ...], most: int) -> Case:
    return make_case(Drawn(draw), names, most)


def check(case: Case, threads: int) -> None:
    start = Start(case)
    expected = interpreted(case, start)
    check_listed(expected.error)
    assume(not expected.is_untracked)
    for features in SETS:
        assert native(case, threads, features, start).differences(expected) == "", features.name


def test_every_instruction_but_control_has_a_maker() -> None:
    assert {spec.name for spec in SPECS if spec.group is not Group.CTRL} == set(NAMES) - {"head_loop"}


@pytest.mark.parametrize("name", NAMES)
def test_one_instruction(name: str) -> None:
    @examples(20, 300)
    @given(case=cases((name,), 1), threads=st.integers(1, 3))
    def compare(case: Case, threads: int) -> None:
        check(case, threads)

    compare()


@examples(100, 2000)
@given(case=cases(NAMES, 6), threads=st.integers(1, 3))
def test_several_instructions(case: Case, threads: int) -> None:
    check(case, threads)
