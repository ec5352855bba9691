"""Instructions of the group NET: parts of values go around the ring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hyperdex_ir.interpreter.link import Link, Message
from hyperdex_ir.interpreter.state import State, executes
from hyperdex_ir.isa.faults import Fault, Forbidden
from hyperdex_ir.isa.instructions import DEVICE
from hyperdex_ir.isa.operands import MOST_AHEAD, LmuRef


def _part(s: State, v: Mapping[str, Any]) -> int:
    """The part that an instruction is about. Raises Forbidden when there is no part for this device."""
    device, parts = s.register(DEVICE), v["parts"]
    if not 0 <= device < parts:
        raise Forbidden(Fault.DEVICE, device=device, parts=parts)
    return (device - v["hop"]) % parts


def _columns(ref: LmuRef, v: Mapping[str, Any], part: int) -> LmuRef:
    return LmuRef(ref.address + part * v["pitch"] + v["first"], ref.stride, ref.register)


def _link(s: State) -> Link:
    if s.link is None:
        raise Forbidden(Fault.NO_LINKS)
    return s.link


@executes("send")
def send(s: State, v: Mapping[str, Any]) -> None:
    link, part, rows = _link(s), _part(s, v), s.rows(v["rows"])
    view = s.read_rows(_columns(v["src"], v, part), rows, v["columns"])
    _check_ahead(s, s.sent + 1 - s.received, s.words_ahead + view.size)
    words = view.copy()
    s.watch(words)
    link.send(Message(s.sent, part, words))
    s.sent += 1
    s.words_ahead += words.size


def _check_ahead(s: State, messages: int, words: int) -> None:
    """Raises Forbidden when more has been sent beyond what has been received than the machine allows. This bounds the
    messages under way in the whole ring, whatever one device receives of another: sizes of messages sent and received
    are counted alike."""
    most = s.lmu.size
    if messages > MOST_AHEAD or words > most:
        raise Forbidden(Fault.AHEAD, messages=messages, words=words, most=most)


@executes("receive")
def receive(s: State, v: Mapping[str, Any]) -> None:
    link, part, rows = _link(s), _part(s, v), s.rows(v["rows"])
    if s.received >= s.sent:
        raise Forbidden(Fault.EARLY_RECEIVE, number=s.received)
    message = link.receive()
    if message is None:
        s.waits = True
        return
    _check(message, Message(s.received, part, np.empty((rows, v["columns"]), np.float32)))
    s.received += 1
    s.words_ahead -= message.words.size
    s.write_rows(_columns(v["dst"], v, part), message.words)


def _check(found: Message, expected: Message) -> None:
    numbers, its_numbers = _numbers(expected), _numbers(found)
    if numbers != its_numbers:
        raise Forbidden(Fault.MESSAGE, **numbers, **{f"its_{name}": number for name, number in its_numbers.items()})


def _numbers(message: Message) -> dict[str, int]:
    rows, columns = message.words.shape
    return {"number": message.number, "part": message.part, "rows": rows, "columns": columns}
