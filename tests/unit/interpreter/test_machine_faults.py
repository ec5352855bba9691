"""What the machine forbids, each with its message; and the sticky flag."""

from __future__ import annotations

import re

import numpy as np
import pytest
from support.programs.machine_programs import (
    HEADS,
    LENGTH,
    LMU_WORDS,
    VOCAB,
    WIDTH,
    attention,
    embed,
    machine,
    memory_map,
    op,
    view,
)

from hyperdex_ir.errors import MachineFault
from hyperdex_ir.interpreter.step import NumericFault
from hyperdex_ir.isa.operands import HbmRef, LmuRef, ViewRef
from hyperdex_ir.isa.program import Instruction, Origin

HALT = op("halt")
END = memory_map().end


def copy(src: int, dst: int = 0, rows: int = 1, columns: int = WIDTH) -> Instruction:
    return op("unary", function="copy", dst=view(dst), a=view(src), columns=columns, rows=rows)


FAULTS = {
    "LMU read outside": (copy(LMU_WORDS - 10), rf"LMU words {LMU_WORDS - 10} to {LMU_WORDS + 199}, it has {LMU_WORDS}"),
    "LMU write outside": (embed(LMU_WORDS - 10), rf"LMU words {LMU_WORDS - 10} to"),
    "more elements than words": (
        op("unary", function="copy", dst=view(0), a=ViewRef(0, 0, 0, 0), columns=LMU_WORDS, groups=1, rows=1),
        f"an operand of {3 * LMU_WORDS} elements, the LMU has {LMU_WORDS} words",
    ),
    "LMU unwritten": (copy(300), "LMU word 300 is read, nothing has written it"),
    "HBM outside": (op("load", dst=LmuRef(0), src=HbmRef(END - 4), columns=2), f"HBM bytes {END - 4} to {END + 3}"),
    "HBM misaligned": (op("load", dst=LmuRef(0), src=HbmRef(2), columns=2), "HBM address 2 is not a multiple of 4"),
    "HBM unwritten": (
        op("load", dst=LmuRef(0), src=HbmRef(memory_map().logits), columns=2),
        "hold words that nothing has written",
    ),
    "store to the parameters": (
        op("store", dst=HbmRef(0), pitch=512, src=LmuRef(0, WIDTH), columns=8, rows=1),
        "HBM address 0 is a parameter's",
    ),
    "register never set": (op("add", dst=9, a=12, b=0), "register r12 is read, nothing has set it"),
    "register out of range": (op("set", dst=32, value=1), "register r32, there are 32"),
    "register overflow": (op("add", dst=1, a=1, b=1, value=1 << 63), "holds 64 bits"),
    "row count": (op("softmax", dst=LmuRef(0), src=LmuRef(0), rows=0), "register r0 says 0 rows"),
    "token outside": (embed(limit=3), "of a table of 3 rows"),
    "position outside": (embed(index="position", offset=-60), "row -1 of a table"),
    "cache full": (attention("store_key", limit=61), "positions 59 to 61, the cache holds 61"),
    "cache unwritten": (attention("scores"), "position 0 of the KV cache is read, nothing wrote it"),
    "values unwritten": (attention("values"), "position 0 of the KV cache is read, nothing wrote it"),
    "odd rotation": (
        op("rotary", dst=view(0), a=view(0), cos=LmuRef(0), sin=LmuRef(0), style="half", turned=3, columns=8, rows=1),
        "3 columns to turn, of 8",
    ),
    "rows selected outside": (
        op("select_rows", dst=LmuRef(0, WIDTH), src=LmuRef(0, WIDTH), first=3, columns=8, rows=1),
        "rows 2 to 4, the machine has 4",
    ),
    "empty repeat": (op("repeat", count=2, length=0), "a repeat of no instructions"),
    "empty repeat of rows": (op("repeat_rows", rows=1, length=0), "a repeat of no instructions"),
    "repeat of no rows": (op("repeat_rows", rows=0, length=1), "register r0 says 0 rows"),
    "word that is no number": (op("fetch", dst=9, src=LmuRef(0), limit=9), "the word is no number below 9"),
    "word that nothing wrote": (op("fetch", dst=9, src=LmuRef(400), limit=9), "LMU word 400 is read"),
    "column that is no number": (
        op("take_columns", dst=LmuRef(0, 9), src=LmuRef(0, WIDTH), index=LmuRef(0, WIDTH), columns=2, limit=9, rows=1),
        "word 0 of row 0 is no number below 9",
    ),
    "groups that are not equal": (
        op("top_k", dst=LmuRef(0, 9), src=LmuRef(0, WIDTH), columns=9, k=2, groups=2, top_groups=1, rows=1),
        "2 of 9 columns, from 1 of 2 groups",
    ),
    "too few columns": (
        op("top_k", dst=LmuRef(0, 9), src=LmuRef(0, WIDTH), columns=9, k=4, groups=3, top_groups=1, rows=1),
        "4 of 9 columns, from 1 of 3 groups",
    ),
    "repeat past the end": (op("repeat", count=2, length=9), "the body ends at 11, the program at 3"),
    "call past the end": (op("call", target=99), "call of 99, the program has 3 instructions"),
    "ret without call": (op("ret"), "ret without a call"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_fault_names_the_instruction_and_the_numbers(case: str) -> None:
    instruction, message = FAULTS[case]
    origins = [Origin("main", path, "isa.x") for path in ("embed", "model.norm", "end")]
    # Three tokens from position 59 on, the last row wanted.
    target = machine(embed(), instruction, HALT, origins=origins)
    with pytest.raises(MachineFault, match=message) as error:
        target.run([1, 5, VOCAB - 1], 59, 2)
    assert str(error.value).startswith(f"instruction 1 ({instruction.name}) of model.norm: ")
    assert "\n" not in str(error.value)


def test_token_read_before_the_host_wrote_it() -> None:
    target = machine(embed(rows=9), HALT)
    with pytest.raises(MachineFault, match=re.escape("instruction 0 (embed): register r9 is read")):
        target.run([1], 0, 0)


@pytest.mark.parametrize(
    ("instructions", "message"),
    [
        (
            [op("repeat", count=2, length=2), op("repeat", count=2, length=2), HALT, HALT],
            "that of the repeat around it",
        ),
        ([op("repeat", count=1, length=2), op("call", target=1), HALT], "nested deeper than 16"),
        ([op("call", target=1), op("repeat", count=1, length=1), op("ret")], "ret inside a repeat"),
        ([op("set", dst=9, value=1)], "no halt here"),
    ],
)
def test_control_flow_faults(instructions: list[Instruction], message: str) -> None:
    with pytest.raises(MachineFault, match=message):
        machine(*instructions).run([1], 0, 0)


def test_a_program_that_does_not_end_is_stopped() -> None:
    endless = machine(op("repeat", count=1 << 31, length=1), op("set", dst=9, value=1), HALT, budget=1000)
    with pytest.raises(MachineFault, match="1000 instructions and no halt"):
        endless.run([1], 0, 0)


@pytest.mark.parametrize(("tokens", "first"), [([], 0), ([1] * 5, 0), ([1], 1), ([1], -1)])
def test_the_host_is_checked_too(tokens: list[int], first: int) -> None:
    with pytest.raises(MachineFault):
        machine(HALT).run(tokens, 0, first)


def test_operands_are_checked_when_the_machine_is_made() -> None:
    with pytest.raises(MachineFault, match=re.escape("instruction 0 (set): operand value is missing")):
        machine(op("set", dst=1))
    with pytest.raises(MachineFault, match="no operand 'colour'"):
        machine(op("halt", colour=1))


def test_nothing_survives_in_the_lmu_from_step_to_step() -> None:
    target = machine(copy(0, 500), HALT)
    target.state.lmu.write(0, (WIDTH, 1), np.zeros((1, WIDTH), np.float32))
    with pytest.raises(MachineFault, match="LMU word 0 is read"):
        target.run([1], 0, 0)


def scale(value: float, rows: int = 1) -> Instruction:
    return op("binary_scalar", function="mul", dst=view(0), a=view(0), b=value, columns=WIDTH, rows=rows)


def test_the_flag_is_sticky_and_names_the_first() -> None:
    body = [op("repeat", count=3, length=1), op("call", target=4), HALT]
    layer = [scale(1e15), scale(1e15), op("ret")]
    names = ["embed", "", "", "", "model.layers.*.up", "model.layers.*.down", ""]
    target = machine(embed(), *body, *layer, origins=[Origin("f", name, "op") for name in names])
    target.run([1], 0, 0)
    assert target.fault == NumericFault(0, 1, 4, "binary_scalar", "model.layers.1.up")
    target.run([1], 1, 0)
    assert target.fault.chunk == 0
    target.clear()
    assert target.fault is None


def test_the_flag_in_a_later_pass_counts_passes() -> None:
    target = machine(embed(), scale(1e30), scale(1e30), HALT, chunk=2)
    target.run([1], 0, 0)
    assert target.fault == NumericFault(0, None, 2, "binary_scalar", "")


def test_rounding_to_the_matrix_type_can_raise_the_flag_though_the_result_is_finite() -> None:
    matmul = op(
        "matmul", dst=LmuRef(500, WIDTH), src=LmuRef(0, WIDTH), weight=HbmRef(memory_map().addresses["matrix"]),
        k=WIDTH, n=WIDTH, type="f16", activation="tanh", rows=1,
    )  # fmt: skip
    target = machine(embed(), scale(1e6), matmul, HALT)
    target.run([1], 0, 0)
    assert target.fault is not None
    assert target.fault.index == 2


def test_the_product_of_a_gated_matmul_can_raise_the_flag() -> None:
    values = {"src": LmuRef(0, WIDTH), "weight": HbmRef(memory_map().addresses["matrix"]), "type": "f16", "rows": 1}
    matmul = op("matmul", dst=LmuRef(500, WIDTH), k=WIDTH, n=WIDTH // 2, scale=1e33, **values)
    for gated, index in ((0, None), (1, 2)):
        target = machine(embed(), scale(1e3), Instruction(matmul.name, {**matmul.values, "gated": gated}), HALT)
        target.run([1], 0, 0)
        assert (target.fault and target.fault.index) == index


def test_a_gated_matmul_reads_twice_as_many_rows() -> None:
    values = {"dst": LmuRef(500, WIDTH), "src": LmuRef(0, WIDTH), "k": WIDTH, "n": 16, "type": "f16", "rows": 1}
    last = HbmRef(END - 16 * 128 * 2)  # one group of 16 rows of two steps, and no more
    machine(embed(), op("matmul", weight=last, **values), HALT).run([1], 0, 0)
    with pytest.raises(MachineFault, match=f"the map ends at {END}"):
        machine(embed(), op("matmul", weight=last, gated=1, **values), HALT).run([1], 0, 0)


def test_columns_that_a_row_does_not_see_raise_no_flag() -> None:
    stores = [attention("store_key"), attention("store_value")]
    target = machine(embed(), *stores, attention("scores"), attention("softmax"), attention("values"), HALT)
    target.run([1, 2, 3], 0, 0)
    assert target.fault is None
    assert HEADS * 24 <= WIDTH < LENGTH
