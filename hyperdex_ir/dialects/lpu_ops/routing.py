"""Routed experts: each token chooses which of several matrices work on it.

A router scores the experts, `lpu.top_k` ranks the best ones, and `lpu.expert_linear` applies their matrices. Ranks are
the last dimension, behind the columns, so that a device's part is a range of the columns of each row.
"""

from __future__ import annotations

from xdsl.dialects.builtin import DYNAMIC_INDEX, I64, IntegerAttr, TensorType, UnitAttr, f32, i64
from xdsl.ir import Operation, SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    ParsePropInAttrDict,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure

from hyperdex_ir.dialects.lpu_ops.base import (
    TENSOR,
    LpuOp,
    element_of,
    is_matrix_element,
    require,
    shape_of,
    tokens_type,
)
from hyperdex_ir.dialects.lpu_ops.choices import ActivationAttr
from hyperdex_ir.dialects.lpu_ops.traits import KeepsZeros, RowWise

Value = SSAValue | Operation


def _columns(op: Operation, name: str, value: SSAValue) -> int:
    """C of a value [?, C]."""
    shape = shape_of(value)
    require(len(shape) == 2 and shape[0] == DYNAMIC_INDEX, f"{op.name}: {name} must be [?, columns]")
    return shape[1]


def _ranks(op: Operation, indices: SSAValue) -> int:
    """k of indices [?, k]."""
    ranks = _columns(op, "indices", indices)
    require(element_of(indices) == i64, f"{op.name}: indices must be i64")
    return ranks


class TopKOp(LpuOp):
    """The columns of the k largest numbers of each row, the largest first; of equal numbers the lowest column first.

    scores: [?, E] of f32; result: [?, k] of i64.
    groups, top_groups: the columns are `groups` groups of equal size, one after another. The score of a group is the
    sum of its two largest numbers; only columns of the `top_groups` groups with the largest scores (of equal ones the
    lowest) are chosen.
    """

    name = "lpu.top_k"
    scores = operand_def(TENSOR)
    k = prop_def(IntegerAttr[I64])
    groups = opt_prop_def(IntegerAttr[I64])
    top_groups = opt_prop_def(IntegerAttr[I64])
    res = result_def(TENSOR)
    traits = traits_def(Pure(), RowWise())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = (
        "$scores `k` $k (`groups` $groups^ `top` $top_groups)? attr-dict `:` functional-type(operands, results)"
    )

    def __init__(self, scores: Value, k: int, *, groups: int | None = None, top_groups: int | None = None):
        super().__init__(
            operands=[scores],
            properties={
                "k": IntegerAttr(k, 64),
                "groups": None if groups is None else IntegerAttr(groups, 64),
                "top_groups": None if top_groups is None else IntegerAttr(top_groups, 64),
            },
            result_types=[tokens_type(k, element=i64)],
        )

    @property
    def limits(self) -> tuple[int, int]:
        """(groups, groups that may be chosen from); (1, 1) without groups."""
        if self.groups is None or self.top_groups is None:
            return 1, 1
        return self.groups.value.data, self.top_groups.value.data

    def verify_(self) -> None:
        columns, k = _columns(self, "scores", self.scores), self.k.value.data
        require((self.groups is None) == (self.top_groups is None), "lpu.top_k: groups and top go together")
        require(_ranks(self, self.res) == k, "lpu.top_k: result shape")
        groups, chosen = self.limits
        require(1 <= chosen <= groups, f"lpu.top_k: top {chosen} of {groups} groups")
        require(columns % groups == 0, f"lpu.top_k: {columns} columns are not {groups} equal groups")
        require(self.groups is None or columns >= 2 * groups, "lpu.top_k: a group needs at least two columns")
        there = columns // groups * chosen
        require(1 <= k <= there, f"lpu.top_k: k is {k}, must be in 1..{there}")


class TakeColumnsOp(LpuOp):
    """y[j] = x[indices[j]] for each row. x: [?, C] of f32; indices: [?, k] of i64; result: [?, k]."""

    name = "lpu.take_columns"
    x = operand_def(TENSOR)
    indices = operand_def(TENSOR)
    res = result_def(TENSOR)
    traits = traits_def(Pure(), RowWise())
    assembly_format = "$x `at` $indices attr-dict `:` functional-type(operands, results)"

    def __init__(self, x: Value, indices: Value):
        ranks = shape_of(SSAValue.get(indices))[1]
        super().__init__(operands=[x, indices], result_types=[tokens_type(ranks)])

    def verify_(self) -> None:
        _columns(self, "x", self.x)
        ranks = _ranks(self, self.indices)
        require(_columns(self, "the result", self.res) == ranks, "lpu.take_columns: result shape")


class ExpertLinearOp(KeepsZeros):
    """`lpu.linear` with the matrices that each token has chosen, rank by rank.

    y[:, j] = linear(x, weight[indices[j]], bias[indices[j]]) for rank j: MAC, bias, activation, gate, as `lpu.linear`.
    sum: the result is the sum over ranks, in their order, of y[:, j] * sum[j]; it begins with the product of rank 0.

    x: [?, K], the same for all ranks, or [?, K, k], column j for rank j; weight: [E, N, K] of the matrix type; indices:
    [?, k] of i64, each in 0..E-1; bias: [E, N]; sum: [?, k]; result: [?, N, k], with a sum [?, N].
    gated: weight [E, 2N, K], bias [E, 2N]; the activation works on columns 0 to N - 1, which are then multiplied by
    columns N to 2N - 1.
    """

    name = "lpu.expert_linear"
    x = operand_def(TENSOR)
    weight = operand_def(TENSOR)
    indices = operand_def(TENSOR)
    bias = opt_operand_def(TENSOR)
    sum = opt_operand_def(TENSOR)
    activation = opt_prop_def(ActivationAttr)
    gated = opt_prop_def(UnitAttr)
    res = result_def(TENSOR)
    traits = traits_def(Pure(), RowWise())
    irdl_options = (AttrSizedOperandSegments(as_property=True), ParsePropInAttrDict())
    assembly_format = (
        "$x `by` $weight `at` $indices (`gated` $gated^)? (`bias` $bias^ `:` type($bias))? (`then` $activation^)? "
        "(`sum` $sum^ `:` type($sum))? attr-dict `:` type($x) `,` type($weight) `,` type($indices) `->` type($res)"
    )

    def __init__(
        self,
        x: Value,
        weight: Value,
        indices: Value,
        bias: Value | None = None,
        *,
        activation: str | None = None,
        gated: bool = False,
        sum: Value | None = None,
    ):
        rows = shape_of(SSAValue.get(weight))[1]
        ranks = () if sum is not None else (shape_of(SSAValue.get(indices))[1],)
        super().__init__(
            operands=[x, weight, indices, bias, sum],
            properties={
                "activation": None if activation is None else ActivationAttr(activation),
                "gated": UnitAttr() if gated else None,
            },
            result_types=[TensorType(f32, [DYNAMIC_INDEX, rows // 2 if gated else rows, *ranks])],
        )

    @property
    def experts(self) -> int:
        """E: matrices to choose from."""
        return shape_of(self.weight)[0]

    @property
    def ranks(self) -> int:
        """k: matrices that work on each token."""
        return shape_of(self.indices)[1]

    @property
    def columns(self) -> int:
        """N: columns of the result."""
        rows = shape_of(self.weight)[1]
        return rows if self.gated is None else rows // 2

    @property
    def weight_columns(self) -> int:
        """K: columns of each matrix."""
        return shape_of(self.weight)[2]

    def zeros_from(self) -> tuple[SSAValue, ...] | None:
        return () if self.activation is None else None

    def verify_(self) -> None:
        x, weight, ranks = shape_of(self.x), shape_of(self.weight), _ranks(self, self.indices)
        require(len(weight) == 3, "lpu.expert_linear: the weight must be [E, N, K]")
        require(is_matrix_element(element_of(self.weight)), "lpu.expert_linear: the weight must be f16 or bf16")
        fits = x in ((DYNAMIC_INDEX, weight[2]), (DYNAMIC_INDEX, weight[2], ranks))
        require(fits, f"lpu.expert_linear: x must be [?, {weight[2]}] or [?, {weight[2]}, {ranks}]")
        require(self.gated is None or weight[1] % 2 == 0, "lpu.expert_linear: gated needs a weight of 2N rows")
        expected = (DYNAMIC_INDEX, self.columns) if self.sum is not None else (DYNAMIC_INDEX, self.columns, ranks)
        require(shape_of(self.res) == expected, "lpu.expert_linear: result shape")
        fits = self.bias is None or shape_of(self.bias) == weight[:2]
        require(fits, "lpu.expert_linear: the bias must have a row of the weight's rows for each expert")
        fits = self.sum is None or shape_of(self.sum) == (DYNAMIC_INDEX, ranks)
        require(fits, f"lpu.expert_linear: sum must be [?, {ranks}]")
