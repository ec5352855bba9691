"""What padding becomes: where a device's part ends in zeros, no operation may make a NaN or an infinity of them.

The zeros are in parameters, and where a device selects columns that are not there; what follows from them is found by
computing with the one number that all padding of a value has.
"""

from __future__ import annotations

import numpy as np
from xdsl.ir import Operation, SSAValue

from hyperdex_ir.dialects import lpu
from hyperdex_ir.dialects.lpu import ShardingAttr, shape_of
from hyperdex_ir.interpreter import arithmetic
from hyperdex_ir.interpreter.arithmetic import quiet

#: Operations that give zeros for zeros, or hand on what they are given, whatever their parameters hold.
_ZEROS = (
    lpu.LinearOp,
    lpu.ExpertLinearOp,
    lpu.EmbeddingOp,
    lpu.RmsNormOp,
    lpu.LayerNormOp,
    lpu.RotaryOp,
    lpu.AttentionOp,
    lpu.ShortConvOp,
)
_MOVING = (lpu.ReshapeOp, lpu.TransposeOp, lpu.SliceOp, lpu.BroadcastOp, lpu.SelectRowsOp)
#: Operations whose result is not finite for some finite operands.
_RISKY = (lpu.DivOp, lpu.SqrtOp, lpu.RsqrtOp)


def is_harmless(op: Operation, sharding: ShardingAttr) -> bool:
    """Whether an operation whose result is sharded like this makes nothing of padding that is not finite."""
    padded = any(start + one.size > one.extent for one in sharding.segments for start in one.starts)
    if not padded or not isinstance(op, (*_RISKY, lpu.RmsNormOp, lpu.LayerNormOp)):
        return True
    if isinstance(op, lpu.RmsNormOp | lpu.LayerNormOp):
        return op.epsilon.value.data > 0
    found = _padding(op.results[0])
    return found is not None and bool(np.isfinite(found))


def _padding(value: SSAValue) -> np.float32 | None:
    """The number that every padded element of a value is; None: not known, or not the same for all."""
    op = value.owner
    if isinstance(op, lpu.ConstantOp):
        return np.float32(op.value.value.data)
    if isinstance(op, lpu.WeightOp):
        return np.float32(0)
    if isinstance(op, _MOVING):
        return _padding(op.operands[0])
    if isinstance(op, lpu.ConcatOp):
        return _common([_padding(part) for part in op.inputs])
    if isinstance(op, lpu.UNARY_OPS + lpu.BINARY_OPS):
        return _computed(op)
    if isinstance(op, lpu.MeanOp | lpu.SumOp | lpu.RowMaxOp):
        found = _padding(op.x)
        return found if found == 0 else None
    return np.float32(0) if isinstance(op, _ZEROS) and _is_plain(op) else None


def _computed(op: Operation) -> np.float32 | None:
    wide = len(shape_of(op.results[0])) - 1
    found = [_padding(value) if len(shape_of(value)) in (0, wide, wide + 1) else None for value in op.operands]
    known = [one for one in found if one is not None]
    if isinstance(op, lpu.MulOp) and 0 in known:
        return np.float32(0)
    if len(known) < len(found):
        return None
    function = arithmetic.unary if len(known) == 1 else arithmetic.binary
    with quiet():
        return np.float32(function(op.name.removeprefix("lpu."), *map(np.asarray, known)))


def _common(found: list[np.float32 | None]) -> np.float32 | None:
    return found[0] if all(one is not None and one == found[0] for one in found) else None


def _is_plain(op: Operation) -> bool:
    """Whether zero weights, and a zero bias, are all there is."""
    if isinstance(op, lpu.LinearOp):
        return len(shape_of(op.res)) == 2 and all(part is None for part in (op.activation, op.plus, op.softcap))
    if isinstance(op, lpu.ExpertLinearOp):
        return op.activation is None
    if isinstance(op, lpu.LayerNormOp):
        return op.bias is None
    return not isinstance(op, lpu.RmsNormOp | lpu.RotaryOp) or _padding(op.x) == 0
