"""Programs whose estimate would fault, overflow, or go on for hours: one line, after bounded work."""

from __future__ import annotations

from typing import Any

import pytest
from support.programs.machine_programs import op

from hyperdex_ir.errors import FileFormatError
from hyperdex_ir.isa.codec import decode_program, encode_program
from hyperdex_ir.isa.operands import HbmRef, LmuRef
from hyperdex_ir.isa.program import Instruction
from hyperdex_ir.performance import estimate as estimates
from hyperdex_ir.performance.estimate import estimate
from hyperdex_ir.performance.scoreboard import MOST_PAIRS, Budget
from hyperdex_ir.targets import load_target

TARGET = load_target("u55c")
HALT = op("halt")
SEND = op("send", src=LmuRef(0, 0), hop=0, parts=2, pitch=0, columns=1, rows=1)
MATMUL = op("matmul", dst=LmuRef(0, 0), src=LmuRef(0, 0), weight=HbmRef(0), k=4194304, n=4194304, type="f16", rows=9)


def refused(code: list[Instruction], message: str, **options: Any) -> None:
    with pytest.raises(FileFormatError, match=message):
        estimate(decode_program(encode_program(code)), TARGET, **options)


@pytest.mark.parametrize(("name", "operand"), [("send", "src"), ("receive", "dst")])
def test_messages_of_no_parts(name: str, operand: str) -> None:
    item = op(name, **{operand: LmuRef(0, 0)}, hop=0, parts=0, pitch=0, columns=1, rows=1)
    refused([item, HALT], rf"instruction 0 \({name}\): 0 parts")


def deep(start: int, depth: int = 16) -> list[Instruction]:
    """A matrix in loops of r9 trips inside each other."""
    body = [MATMUL]
    for _ in range(depth):
        body = [op("repeat_rows", rows=9, length=len(body)), *body]
    return [op("set", dst=9, value=start), *body, HALT]


@pytest.mark.parametrize("rows", [(1 << 47) - 1, TARGET.lmu_words + 1, 0, -1])
def test_loops_over_rows_that_there_are_not(rows: int) -> None:
    refused(deep(rows), rf"instruction 1 \(repeat_rows\): {rows} rows")


@pytest.mark.parametrize("rows", [(1 << 47) - 1, TARGET.lmu_words + 1])
def test_more_rows_than_words(rows: int) -> None:
    refused([op("set", dst=9, value=rows), MATMUL, HALT], rf"instruction 1 \(matmul\): {rows} rows")


def test_cycles_that_no_machine_lives_to_see() -> None:
    refused(deep(TARGET.lmu_words, 3), "a step of 2\\^[0-9]+ cycles: too many to estimate")


def waiting(count: int) -> list[Instruction]:
    return [op("repeat", count=count, length=1), SEND, HALT]


def test_messages_that_wait_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each trip compares them with those before."""
    monkeypatch.setattr(estimates, "MOST_EXECUTED", 50_000)
    refused(waiting(5000), "too many to estimate")
    assert estimate(decode_program(encode_program(waiting(1000))), TARGET).executed == [1, 1000, 1]


def test_estimates_share_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    program, budget = decode_program(encode_program(waiting(500))), Budget()
    estimate(program, TARGET, budget=budget)
    used = budget.executed
    assert used > 1000
    estimate(program, TARGET, budget=budget)
    assert budget.executed == 2 * used
    assert budget.pairs > 0
    monkeypatch.setattr(estimates, "MOST_EXECUTED", 3 * used - 1)
    with pytest.raises(FileFormatError, match="too many to estimate"):
        estimate(program, TARGET, budget=budget)
    assert MOST_PAIRS <= 5_000_000
