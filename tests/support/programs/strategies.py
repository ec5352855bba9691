"""Random instructions and programs, made from the instruction table."""

from __future__ import annotations

from functools import cache

from hypothesis import strategies as st

from hyperdex_ir.isa.codec import operand_places
from hyperdex_ir.isa.fields import Part, f32_value, field_range, join_value
from hyperdex_ir.isa.instructions import SPECS, Spec
from hyperdex_ir.isa.operands import Field, FieldKind
from hyperdex_ir.isa.program import Instruction
from support import SOAK

EXAMPLES = 2000 if SOAK else 150
CONTROL = ("halt", "ret", "repeat", "repeat_rows", "skip_unless", "call")


@cache
def field_parts(field: Field) -> st.SearchStrategy[Part]:
    """Any value that the field can hold; the ends of its range more often."""
    if field.kind is FieldKind.FLOAT:
        return st.integers(0, (1 << 32) - 1).map(f32_value) | st.sampled_from([0.0, -0.0, 1.0]) | st.floats(width=32)
    if field.kind is FieldKind.ENUM:
        return st.sampled_from(field.choices)
    low, high = field_range(field)
    return st.integers(low, high) | st.sampled_from([low, high, max(low, 0)])


@cache
@st.composite
def instructions(draw: st.DrawFn, spec: Spec) -> Instruction:
    """Any instruction of that kind, every operand with its value."""
    values = {}
    for places in operand_places(spec):
        present = places.present is None or draw(st.booleans())
        parts = tuple(draw(field_parts(place.field)) for place in places.fields) if present else ()
        values[places.operand.name] = join_value(places.operand, parts) if present else None
    return Instruction(spec.name, values)


@cache
def any_instruction() -> st.SearchStrategy[Instruction]:
    return st.sampled_from(SPECS).flatmap(instructions)


@cache
def plain_instruction() -> st.SearchStrategy[Instruction]:
    """Any instruction but the control words."""
    return st.sampled_from([spec for spec in SPECS if spec.name not in CONTROL]).flatmap(instructions)


@cache
@st.composite
def _body(draw: st.DrawFn, depth: int, calls: bool) -> list[Instruction]:
    """At least one instruction; calls have no target yet."""
    body: list[Instruction] = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["plain", "repeat", "repeat_rows", "skip_unless", "call"]))
        if kind == "repeat" and depth:
            inner = draw(_body(depth - 1, calls))
            count = draw(st.integers(1, (1 << 32) - 1))
            body += [Instruction("repeat", {"count": count, "length": len(inner)}), *inner]
        elif kind == "repeat_rows" and depth:
            inner = draw(_body(depth - 1, calls))
            body += [Instruction("repeat_rows", {"rows": draw(st.integers(0, 31)), "length": len(inner)}), *inner]
        elif kind == "skip_unless" and depth:
            inner = draw(_body(depth - 1, calls))
            values = {"a": draw(st.integers(0, 31)), "value": draw(st.integers(-(1 << 47), (1 << 47) - 1))}
            body += [Instruction("skip_unless", {**values, "length": len(inner)}), *inner]
        elif kind == "call" and calls:
            body.append(Instruction("call", {"target": -1}))
        else:
            body.append(draw(plain_instruction()))
    return body


@st.composite
def programs(draw: st.DrawFn) -> tuple[Instruction, ...]:
    """Any valid program of up to four functions; each calls functions behind it."""
    count = draw(st.integers(1, 4))
    bodies = [draw(_body(2, number + 1 < count)) for number in range(count)]
    starts = [sum(len(body) + 1 for body in bodies[:number]) for number in range(count)]
    program: list[Instruction] = []
    for number, body in enumerate(bodies):
        for instruction in body:
            if instruction.name == "call":
                instruction = Instruction("call", {"target": draw(st.sampled_from(starts[number + 1 :]))})
            program.append(instruction)
        program.append(Instruction("ret" if number else "halt"))
    return tuple(program)
