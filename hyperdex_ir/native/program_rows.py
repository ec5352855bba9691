"""A program as compiled code reads it: one row of numbers an instruction.

Slot 0 holds the operation's number (the opcode), slot 1 + i field i of the instruction's entry in the table: integers
as they are, choices by position, floats by their bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hyperdex_ir.errors import AssemblyError, CapacityError, MachineFault
from hyperdex_ir.interpreter.step import operand_values
from hyperdex_ir.isa.faults import place_of
from hyperdex_ir.isa.fields import encode_field, split_value
from hyperdex_ir.isa.instructions import BY_NAME, SPECS
from hyperdex_ir.isa.operands import Field, FieldKind
from hyperdex_ir.isa.program import Instruction

#: Numbers of one instruction: 32, the next power of two above the most fields.
SLOTS = 1 << max(1 + len(spec.fields()) for spec in SPECS).bit_length()


def slots_of(fields: Sequence[Field]) -> dict[str, int]:
    """The slot of each field, by name. Raises ValueError when there are more than a row has room for."""
    if len(fields) >= SLOTS:
        raise ValueError(f"{len(fields)} fields, a row of the plan has room for {SLOTS - 1}")
    return {field.name: 1 + index for index, field in enumerate(fields)}


def make_plan(instructions: Sequence[Instruction]) -> np.ndarray:
    """int64 [instructions, SLOTS]. Raises MachineFault for an operand that its field cannot hold."""
    plan = np.zeros((max(1, len(instructions)), SLOTS), np.int64)
    for index, item in enumerate(instructions):
        plan[index, 0] = BY_NAME[item.name].opcode
        numbers = _field_numbers(index, item)
        plan[index, 1 : 1 + len(numbers)] = numbers
    return plan


def _field_numbers(index: int, item: Instruction) -> list[int]:
    """The numbers of all fields, in the table's order; those of an absent operand are 0."""
    owner = place_of(index, item.name)
    values = operand_values(index, item)
    numbers: list[int] = []
    for operand in item.spec.operands:
        value = values[operand.name]
        if value is None:
            numbers += [0] * len(operand.fields())
            continue
        numbers += [1] if operand.optional else []
        try:
            parts = split_value(owner, operand, value)
            fields = operand.value_fields()
            for field, part in zip(fields, parts, strict=True):
                bits = encode_field(owner, field, part)
                numbers.append(int(part) if field.kind is FieldKind.SIGNED else bits)
        except (AssemblyError, CapacityError) as error:
            raise MachineFault(str(error)) from None
    return numbers
