"""Messages of the native machine: rings of it and of both executors, waiting, faults, links that fail."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest
from support.programs.exchanges import FAULT, GATHER, HALT, INFINITE, OWN, ROWS, TOKENS, exchange
from support.programs.machine_programs import LMU_WORDS, WIDTH, layout, memory_map, op, parameter

from hyperdex_ir.errors import DeadlineError, MachineFault, PeerError
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.link import Link, MemoryLink, Message, Wires, in_memory_links
from hyperdex_ir.interpreter.machine import Machine
from hyperdex_ir.interpreter.step import BUDGET
from hyperdex_ir.isa.instructions import DEVICE
from hyperdex_ir.isa.operands import MOST_AHEAD, LmuRef, ViewRef
from hyperdex_ir.isa.program import Instruction, Program
from hyperdex_ir.native.machine import NativeMachine
from hyperdex_ir.runtime.ring import Ring

DEVICES = 3


def native(
    code: Sequence[Instruction], device: int, link: Link | None, threads: int = 2, budget: int = BUDGET
) -> NativeMachine:
    hbm = Hbm.from_parameters(memory_map(), layout(), parameter)
    facts = {"chunk": 4, "lmu_words": LMU_WORDS, "threads": threads, "budget": budget}
    return NativeMachine(Program(tuple(code)), hbm, device=device, link=link, **facts)


def interpreting(code: Sequence[Instruction], device: int, link: Link | None) -> Machine:
    hbm = Hbm.from_parameters(memory_map(), layout(), parameter)
    return Machine(Program(tuple(code)), hbm, chunk=4, lmu_words=LMU_WORDS, device=device, link=link)


def ring(code: Sequence[Instruction], engines: str = "nnn") -> Ring:
    """A ring of native machines (n) and interpreters (i)."""
    links = in_memory_links(len(engines))
    makers = {"n": native, "i": interpreting}
    return Ring([makers[kind](code, device, links[device]) for device, kind in enumerate(engines)], links)


def lmu(machine: Machine | NativeMachine, address: int, rows: int, columns: int) -> np.ndarray:
    if isinstance(machine, NativeMachine):
        return machine.lmu(address, rows, columns)
    return machine.state.lmu.read(address, (rows, columns), (columns, 1), np.zeros((rows, columns), bool))


@pytest.mark.parametrize("engines", ["nnn", "nin", "ini"])
def test_parts_go_around(engines: str) -> None:
    target = ring((*OWN, *GATHER, HALT), engines)
    for _ in range(2):
        target.run(TOKENS, 0, 0)
        for device, machine in enumerate(target.machines):
            assert isinstance(machine, (Machine, NativeMachine))
            assert machine.registers[DEVICE] == device
            words = lmu(machine, 1000, 3, 15)
            for part in range(DEVICES):
                expected = ROWS[:, 10 * part + 2 : 10 * part + 5]
                assert (words[:, 5 * part + 2 : 5 * part + 5] == expected).all()


def outcome(code: Sequence[Instruction], engines: str) -> tuple[object, ...]:
    """What is forbidden, else the flag; and what each device has executed."""
    target = ring((*code, HALT), engines)
    try:
        target.run(TOKENS, 0, 0)
    except MachineFault as fault:
        return str(fault), [machine.executed for machine in target.machines]
    flag = target.fault
    return flag, flag and flag.step, [machine.executed for machine in target.machines]


def _at_device(number: int, *body: Instruction) -> tuple[Instruction, ...]:
    return (op("skip_unless", a=DEVICE, value=number, length=len(body)), *body)


def repeat(count: int, *body: Instruction) -> list[Instruction]:
    return [op("repeat", count=count, length=len(body)), *body]


SEND, RECEIVE = exchange("send", 0), exchange("receive", 1)
EMPTY, EMPTY_BACK = exchange("send", 0, columns=0), exchange("receive", 1, columns=0)
#: Messages of all that the first word's row holds, for each token, and how many of them are as much as the LMU.
_WIDE = {"parts": 3, "pitch": 0, "first": 0, "columns": WIDTH, "rows": 1}
WIDE, WIDE_BACK = op("send", src=LmuRef(0), hop=0, **_WIDE), op("receive", dst=LmuRef(4000, WIDTH), hop=1, **_WIDE)
WORDS_AHEAD = LMU_WORDS // (WIDTH * len(TOKENS))
PROGRAMS = {
    "receive before send": [RECEIVE],
    "another part": [SEND, exchange("receive", 2)],
    "another size": [SEND, exchange("receive", 1, columns=2)],
    "other rows": [SEND, op("set", dst=9, value=2), exchange("receive", 1, rows=9)],
    "two parts": [exchange("send", 0, parts=2)],
    "no parts": [exchange("send", 0, parts=0)],
    "outside": [exchange("send", 0, pitch=20_000)],
    "outside when it comes": [SEND, exchange("receive", 1, pitch=20_000)],
    "no rows": [exchange("send", 0, rows=2)],
    "no device to receive": [op("set", dst=DEVICE, value=-1), RECEIVE],
    "no device": [op("set", dst=DEVICE, value=-1), SEND],
    "first fault": [*_at_device(2, FAULT), *_at_device(0, FAULT)],
    "all fault": [FAULT],
    "flag of one": [*_at_device(1, op("set", dst=9, value=0), INFINITE), *GATHER, INFINITE],
    "flag of all": [INFINITE, *GATHER],
    "flag by a message": [
        *_at_device(1, op("binary_scalar", function="div", dst=ViewRef(1002, 15, register=17), a=ViewRef(0, 0), b=0.0,
                          columns=1, rows=1)),
        *GATHER,
    ],
    "many ahead": [*repeat(MOST_AHEAD, EMPTY), *repeat(MOST_AHEAD, EMPTY_BACK)],
    "too many ahead": [*repeat(MOST_AHEAD, EMPTY), SEND],
    "too many again": [*repeat(MOST_AHEAD, EMPTY), EMPTY_BACK, EMPTY, EMPTY],
    "words ahead": repeat(WORDS_AHEAD, WIDE),
    "too many words ahead": repeat(19_000_000, WIDE),
    "too many words again": [*repeat(WORDS_AHEAD, WIDE), *repeat(2, WIDE_BACK), *repeat(3, WIDE)],
    "many one after another": repeat(2 * MOST_AHEAD, SEND, RECEIVE),
    "too many of one": [*_at_device(1, *repeat(WORDS_AHEAD + 1, WIDE)), RECEIVE],
    "nobody sends": [SEND, RECEIVE, *_at_device(1, SEND), *_at_device(1, RECEIVE)],
}  # fmt: skip


@pytest.mark.parametrize("engines", ["nnn", "inn"])
@pytest.mark.parametrize("case", PROGRAMS)
def test_what_goes_wrong_is_what_goes_wrong_on_the_interpreter(case: str, engines: str) -> None:
    code = (*OWN, *PROGRAMS[case])
    assert outcome(code, engines) == outcome(code, "iii")


@pytest.mark.slow
@pytest.mark.parametrize("engines", ["n", "i"])
def test_what_nobody_receives_is_limited(engines: str) -> None:
    """The n-th receive makes room for what the n-th send took."""
    count, words = WORDS_AHEAD + 1, WIDTH * len(TOKENS) * (WORDS_AHEAD + 1)
    limit = f"the most are {MOST_AHEAD} with {LMU_WORDS} words"
    full = f"device 0: instruction 5 (send): {count} messages with {words} words sent and not received, {limit}"
    assert outcome([*OWN, *PROGRAMS["too many words ahead"]], engines * 3)[0] == full
    many = f"device 0: instruction 6 (send): {MOST_AHEAD + 1} messages with 9 words sent and not received, {limit}"
    assert outcome([*OWN, *PROGRAMS["too many ahead"]], engines * 3)[0] == many
    for fits in ("many ahead", "words ahead", "many one after another"):
        assert outcome([*OWN, *PROGRAMS[fits]], engines * 3)[0] is None


def test_a_device_that_is_alone() -> None:
    with pytest.raises(MachineFault, match=r"^instruction 4 \(send\): this device has no links$"):
        native([*OWN, SEND, HALT], 0, None).run(TOKENS, 0, 0)
    with pytest.raises(MachineFault, match=r"^instruction 5 \(receive\): no other device is there to send a message$"):
        native([*OWN, *GATHER, HALT], 0, in_memory_links(3)[0]).run(TOKENS, 0, 0)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_machine_stops_at_a_message_that_is_not_there_and_goes_on_when_it_is(threads: int) -> None:
    incoming = in_memory_links(3)
    machine = native([*OWN, *GATHER, HALT], 1, incoming[1], threads)
    for start in range(2):
        machine.start(TOKENS, start, 0)
        assert [machine.resume(), machine.resume()] == ["receive", "receive"]
        assert machine.executed == len(OWN) + 1
        incoming[0].send(Message(0, 0, np.full((3, 3), 7, np.float32)))
        assert machine.resume() == "receive"
        assert machine.executed == len(OWN) + 3
        incoming[0].send(Message(1, 2, np.full((3, 3), 8, np.float32)))
        assert machine.resume() == "halt"
        words = machine.lmu(1000, 3, 15)
        assert (words[:, 2:5] == 7).all()
        assert (words[:, 12:15] == 8).all()
    assert machine.fault is None


class Broken(MemoryLink):
    """A link whose other end is lost once a message has come."""

    def __init__(self) -> None:
        super().__init__(Wires(2), 1, 2)
        self.sent = 0
        self.arrived = False

    def send(self, message: Message) -> None:
        if self.arrived:
            raise PeerError("device 2 is lost", "start again")
        self.sent += 1

    def receive(self) -> Message | None:
        raise PeerError("device 0 is lost", "start again")


@pytest.mark.parametrize("threads", [1, 3])
def test_what_a_link_raises_ends_the_pass_and_the_machine_goes_on(threads: int) -> None:
    link = Broken()
    machine = native([*OWN, *_at_device(1, *GATHER), HALT], 1, link, threads)
    for words in ("device 0", "device 0", "device 2"):
        machine.start(TOKENS, 0, 0)
        with pytest.raises(PeerError, match=words):
            machine.resume()
        link.arrived = link.sent == 2
    machine.device = 0  # its program sends nothing there
    machine.run(TOKENS, 0, 0)


@pytest.mark.usefixtures("no_hang")
def test_a_deadline_ends_a_pass_between_messages() -> None:
    """The device sends to itself for days."""
    link = in_memory_links(1)[0]
    code = [*OWN, op("repeat", count=1 << 31, length=2), SEND, exchange("receive", 0), HALT]
    machine = native(code, 0, link)
    for _ in range(2):
        link.wires.begin()
        machine.deadline = time.monotonic() + 0.2
        with pytest.raises(DeadlineError):
            machine.run(TOKENS, 0, 0)
