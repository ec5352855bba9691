"""The tables of handlers and emitters are complete; an instruction from outside has its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from support.programs.machine_programs import LMU_WORDS, WIDTH, embed, layout, lmu, memory_map, op, parameter

from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.machine import Machine
from hyperdex_ir.interpreter.state import HANDLERS, State, executes
from hyperdex_ir.isa.handlers import Handlers
from hyperdex_ir.isa.instructions import BY_NAME, SPECS, TOKENS, Spec
from hyperdex_ir.isa.operands import LmuRef
from hyperdex_ir.isa.program import Program
from hyperdex_ir.native.code_cache import native_key
from hyperdex_ir.native.codegen import native_module
from hyperdex_ir.native.emit import F32
from hyperdex_ir.native.features import host_features
from hyperdex_ir.native.machine import NativeMachine
from hyperdex_ir.native.operation import EMITTERS, EXTRAS, FIRST_EXTRA, Operation, emits, emits_extra
from hyperdex_ir.support import own_code
from hyperdex_ir.support.own_code import foreign_digest


# ---------------------------------------------------------------------------------------------------- tables
@pytest.mark.parametrize("table", [HANDLERS, EMITTERS], ids=["interpreter", "native"])
def test_each_instruction_has_one_and_each_is_of_an_instruction(table: Handlers[Any]) -> None:
    table.check()
    assert set(table) == {spec.name for spec in SPECS}


def test_operations_have_numbers_of_their_own() -> None:
    assert all(EMITTERS[spec.name].number == spec.opcode < FIRST_EXTRA for spec in SPECS)
    assert {name: item.number for name, item in EXTRAS.items()} == {"head_loop": FIRST_EXTRA}


def test_one_that_is_missing_surplus_or_there_twice() -> None:
    table: Handlers[int] = Handlers("toy")
    with pytest.raises(ValueError, match=r"^no toy for embed, gather, load"):
        table.check()
    for name in BY_NAME:
        table.add(name, 0)
    table.check()
    with pytest.raises(ValueError, match=r"^a second toy for load$"):
        table.add("load", 1)
    table.add("spin", 0)
    table.add("turn", 0)
    with pytest.raises(ValueError, match=r"^a toy for spin, turn: not in the instruction table$"):
        table.check()


def test_names_of_operations_stand_once() -> None:
    with pytest.raises(ValueError, match="a second handler of the interpreter for load"):
        executes("load")(lambda state, values: None)
    with pytest.raises(ValueError, match="a second emitter of the native executor for head_loop"):
        emits_extra("head_loop", ["count"])(lambda operation: None)


# ---------------------------------------------------------------------------------------------------- from outside
def shift(s: State, v: Mapping[str, Any]) -> None:
    """Adds R[first] to each number."""
    rows = s.rows(v["rows"])
    s.write_rows(v["dst"], s.read_rows(v["src"], rows, v["columns"]) + np.float32(s.register(v["first"])))


def emit_shift(op: Operation) -> None:
    e = op.e
    rows, columns, number = op.rows(), op.immediate("columns"), op.register("first")
    src, dst = op.lmu("src", rows, columns), op.lmu("dst", rows, columns)
    added = e.builder.sitofp(number, F32)
    begin, end = op.share(rows)
    with e.loop(begin, end) as row, e.loop(0, columns) as column:
        y = e.fadd(e.load(e.element(src.row(row), column, F32), F32), added)
        op.watch(y)
        e.store(y, e.element(dst.row(row), column, F32))


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spec]:
    """An instruction `shift`, with the operands of select_rows; without a meaning."""
    spec = replace(BY_NAME["select_rows"], name="shift", opcode=0xEE)
    monkeypatch.setitem(BY_NAME, spec.name, spec)
    yield spec
    for table in (HANDLERS, EMITTERS):
        table.pop(spec.name, None)


def programs() -> list[Program]:
    """One without the instruction, one with it."""
    operands = {"dst": LmuRef(0, WIDTH), "src": LmuRef(0, WIDTH), "first": TOKENS, "columns": WIDTH, "rows": 1}
    return [Program((embed(), op("halt"))), Program((embed(), op("shift", **operands), op("halt")))]


def made(kind: Callable[..., Any], program: Program, **options: Any) -> Any:
    hbm = Hbm.from_parameters(memory_map(), layout(), parameter)
    return kind(program, hbm, chunk=4, lmu_words=LMU_WORDS, **options)


def test_machines_are_not_made_without_it(added: Spec) -> None:
    plain, _ = programs()
    for kind, missing in (
        (Machine, "no handler of the interpreter"),
        (NativeMachine, "no emitter of the native executor"),
    ):
        with pytest.raises(ValueError, match=f"^{missing} for shift$"):
            made(kind, plain)
    with pytest.raises(ValueError, match="no emitter of the native executor for shift"):
        native_module(host_features())


@pytest.mark.slow
def test_both_machines_run_it(added: Spec) -> None:
    """Also one that has made machines before: code that was generated without it does not count."""
    key = native_key(host_features())
    executes(added.name)(shift)
    emits(added.name)(emit_shift)
    assert native_key(host_features()) != key
    plain, program = (made(Machine, one) for one in programs())
    native = made(NativeMachine, programs()[1], threads=2)
    for machine in (plain, program, native):
        machine.run([1, 5, 39], 0, 2)
    expected = lmu(plain, 0, 3, WIDTH) + np.float32(3)
    assert lmu(program, 0, 3, WIDTH).tobytes() == expected.tobytes()
    assert native.lmu(0, 3, WIDTH).tobytes() == expected.tobytes()
    native.close()


def test_the_key_of_code_is_that_of_all_emitters(added: Spec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keys = [native_key(host_features())]

    def register(**options: Any) -> None:
        EMITTERS.pop(added.name, None)
        emits(added.name, **options)(emit_shift)
        keys.append(native_key(host_features()))

    register()
    register(barrier=False)
    monkeypatch.setitem(BY_NAME, added.name, replace(added, opcode=0xEF))
    register()
    monkeypatch.setitem(BY_NAME, added.name, replace(added, operands=added.operands[::-1]))
    register()
    for source in ("a = 1", "a = 2"):
        (tmp_path / "emitters.py").write_text(source)
        monkeypatch.setattr(sys.modules[__name__], "__file__", str(tmp_path / "emitters.py"))
        register()
    assert len(set(keys)) == len(keys) == 7
    register()
    assert keys[-1] == keys[-2]
    del EMITTERS[added.name]
    assert native_key(host_features()) == keys[0]


def test_code_in_no_file_is_that_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "typed", ModuleType("typed"))
    first = foreign_digest(["typed"])
    assert first == foreign_digest(["typed"]) != ""
    monkeypatch.setattr(own_code, "_SESSION", "another")
    assert foreign_digest(["typed"]) != first
    assert foreign_digest(["hyperdex_ir.native.emit", "xdsl.ir"]) == ""
