"""Values of padding: where a device's part ends in zeros, no operation may make a NaN or an infinity of them.

The zeros are in parameters, and in places of columns that a device selects beyond the last one. The padding of other
values is found by computing with the one number that all padding of a value has.
"""

from __future__ import annotations

import numpy as np
from xdsl.ir import Operation, SSAValue

from hyperdex_ir.dialects import lpu
from hyperdex_ir.dialects.lpu import MovesData, ShardingAttr, has_trait, shape_of
from hyperdex_ir.interpreter import arithmetic
from hyperdex_ir.interpreter.arithmetic import quiet


def is_harmless(op: Operation, sharding: ShardingAttr) -> bool:
    """Test that an operation whose result is sharded like this makes only finite numbers of padding."""
    padded = any(start + one.size > one.extent for one in sharding.segments for start in one.starts)
    if not padded:
        return True
    if isinstance(op, lpu.RmsNormOp | lpu.LayerNormOp):
        return op.epsilon.value.data > 0
    if not isinstance(op, lpu.FunctionOp):
        return True
    found = _padding(op.results[0])
    return not op.function.is_partial if found is None else bool(np.isfinite(found))


def _padding(value: SSAValue) -> np.float32 | None:
    """The number that every padded element of a value is; None: not known, or not the same for all."""
    op = value.owner
    if isinstance(op, lpu.ConstantOp):
        return np.float32(op.value.value.data)
    if isinstance(op, lpu.WeightOp):
        return np.float32(0)
    if has_trait(op, MovesData):
        return _common([_padding(operand) for operand in op.operands])
    if isinstance(op, lpu.UnaryOp | lpu.BinaryOp):
        return _computed(op)
    needed = op.zeros_from() if isinstance(op, lpu.KeepsZeros) else None
    return None if needed is None or any(_padding(operand) != 0 for operand in needed) else np.float32(0)


def _computed(op: lpu.UnaryOp | lpu.BinaryOp) -> np.float32 | None:
    wide = len(shape_of(op.results[0])) - 1
    found = [_padding(value) if len(shape_of(value)) in (0, wide, wide + 1) else None for value in op.operands]
    known = [one for one in found if one is not None]
    if isinstance(op, lpu.MulOp) and 0 in known:
        return np.float32(0)
    if len(known) < len(found):
        return None
    function = arithmetic.unary if len(known) == 1 else arithmetic.binary
    with quiet():
        return np.float32(function(op.mnemonic(), *map(np.asarray, known)))


def _common(found: list[np.float32 | None]) -> np.float32 | None:
    first, *others = found
    return first if all(one is not None and one == first for one in others) else None
