"""The instruction and the kind of fault that a message names, compared with the instruction's entry in the table."""

from __future__ import annotations

import re

from hyperdex_ir.isa.faults import MACHINE_FAULTS, Fault
from hyperdex_ir.isa.instructions import BY_NAME

_PLACE = re.compile(r"instruction \d+ \((\w+)\)(?: of \S+)?: (.+)$")
#: A number is a word; the refusal of sampling settings is several.
_TEXTS = {
    kind: re.compile(re.sub(r"\\{\w+\\}", r"\\S+", re.escape(kind.words).replace(r"\{refusal\}", ".+")))
    for kind in Fault
}


def named_fault(text: str) -> tuple[str, Fault] | None:
    """None when the message names no instruction."""
    if (place := _PLACE.search(text)) is None:
        return None
    (kind,) = (kind for kind, pattern in _TEXTS.items() if pattern.fullmatch(place[2]))
    return place[1], kind


def check_listed(text: str | None) -> None:
    """Asserts that the entry of the instruction that a fault names, if any, lists the fault's kind."""
    name, kind = named_fault(text or "") or ("", Fault.NO_HALT)
    assert kind in MACHINE_FAULTS or kind in BY_NAME[name].faults, text
