"""Short causal convolutions: the one operation besides attention that mixes tokens."""

from __future__ import annotations

from typing import ClassVar

from xdsl.dialects.builtin import DYNAMIC_INDEX, IntegerAttr, f32
from xdsl.ir import Operation, SSAValue
from xdsl.irdl import (
    ParsePropInAttrDict,
    VarConstraint,
    operand_def,
    opt_operand_def,
    result_def,
)

from hyperdex_ir.dialects.lpu_ops.base import TENSOR, element_of, require, shape_of
from hyperdex_ir.dialects.lpu_ops.traits import KeepsZeros, StatefulOp

Value = SSAValue | Operation


class ShortConvOp(StatefulOp, KeepsZeros):
    """A weighted sum of each row and the L - 1 rows before it, column by column, then a bias where there is one.

    y[t] = taps[0] * x[t - L + 1]; y[t] = y[t] + taps[j] * x[t - L + 1 + j] for j = 1 .. L - 1; y[t] = y[t] + bias.
    x: [?, C]; taps: [C, 1, L] of f32, as checkpoints hold them; bias: [C]. Rows before the text are zeros. Rows of
    earlier steps are in the slot, which is numbered together with those of attention.
    """

    name = "lpu.short_conv"
    T: ClassVar = VarConstraint("T", TENSOR)
    x = operand_def(T)
    taps = operand_def(TENSOR)
    bias = opt_operand_def(TENSOR)
    res = result_def(T)
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = (
        "$x `by` $taps (`bias` $bias^ `:` type($bias))? `slot` $slot attr-dict `:` type($taps) `->` type($res)"
    )

    def __init__(self, x: Value, taps: Value, bias: Value | None = None, *, slot: int):
        value = SSAValue.get(x)
        super().__init__(
            operands=[value, taps, [] if bias is None else [bias]],
            properties={"slot": IntegerAttr(slot, 64)},
            result_types=[value.type],
        )

    @property
    def history(self) -> int:
        """L - 1: the number of rows before the current one that are read."""
        return shape_of(self.taps)[2] - 1

    def verify_(self) -> None:
        x, taps = shape_of(self.x), shape_of(self.taps)
        require(len(taps) == 3 and taps[1] == 1 and taps[2] > 0, "lpu.short_conv: the taps must be [C, 1, L]")
        require(element_of(self.taps) == f32, "lpu.short_conv: the taps must be f32")
        require(x == (DYNAMIC_INDEX, taps[0]), f"lpu.short_conv: x must be [?, {taps[0]}], as there are taps")
        require(self.bias is None or shape_of(self.bias) == taps[:1], "lpu.short_conv: the bias must be [C]")
