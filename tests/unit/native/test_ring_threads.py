"""Devices that run at once: the same end whatever the timing; Ctrl+C, deadlines and errors end all of them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from support.programs.exchanges import GATHER, HALT, OWN, TOKENS
from support.programs.machine_programs import op
from test_native_net import RECEIVE, SEND, interpreting, native

from hyperdex_ir.errors import DeadlineError, MachineFault
from hyperdex_ir.interpreter.link import MemoryLink, Message, in_memory_links
from hyperdex_ir.isa.instructions import DEVICE, POSITION
from hyperdex_ir.isa.program import Instruction
from hyperdex_ir.native.machine import NativeMachine
from hyperdex_ir.runtime.executors import Executor
from hyperdex_ir.runtime.ring import Ring

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_hang")]

TRIPS = 1 << 31
LOOP = [op("repeat", count=TRIPS, length=1), op("set", dst=9, value=1)]
#: Instructions that a native machine may execute; the default is over within the tests' deadlines.
ENDLESS = 1 << 40
#: Device 1 runs for days when the step begins at position 1, and the others wait for it.
UNEVEN = [
    *OWN,
    op("skip_unless", a=DEVICE, value=1, length=3),
    op("skip_unless", a=POSITION, value=1, length=2),
    *LOOP,
    *GATHER,
    HALT,
]


def ring(code: Sequence[Instruction], engines: str, patient: bool, threads: int = 1) -> Ring:
    """A ring of native machines (n) and interpreters (i)."""
    links = in_memory_links(len(engines), patient)
    places = enumerate(zip(engines, links, strict=True))
    machines = [
        native(code, device, link, threads, ENDLESS) if kind == "n" else interpreting(code, device, link)
        for device, (kind, link) in places
    ]
    return Ring(machines, links)


def at_device(number: int, *body: Instruction) -> list[Instruction]:
    return [op("skip_unless", a=DEVICE, value=number, length=len(body)), *body]


@pytest.mark.parametrize("patient", [False, True])
@pytest.mark.parametrize(("engines", "threads"), [("nnn", 1), ("nnn", 2), ("iii", 1), ("nin", 1)])
def test_the_end_does_not_depend_on_timing(
    engines: str, threads: int, patient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages come late by odd times; one device waits for what nobody sends, then steps are right again."""
    random = np.random.default_rng(0)
    send = MemoryLink.send

    def late(link: MemoryLink, message: Message) -> None:
        time.sleep(random.uniform(0, 0.002))
        send(link, message)

    monkeypatch.setattr(MemoryLink, "send", late)
    target = ring([*OWN, *GATHER, *at_device(1, SEND, RECEIVE), HALT], engines, patient, threads)
    ends = set()
    for _ in range(15):
        with pytest.raises(MachineFault) as caught:
            target.run(TOKENS, 0, 0)
        ends.add((str(caught.value), *(machine.executed for machine in target.machines)))
    assert len(ends) == 1
    assert min(ends)[0] == "device 1 waits for a message that no device sends"


@pytest.mark.parametrize("patient", [False, True])
@pytest.mark.parametrize("engines", ["nnn", "iii"])
def test_control_c_ends_all_devices_and_the_next_step_is_right(engines: str, patient: bool) -> None:
    target = ring(UNEVEN, engines, patient)
    for _ in range(3):
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            target.run(TOKENS, 1, 0)
        executed = [machine.executed for machine in target.machines]
        assert max(executed) < TRIPS, "it ends inside the loop"
        time.sleep(0.02)
        assert executed == [machine.executed for machine in target.machines], "nothing is left running"
        target.run(TOKENS, 0, 0)
        assert all(machine.registers[DEVICE] == device for device, machine in enumerate(target.machines))


@pytest.mark.parametrize("patient", [False, True])
@pytest.mark.parametrize("engines", ["nnn", "iii", "nin"])
def test_a_deadline_ends_all_devices(engines: str, patient: bool) -> None:
    target = ring(UNEVEN, engines, patient)
    for _ in range(2):
        target.deadline = time.monotonic() + 0.1
        with pytest.raises(DeadlineError):
            target.run(TOKENS, 1, 0)
        assert max(machine.executed for machine in target.machines) < TRIPS, "it ends inside the loop"
        target.deadline = None
        target.run(TOKENS, 0, 0)


def test_a_deadline_of_one_device_ends_the_others() -> None:
    target = ring(UNEVEN, "nnn", patient=True)
    for machine in target.machines:
        assert isinstance(machine, NativeMachine)
        machine.deadline = time.monotonic() + 0.1
        with pytest.raises(DeadlineError):
            target.run(TOKENS, 1, 0)
        machine.deadline = None


def test_waiting_takes_no_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two devices wait for one whose message is late: each asks once for each message, and is woken."""
    target = ring([*OWN, *GATHER, HALT], "nnn", patient=True)
    send, receive = MemoryLink.send, MemoryLink.receive
    asked = Counter[int]()

    def late(link: MemoryLink, message: Message) -> None:
        if link.device == 0:
            time.sleep(0.05)
        send(link, message)

    def count(link: MemoryLink) -> Message | None:
        asked[link.device] += 1
        return receive(link)

    monkeypatch.setattr(MemoryLink, "send", late)
    monkeypatch.setattr(MemoryLink, "receive", count)
    target.run(TOKENS, 0, 0)
    assert asked == dict.fromkeys(range(3), sum(item.name == "receive" for item in GATHER))


@pytest.mark.parametrize(("threads", "devices", "each"), [(8, 3, 2), (2, 9, 1), (5, 1, 5), (1, 2, 1)])
def test_devices_share_the_threads(threads: int, devices: int, each: int) -> None:
    assert Executor("native", threads).divided(devices).threads == each
