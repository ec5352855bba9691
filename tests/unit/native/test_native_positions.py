"""Attention at the last positions that an instruction counts, and beyond: the same on the native executor and the
interpreter."""

from __future__ import annotations

import numpy as np
import pytest
from support.programs.kernels import WORDS, assert_same, engine, new_hbm, numbers, run
from support.programs.machine_programs import attention, loop, op

from hyperdex_ir.isa.instructions import POSITION
from hyperdex_ir.isa.operands import HbmRef, LmuRef
from hyperdex_ir.isa.program import Instruction, Program
from hyperdex_ir.native.attention.heads import find_head_loops

HALT = op("halt")
LAST = (1 << 31) - 1
WORDS_BEFORE = numbers(np.random.default_rng(9), (WORDS,), False)


def far(position: int, bf16: int) -> list[Instruction]:
    """scores at a position that no cache holds, of keys without elements; their columns are the LMU's first words."""
    first = max(0, position - 2)
    scores = attention("scores", dst=LmuRef(100, 20, 20), size=0, window=3, slope=HbmRef(64), bf16_bias=bf16, scale=1.0)
    return [op("set", dst=POSITION, value=position), op("set", dst=20, value=-first), scores]


@pytest.mark.parametrize("bf16", [0, 1])
@pytest.mark.parametrize("position", [LAST - 2, LAST - 1, LAST, 1 << 31, (1 << 31) + 4096, (1 << 32) + 8, 1 << 40])
def test_positions_end_at_the_same_place(position: int, bf16: int) -> None:
    assert_same([*far(position, bf16), HALT], WORDS_BEFORE, 2)


def test_the_last_position_counts_not_the_first() -> None:
    machine = engine([*far(LAST - 1, 1), *far(LAST, 1), HALT], new_hbm(np.random.default_rng(7)), WORDS_BEFORE)
    outside = f"positions {LAST} to {LAST + 1}, they go from 0 to {LAST}"
    assert run(machine, 2) == f"instruction 5 (scores): {outside}"
    machine.close()


@pytest.mark.parametrize("position", [LAST - 1, LAST, (1 << 31) + 4096, (1 << 40) - 300])
def test_a_loop_over_heads_far_away(position: int) -> None:
    """Its keys and values have no elements; so nothing but the position ends the step."""
    slope, *_ = far(position, 1)[2:]
    table, common = LmuRef(100, 20, 20), {"window": 3, "rows": 1}
    body = [
        slope,
        attention("softmax", dst=table, src=table, **common),
        attention("values", dst=LmuRef(6000, 0), src=table, size=0, limit=(1 << 32) - 1, **common),
    ]
    code = [*far(position, 1)[:2], *loop(body, 2), HALT]
    assert find_head_loops(Program(tuple(code)))
    assert_same(code, WORDS_BEFORE, 2)
