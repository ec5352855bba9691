"""Several devices in one process: the same bits as one, whatever does not divide evenly; what goes wrong is a fault."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from support.models.ring_modules import HEADS, INNER, LAYERS, SIZE, VOCAB, WIDTH, module_text, ring_device

from hyperdex_ir.errors import LoweringError
from hyperdex_ir.interpreter.link import MemoryLink, Message
from hyperdex_ir.interpreter.machine import Machine
from hyperdex_ir.native.machine import NativeMachine
from hyperdex_ir.passes.pipeline import run_pipeline
from hyperdex_ir.performance.estimate import estimate
from hyperdex_ir.support.xdsl import parse_module
from hyperdex_ir.targets import load_target

pytestmark = pytest.mark.slow

TOKENS = [3, 44, 0, 17, 8, 21, 30, 2, 9, 40, 41]


def forward(devices: int, pipeline: str | None = None, step: int = 8) -> np.ndarray:
    """The logits behind each `step` tokens and behind two more, one by one."""
    device = ring_device(devices) if pipeline is None else ring_device(devices, pipeline)
    rows, done = [], 0
    for size in (step, 1, 1):
        rows.append(device.forward(TOKENS[done : done + size], done))
        done += size
    return np.concatenate(rows)


@pytest.fixture(scope="module")
def alone() -> np.ndarray:
    return forward(1)


@pytest.mark.parametrize("devices", range(2, HEADS + 3))
def test_any_number_of_devices_gives_the_same_bits(devices: int, alone: np.ndarray) -> None:
    logits = forward(devices)
    assert logits.shape == (3, VOCAB)
    assert (logits.view(np.uint32) == alone.view(np.uint32)).all()


@pytest.mark.parametrize("chunks", [1, 3, 100])
@pytest.mark.parametrize("devices", [2, 5])
def test_the_number_of_chunks_and_the_order_change_no_bit(devices: int, chunks: int) -> None:
    expected = forward(1, step=3).view(np.uint32)
    lowering = f"lower-lpu-to-isa{{gather-chunks={chunks}}}"
    for pipeline in (lowering, f"{lowering}, isa-schedule"):
        logits = forward(devices, f"{pipeline}, isa-allocate-lmu", step=3)
        assert (logits.view(np.uint32) == expected).all()


def test_the_same_run_again_gives_the_same_bits() -> None:
    assert (forward(4).view(np.uint32) == forward(4).view(np.uint32)).all()


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("devices", range(2, 9))
@pytest.mark.parametrize("native", [False, True], ids=["interpreter", "native"])
def test_bytes_sent_are_what_the_formula_and_the_estimate_say(
    native: bool, devices: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every device, for one token and for a chunk of several; `hyperdex inspect` prints the estimate's."""
    sent = Counter[int]()
    send = MemoryLink.send

    def count(link: MemoryLink, message: Message) -> None:
        sent[link.device] += message.words.nbytes
        send(link, message)

    monkeypatch.setattr(MemoryLink, "send", count)
    device = ring_device(devices, native=native)
    device.forward(TOKENS[:rows], 0)
    machine = device.machine.machines[0]
    assert isinstance(machine, (Machine, NativeMachine))
    found = estimate(machine.program, load_target("u55c"), tokens=rows)
    layer = -(-HEADS // devices) * SIZE + sum(-(-columns // devices) for columns in (WIDTH, INNER, WIDTH))
    logits = -(-VOCAB // devices)
    assert found.link_bytes == 4 * (devices - 1) * (LAYERS * rows * layer + logits)
    assert sent == dict.fromkeys(range(devices), found.link_bytes)


def test_links_that_are_hidden_behind_work_cost_less() -> None:
    machine = ring_device(4).machine.machines[0]
    assert isinstance(machine, Machine)
    cycles = [estimate(machine.program, load_target("u55c"), overlap=overlap).cycles for overlap in (True, False)]
    assert cycles[0] < cycles[1]


def test_there_is_a_register_for_each_width_or_an_error() -> None:
    text = module_text(2)
    start, end = text.split("%s = lpu.select_rows %z")
    lines: list[str] = []
    value = "%z"
    for number in range(16):
        width = WIDTH + 2 * number
        lines += [
            f'%x{number}w = lpu.weight "x{number}" : tensor<{width // 2}x{WIDTH}xf16>',
            f"%x{number} = lpu.linear {value} by %x{number}w : tensor<?x{WIDTH}xf32>, tensor<{width // 2}x{WIDTH}xf16>"
            f" -> tensor<?x{width // 2}xf32>",
            f"%y{number} = lpu.all_gather %x{number} over 2 : (tensor<?x{width // 2}xf32>) -> tensor<?x{WIDTH}xf32>",
        ]
        value = f"%y{number}"
    module = parse_module(start + "\n".join(lines) + f"\n%s = lpu.select_rows {value}" + end)
    with pytest.raises(LoweringError, match="more than 13 widths of values that are sharded"):
        run_pipeline(module, "lower-lpu-to-isa")
