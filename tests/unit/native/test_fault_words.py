"""Machine faults have one text each, for both machines, and both are compared on every kind."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.programs.exchanges import OWN
from support.programs.fault_texts import named_fault
from support.programs.machine_programs import machine
from test_native_machine import FAULTS, HALT, outcome
from test_native_net import PROGRAMS
from test_native_net import outcome as ring_outcome

import hyperdex_ir
from hyperdex_ir.isa.faults import MACHINE_FAULTS, Fault, Forbidden
from hyperdex_ir.isa.instructions import BY_NAME, SPECS
from hyperdex_ir.native import faults
from hyperdex_ir.native.context import FAULT_NUMBERS

MACHINES = [
    path
    for name in ("interpreter", "native")
    for path in sorted((Path(hyperdex_ir.__file__).parent / name).rglob("*.py"))
]
#: Modules of the native executor that do not write code.
HOST = ("faults.py", "machine.py", "mapped_hbm.py")
#: Its example takes a machine of its own: `test_the_budget`, in the tests of either machine.
ELSEWHERE = {Fault.BUDGET}
#: Found by the interpreter only.
UNWRITTEN = {Fault.LMU_UNWRITTEN, Fault.HBM_UNWRITTEN, Fault.CACHE_UNWRITTEN}
UNWRITTEN_CACHE = {(name, Fault.CACHE_UNWRITTEN) for name in ("scores", "values")}


def words_in_errors(path: Path) -> Iterator[str]:
    """The literal texts with words in what a module makes a MachineFault or a Forbidden of."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("MachineFault", "Forbidden", "self._fault"):
            texts = [inner.value for inner in ast.walk(node) if isinstance(inner, ast.Constant)]
            yield from (text for text in texts if isinstance(text, str) and " " in text and re.search(r"\w", text))


def test_the_machines_have_no_words_of_their_own() -> None:
    assert len(MACHINES) > 60
    assert {path: found for path in MACHINES if (found := list(words_in_errors(path)))} == {}


def compiled_kinds() -> set[Fault]:
    """The kinds that compiled code gives."""
    modules = [path for path in MACHINES if "native" in path.parts and path.name not in HOST]
    return {Fault[name] for path in modules for name in re.findall(r"\bFault\.([A-Z_]+)", path.read_text())}


@pytest.mark.slow
def test_both_machines_are_compared_on_every_kind() -> None:
    assert compiled_kinds() > {Fault.ROWS, Fault.NO_HALT, Fault.MESSAGE}
    assert compiled_kinds() - {kind for _, kind in examples()} == ELSEWHERE


def examples() -> set[tuple[str, Fault]]:
    """Instructions and kinds of the faults that tests of either machine compare with the other's."""
    texts = [outcome(machine(*code, HALT)) for code in FAULTS.values()]
    texts += [str(ring_outcome((*OWN, *code), "iii")[0]) for code in PROGRAMS.values()]
    return {named for text in texts if (named := named_fault(text)) is not None}


@pytest.mark.slow
def test_entries_list_what_the_machines_raise() -> None:
    """Of the kinds that do not follow from operands, each of each instruction, and no other, is raised."""
    raised = {(name, kind) for name, kind in examples() if kind not in MACHINE_FAULTS}
    assert {(name, kind) for name, kind in raised if kind not in BY_NAME[name].faults} == set()
    own = {(spec.name, kind) for spec in SPECS for kind in spec.own_faults}
    assert {(name, kind.name) for name, kind in own - raised} == {(name, kind.name) for name, kind in UNWRITTEN_CACHE}
    listed = {kind for spec in SPECS for kind in spec.faults}
    assert listed - UNWRITTEN == compiled_kinds() - set(MACHINE_FAULTS)


@pytest.mark.parametrize("kind", sorted(compiled_kinds()), ids=lambda kind: kind.name)
def test_compiled_code_gives_the_numbers_that_the_words_need(kind: Fault) -> None:
    """The numbers behind them are of an earlier fault and have no say."""
    count = faults.number_count(kind)
    assert count <= FAULT_NUMBERS
    assert faults.message(kind, [1] * FAULT_NUMBERS) == faults.message(kind, [1] * count)


def test_a_fault_needs_its_numbers() -> None:
    assert str(Forbidden(Fault.LMU, first=3, last=5, words=4)) == "LMU words 3 to 5, it has 4"
    with pytest.raises(KeyError, match="words"):
        Forbidden(Fault.LMU, first=3, last=5)
