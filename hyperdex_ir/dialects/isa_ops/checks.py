"""Checks of an instruction's operands beyond their kinds: values in range, buffers wide enough."""

from __future__ import annotations

from collections.abc import Mapping

from xdsl.utils.exceptions import VerifyException

from hyperdex_ir.dialects.isa_ops.lmu_type import LmuUse, ViewUse, buffer_type
from hyperdex_ir.errors import AssemblyError, CapacityError
from hyperdex_ir.isa.fields import check_operand
from hyperdex_ir.isa.instructions import Spec
from hyperdex_ir.isa.operands import HbmRef, LmuRef, Value, ViewRef

OperandValue = LmuUse | ViewUse | HbmRef | int | float | str | None


def reference(use: LmuUse | ViewUse, address: int) -> LmuRef | ViewRef:
    """The encoded operand for a use of a buffer that lies at `address`."""
    stride = buffer_type(use.buffer).row_stride
    if isinstance(use, LmuUse):
        return LmuRef(address + use.offset, stride, use.register)
    row_stride = 0 if use.broadcast_rows else stride
    return ViewRef(address + use.offset, row_stride, use.group_stride, use.column_stride, use.register)


def check_instruction(spec: Spec, operands: Mapping[str, OperandValue]) -> None:
    """Raises VerifyException when a value does not fit its field, a hop its ring, or a buffer its use."""
    owner = f"isa.{spec.name}"
    for operand in spec.operands:
        value = operands[operand.name]
        encoded: Value
        if isinstance(value, LmuUse | ViewUse):
            encoded = reference(value, buffer_type(value.buffer).address or 0)
        else:
            encoded = value
        try:
            check_operand(owner, operand, encoded)
        except (AssemblyError, CapacityError) as error:
            raise VerifyException(str(error)) from None
    if (ring := spec.ring) is not None:
        hop, parts = operands[ring.hop], operands[ring.parts]
        if isinstance(hop, int) and isinstance(parts, int) and hop >= parts:
            raise VerifyException(f"{owner}: hop {hop} around a ring of {parts}, must be less")
    for operand in spec.lmu:
        use = operands[operand.name]
        if isinstance(use, LmuUse | ViewUse):
            _check_width(owner, operand.name, use, operand.row_words(use, operands))


def _check_width(owner: str, name: str, use: LmuUse | ViewUse, words: int | None) -> None:
    """words: words of a row that the instruction reaches when the register is 0; None: they depend on the position."""
    width = buffer_type(use.buffer).width
    if words is not None and use.offset + words > width:
        raise VerifyException(f"{owner}: {name} reaches word {use.offset + words - 1} of rows that have {width} words")
