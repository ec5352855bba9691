"""Ways to spoil bytes, JSON and programs. An edit is a list: its kind, then numbers that any contents give a meaning to
(positions count modulo what there is), so that any edit applies to any file."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from hyperdex_ir.isa.codec import Place, encode, operand_places
from hyperdex_ir.isa.instructions import BY_OPCODE, WORD_BYTES
from hyperdex_ir.isa.operands import REGISTERS
from hyperdex_ir.isa.program import Instruction

Edit = Sequence[Any]

#: What a number becomes, beside its neighbours.
NUMBERS = (0, 1, 2, 3, 7, 63, 64, 255, 256, 65535, (1 << 24) - 1, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1,
           1 << 40, (1 << 53) + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -1, -64, -(1 << 63), 10**30)  # fmt: skip
#: What a JSON value becomes.
VALUES: tuple[Any, ...] = (
    *NUMBERS, None, True, False, 0.5, -0.0, 1e300, float("nan"), float("inf"), 2.0, 4096.0, "", "x", "..", "../x", "/",
    "0", "1", "-1", "f16", "bf16", "f32", "main", "line\nline", "\x1b[31m", "\ud800", "x\0y", "*" * 5000, [], {}, [[]],
    [0], [None], {"": 0}, {"a": {}}, [1, 2, 3], list(range(300)),
)  # fmt: skip


def edit_bytes(data: bytes, edits: Sequence[Edit]) -> bytes:
    """The bytes after `bit`, `byte`, `number` (of 4 or 8 bytes), `cut`, `insert`, `drop`."""
    out = bytearray(data)
    for kind, at, value, *_ in edits:
        if kind == "insert":
            out[at % (len(out) + 1) : 0] = value.encode("latin-1")
        elif kind == "cut":
            del out[at % (len(out) + 1) :]
        elif out:
            _edit_at(out, kind, at % len(out), value)
    return bytes(out)


def _edit_at(out: bytearray, kind: str, at: int, value: int) -> None:
    if kind == "bit":
        out[at] ^= 1 << value % 8
    elif kind == "byte":
        out[at] = value % 256
    elif kind == "drop":
        del out[at : at + value % 64 + 1]
    else:
        width = 8 if kind == "number8" else 4
        start = at - at % 4
        out[start : start + width] = (value % (1 << 8 * width)).to_bytes(width, "little")


def edit_json(value: Any, edits: Sequence[Edit]) -> Any:
    """JSON values, changed in place, after `set`, `near` (a number moved a little), `delete`, `double` or `rename` of
    the node that a path of indices leads to."""
    holder = [value]
    for kind, path, what in edits:
        _edit_node(holder, kind, path, what)
    return holder[0]


def _edit_node(root: list[Any], kind: str, path: Sequence[int], what: Any) -> None:
    holder: Any = root
    key: Any = 0
    for step in path:
        if not isinstance(holder[key], dict | list) or not holder[key]:
            break
        holder = holder[key]
        key = list(holder)[step % len(holder)] if isinstance(holder, dict) else step % len(holder)
    old = holder[key]
    if kind == "near" and isinstance(old, int | float):
        holder[key] = old + what % 17 - 8 if what % 2 else old * (what % 5)
    elif kind == "delete" and holder is not root:
        del holder[key]
    elif kind == "double" and isinstance(holder, list) and holder is not root:
        holder.insert(key, old)
    elif kind == "rename" and isinstance(holder, dict):
        holder[str(VALUES[what % len(VALUES)])] = holder.pop(key)
    else:
        holder[key] = deepcopy(VALUES[what % len(VALUES)])


def edit_program(payload: bytes, edits: Sequence[Edit]) -> bytes:
    """Instruction words after `field`, `flat` (that, and no strides), `put` (a register is set), `bit`, `swap`, `copy`,
    `drop`, `double`, `opcode`."""
    words = [payload[start : start + WORD_BYTES] for start in range(0, len(payload), WORD_BYTES)]
    for kind, at, which, value in edits:
        index = at % len(words)
        if kind == "field":
            words[index] = _edit_field(words[index], which, value)
        elif kind == "flat":
            words[index] = _edit_field(_without_strides(words[index]), which, value)
        elif kind == "put":
            number = NUMBERS[value % len(NUMBERS)] % (1 << 47)
            words[index] = encode(Instruction("set", {"dst": which % REGISTERS, "value": number}))
        elif kind == "swap":
            words[index], words[which % len(words)] = words[which % len(words)], words[index]
        elif kind == "copy":
            words[index] = words[which % len(words)]
        elif kind == "drop" and len(words) > 1:
            del words[index]
        elif kind == "double":
            words.insert(index, words[index])
        elif kind == "opcode":
            words[index] = bytes([list(BY_OPCODE)[which % len(BY_OPCODE)]]) + words[index][1:]
        else:
            words[index] = edit_bytes(words[index], [("bit", which, value)])
    return b"".join(words)


def _places(data: bytes) -> list[Place]:
    """The fields of an instruction word; none when it is no instruction."""
    spec = BY_OPCODE.get(data[0])
    return [place for operand in operand_places(spec) for place in operand.fields] if spec else []


def _without_strides(data: bytes) -> bytes:
    word = int.from_bytes(data, "little")
    for place in _places(data):
        if place.field.name.endswith("stride"):
            word &= ~((1 << place.field.width) - 1 << place.low)
    return word.to_bytes(WORD_BYTES, "little")


def _edit_field(data: bytes, which: int, value: int) -> bytes:
    """A field of an instruction with another number: 0 to 15 steps away, or one of NUMBERS, or any."""
    word = int.from_bytes(data, "little")
    places = _places(data)
    if not places:
        return data
    place = places[which % len(places)]
    mask = (1 << place.field.width) - 1
    if value < 16:
        bits = place.read(word) + value - 8
    elif value < 16 + len(NUMBERS):
        bits = NUMBERS[value - 16]
    else:
        bits = value
    return (word & ~(mask << place.low) | (bits & mask) << place.low).to_bytes(WORD_BYTES, "little")
