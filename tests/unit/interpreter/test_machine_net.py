"""Links, rings and what can go wrong on them; the instructions that several devices need."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.programs.exchanges import FAULT, GATHER, HALT, INFINITE, OWN, ROWS, TOKENS, exchange
from support.programs.machine_programs import LMU_WORDS, WIDTH, embed, layout, lmu, machine, memory_map, op, parameter

from hyperdex_ir.errors import MachineFault
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.link import Message, in_memory_links
from hyperdex_ir.interpreter.machine import Machine
from hyperdex_ir.isa.instructions import DEVICE
from hyperdex_ir.isa.operands import HbmRef, LmuRef, ViewRef
from hyperdex_ir.isa.program import Instruction, Program
from hyperdex_ir.runtime.ring import Ring


def ring(*instructions: Instruction, devices: int = 3) -> Ring:
    links = in_memory_links(devices)
    machines = [
        Machine(
            Program(instructions),
            Hbm.from_parameters(memory_map(), layout(), parameter),
            chunk=4,
            lmu_words=LMU_WORDS,
            device=device,
            link=links[device],
        )
        for device in range(devices)
    ]
    return Ring(machines, links)


def run(*instructions: Instruction, devices: int = 3) -> Ring:
    target = ring(*instructions, HALT, devices=devices)
    target.run(TOKENS, 0, 0)
    return target


# ------------------------------------------------------------------------------------------------ instructions
def test_multiply() -> None:
    target = machine(op("set", dst=9, value=-7), op("multiply", dst=9, a=9, value=6), HALT)
    target.run(TOKENS, 0, 0)
    assert target.registers[9] == -42
    target = machine(op("set", dst=9, value=1 << 40), op("multiply", dst=9, a=9, value=1 << 40), HALT)
    with pytest.raises(MachineFault, match=r"^instruction 1 \(multiply\): register r9 holds 64 bits"):
        target.run(TOKENS, 0, 0)


@pytest.mark.parametrize(("block", "columns"), [(0, 20), (3, 20), (4, 20), (1, WIDTH), (0, 75)])
def test_select_columns_takes_a_block_and_zeros_beyond_the_last_column(block: int, columns: int) -> None:
    select = op(
        "select_columns", dst=LmuRef(500, columns), src=LmuRef(0, WIDTH), index=9, columns=columns, limit=WIDTH, rows=1
    )
    target = machine(embed(), op("set", dst=9, value=block), select, HALT)
    target.run(TOKENS, 0, 0)
    padded = np.pad(ROWS, ((0, 0), (0, 5 * columns)))
    assert (lmu(target, 500, 3, columns) == padded[:, block * columns :][:, :columns]).all()


@pytest.mark.parametrize(
    ("index", "changes", "message"),
    [
        (-1, {}, "columns from -20 on"),
        (0, {"dst": LmuRef(LMU_WORDS - 1, 20)}, f"LMU words {LMU_WORDS - 1} to"),
        (3, {"limit": 90}, "LMU word 210 is read, nothing has written it"),
        (9, {"columns": (1 << 24) - 1, "dst": LmuRef(500, 0)}, "it has 20000"),
    ],
)
def test_select_columns_faults(index: int, changes: dict[str, Any], message: str) -> None:
    values = {"dst": LmuRef(500, 20), "src": LmuRef(0, WIDTH), "index": 9, "columns": 20, "limit": WIDTH, "rows": 1}
    target = machine(embed(), op("set", dst=9, value=index), op("select_columns", **(values | changes)), HALT)
    with pytest.raises(MachineFault, match=r"^instruction 2 \(select_columns\): ") as caught:
        target.run(TOKENS, 0, 0)
    assert message in str(caught.value)


@pytest.mark.parametrize("first", [0, 16])
def test_a_chunk_of_a_gated_matrix_is_that_of_the_whole(first: int) -> None:
    """`matrix` has 70 rows: 35 outputs, and row 35 + j is the gate of row j; it also gives the biases."""
    common = {
        "src": LmuRef(0, WIDTH), "k": WIDTH, "type": "f16", "activation": "silu", "rows": 1, "gated": 1,
    }  # fmt: skip
    weight, bias = memory_map().addresses["matrix"], memory_map().addresses["row"]
    whole = op("matmul", dst=LmuRef(1000, 35), weight=HbmRef(weight), bias=HbmRef(bias), n=35, **common)
    stripes = first // 16 * 2 * memory_map().target.stripe_bytes  # 70 columns are two steps
    chunk = op(
        "matmul", dst=LmuRef(2000, 16), weight=HbmRef(weight + stripes), bias=HbmRef(bias + 4 * first), n=16,
        gate_distance=35, **common,
    )  # fmt: skip
    target = machine(embed(), whole, chunk, HALT)
    target.run(TOKENS, 0, 0)
    found, expected = lmu(target, 2000, 3, 16), lmu(target, 1000, 3, 35)
    assert (found.view(np.uint32) == expected[:, first : first + 16].view(np.uint32)).all()


# ------------------------------------------------------------------------------------------------ the ring
def test_parts_go_around() -> None:
    target = run(*OWN, *GATHER)
    for machine_ in target.machines:
        assert isinstance(machine_, Machine)
        assert machine_.registers[DEVICE] == machine_.device
        for part in range(3):
            columns = slice(10 * part + 2, 10 * part + 5)
            found = machine_.state.lmu.read(1002 + 5 * part, (3, 3), (15, 1))
            assert (found == ROWS[:, columns]).all()


def test_a_ring_runs_pass_after_pass_also_behind_a_fault() -> None:
    """After a fault nothing of that step is left on the links."""
    target = ring(
        *OWN, *GATHER, op("unary", function="copy", dst=ViewRef(0, 1), a=ViewRef(0, 1), columns=1, rows=2), HALT
    )
    with pytest.raises(MachineFault, match=r"^device 0: instruction 8 \(unary\): register r2 says 0 rows"):
        target.run(TOKENS, 0, 0)
    target.run(TOKENS, 1, 0)
    target.run(TOKENS[:1], 2, 0)


def test_a_device_that_is_alone_has_no_links() -> None:
    target = machine(*OWN, exchange("send", 0), HALT)
    with pytest.raises(MachineFault, match=r"^instruction 4 \(send\): this device has no links$"):
        target.run(TOKENS, 0, 0)


def test_a_machine_stops_at_a_message_that_is_not_there_and_goes_on_when_it_is() -> None:
    first, second, _ = ring(*OWN, *GATHER, HALT).machines
    first.start(TOKENS, 0, 0)
    assert [first.resume(), first.resume()] == ["receive", "receive"]
    assert first.executed == len(OWN) + 1
    second.start(TOKENS, 0, 0)
    assert second.resume() == "receive", "it has taken the first message of the first, and waits for the second"
    assert second.executed == len(OWN) + 3
    with pytest.raises(MachineFault, match=r"^instruction 5 \(receive\): no other device is there to send a message$"):
        ring(*OWN, *GATHER, HALT).machines[0].run(TOKENS, 0, 0)  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("instructions", "message"),
    [
        (
            [exchange("receive", 1)],
            "device 0: instruction 4 (receive): receive number 0 of the step, before send number 0",
        ),
        (
            [exchange("send", 0), exchange("receive", 2)],
            "device 0: instruction 5 (receive): message 0 with 3 x 3 words of part 1 expected, the device before sent"
            " message 0 with 3 x 3 words of part 2",
        ),
        (
            [exchange("send", 0), exchange("receive", 1, columns=2)],
            "device 0: instruction 5 (receive): message 0 with 3 x 2 words of part 2 expected, the device before sent"
            " message 0 with 3 x 3 words of part 2",
        ),
        ([exchange("send", 0, parts=2)], "device 2: instruction 4 (send): device 2 of a program for 2"),
        ([exchange("send", 0, parts=0)], "device 0: instruction 4 (send): device 0 of a program for 0"),
        ([exchange("send", 0, pitch=9000)], "device 1: instruction 4 (send): LMU word 10002 is read, nothing has"),
    ],
)
def test_what_is_not_as_it_must_be_is_a_fault(instructions: list[Instruction], message: str) -> None:
    full = op("unary", function="copy", dst=ViewRef(0, 0), a=ViewRef(0, WIDTH), columns=WIDTH, rows=1)
    with pytest.raises(MachineFault) as caught:
        run(*OWN, *instructions, full)
    assert str(caught.value).startswith(message)


def test_a_message_out_of_turn_is_a_fault() -> None:
    target = ring(*OWN, *GATHER, HALT).machines[0]
    assert isinstance(target, Machine)
    links = in_memory_links(3)
    links[2].send(Message(1, 2, np.zeros((3, 3), np.float32)))
    target.state.link = links[0]
    target.start(TOKENS, 0, 0)
    with pytest.raises(
        MachineFault, match=r"message 0 with 3 x 3 words of part 2 expected, the device before sent message 1"
    ):
        target.resume()


def _at_device(number: int, *body: Instruction) -> tuple[Instruction, ...]:
    return (op("skip_unless", a=DEVICE, value=number, length=len(body)), *body)


def test_the_first_fault_counts_not_that_of_the_device_that_runs_first() -> None:
    with pytest.raises(MachineFault, match=r"^device 2: instruction 5 \(load\)"):
        run(*OWN, *_at_device(2, FAULT), *_at_device(0, FAULT))
    with pytest.raises(MachineFault, match=r"^device 0: instruction 4 \(load\)"):
        run(*OWN, FAULT)


def test_the_flag_names_the_first_instruction_and_the_lowest_device() -> None:
    late = run(*OWN, *_at_device(1, op("set", dst=9, value=0), INFINITE), *GATHER, INFINITE).fault
    assert late is not None
    assert (late.device, late.index, late.chunk) == (1, 6, 0)
    both = run(*OWN, INFINITE, *GATHER).fault
    assert both is not None
    assert (both.device, both.index) == (0, 4)


def test_devices_that_all_wait_are_a_fault() -> None:
    """Device 0 leaves the last send out."""
    sends = (op("skip_unless", a=DEVICE, value=1, length=1), exchange("send", 0))
    late = (*OWN, exchange("send", 0), exchange("receive", 1), *sends, op("skip_unless", a=DEVICE, value=1, length=1))
    with pytest.raises(MachineFault, match=r"^device 1 waits for a message that no device sends$"):
        run(*late, exchange("receive", 1))
