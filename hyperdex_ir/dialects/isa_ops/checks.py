"""What an instruction needs of its operands, beyond their kinds: values in range, buffers wide enough."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from xdsl.utils.exceptions import VerifyException

from hyperdex_ir.dialects.isa_ops.buffers import LmuUse, ViewUse, buffer_type
from hyperdex_ir.errors import AssemblyError, CapacityError
from hyperdex_ir.isa.fields import check_operand
from hyperdex_ir.isa.instructions import Spec
from hyperdex_ir.isa.operands import HbmRef, LmuRef, Value, ViewRef

OperandValue = LmuUse | ViewUse | HbmRef | int | float | str | None

#: The columns of LMU operands: the immediates whose product they are. Those that grow with the position are not here.
LMU_COLUMNS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "embed": {"dst": ("columns",)},
    "gather": {"dst": ("columns",)},
    "load": {"dst": ("columns",)},
    "store": {"src": ("columns",)},
    "store_key": {"src": ("heads", "size")},
    "store_value": {"src": ("heads", "size")},
    "matmul": {"dst": ("n",), "src": ("k",), "times": ("n",), "plus": ("n",)},
    "scores": {"query": ("size",)},
    "values": {"dst": ("size",)},
    "rotary": {"cos": ("turned",), "sin": ("turned",)},
    "select_rows": {"dst": ("columns",), "src": ("columns",)},
    "argmax": {"src": ("columns",)},
}


def reference(use: LmuUse | ViewUse, address: int) -> LmuRef | ViewRef:
    """The encoded operand for a use of a buffer that lies at `address`."""
    stride = buffer_type(use.buffer).row_stride
    if isinstance(use, LmuUse):
        return LmuRef(address + use.offset, stride, use.register)
    row_stride = 0 if use.broadcast_rows else stride
    return ViewRef(address + use.offset, row_stride, use.group_stride, use.column_stride, use.register)


def check_instruction(spec: Spec, operands: Mapping[str, OperandValue]) -> None:
    """Raises VerifyException when a value does not fit its field, or a buffer its use."""
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
    for name, value in operands.items():
        if isinstance(value, LmuUse | ViewUse):
            _check_width(owner, name, value, _last_word(spec, name, value, operands))


def _last_word(spec: Spec, name: str, use: LmuUse | ViewUse, operands: Mapping[str, OperandValue]) -> int | None:
    """The last word of a row that the instruction touches, were the register 0. None: depends on the position."""
    if isinstance(use, LmuUse):
        columns = LMU_COLUMNS.get(spec.name, {}).get(name)
        return None if columns is None else use.offset + prod(_integer(operands, c) for c in columns) - 1
    columns = 1 if spec.name == "reduce" and name == "dst" else _integer(operands, "columns")
    groups = _integer(operands, "groups")
    return use.offset + max(groups - 1, 0) * use.group_stride + max(columns - 1, 0) * use.column_stride


def _integer(operands: Mapping[str, OperandValue], name: str) -> int:
    value = operands[name]
    assert isinstance(value, int)  # check_operand has seen to it
    return value


def _check_width(owner: str, name: str, use: LmuUse | ViewUse, last: int | None) -> None:
    width = buffer_type(use.buffer).width
    if last is not None and last >= width:
        raise VerifyException(f"{owner}: {name} reaches word {last} of rows that have {width} words")
