"""Every instruction on random operands: the native executor leaves the interpreter's bits, flag, registers and faults.

Numbers of every kind, NaNs among them, and every set of vector instructions; `test_engine_hostile.py` has the counts.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support.programs.both_machines import interpreted, native
from support.programs.choose import Drawn, examples
from support.programs.fault_texts import check_listed
from support.programs.instruction_case import Case
from support.programs.instruction_cases import MAKERS, make_case

from hyperdex_ir.isa.instructions import SPECS, Group
from hyperdex_ir.native.features import VARIABLE, available, host_features

pytestmark = pytest.mark.slow

NAMES = tuple(sorted(MAKERS))
#: Examples of each instruction and of several; with fewer vector instructions than the computer has, a third of them.
ONE, SEVERAL = (10, 50) if VARIABLE in os.environ else (30, 150)


@st.composite
def cases(draw: st.DrawFn, names: tuple[str, ...], most: int) -> Case:
    return make_case(Drawn(draw), names, most)


def check(case: Case, threads: int) -> None:
    expected = interpreted(case)
    check_listed(expected.error)
    assume(not expected.is_untracked)
    assert native(case, threads).differences(expected) == ""


def test_every_instruction_but_control_has_a_maker() -> None:
    assert {spec.name for spec in SPECS if spec.group is not Group.CTRL} == set(NAMES) - {"head_loop"}


@pytest.mark.parametrize("name", NAMES)
def test_one_instruction(name: str) -> None:
    @examples(ONE, 300)
    @given(case=cases((name,), 1), threads=st.integers(1, 3))
    def compare(case: Case, threads: int) -> None:
        check(case, threads)

    compare()


@examples(SEVERAL, 2000)
@given(case=cases(NAMES, 6), threads=st.integers(1, 3))
def test_several_instructions(case: Case, threads: int) -> None:
    check(case, threads)


@pytest.mark.parametrize("name", [item.name for item in available()])
def test_with_fewer_vector_instructions(name: str) -> None:
    """Each set of features that this computer has, in a process of its own."""
    if name == host_features().name:
        pytest.skip("the tests above have used it")
    only = [__file__, "-k", "one_instruction or several", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", *only]
    done = subprocess.run(command, env={**os.environ, VARIABLE: name}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
