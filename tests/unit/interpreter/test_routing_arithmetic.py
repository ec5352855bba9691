"""Routed experts against an implementation of docs/arithmetic.md that shares no code with this package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from support.models.imported import random_parameters
from support.models.routed_modules import KINDS, LENGTH, VOCAB, routed_model
from support.models.second_implementation import mac, round_bf16, round_f16, silu

from hyperdex_ir.dialects import lpu
from hyperdex_ir.interpreter.lpu import LpuInterpreter
from hyperdex_ir.interpreter.routing import top_k

ROUNDED = {"f16": round_f16, "bf16": round_bf16}


def chosen(scores: Sequence[float], k: int, groups: int, top_groups: int) -> list[int]:
    """The choice of experts, for numbers: sorted by size, then by place."""
    size = len(scores) // groups
    members = [range(group * size, (group + 1) * size) for group in range(groups)]

    def group_score(group: int) -> np.float32:
        best, second = sorted((np.float32(scores[i]) for i in members[group]), reverse=True)[:2]
        return best + second

    order = sorted(range(groups), key=lambda group: (-group_score(group), group)) if groups > 1 else [0]
    allowed = [i for group in order[:top_groups] for i in members[group]]
    return sorted(allowed, key=lambda i: (-scores[i], i))[:k]


@pytest.mark.parametrize(
    ("columns", "k", "groups", "top_groups"), [(9, 3, 1, 1), (1, 1, 1, 1), (12, 5, 4, 2), (14, 2, 7, 1)]
)
def test_the_largest_are_chosen_and_ties_go_to_the_lowest(columns: int, k: int, groups: int, top_groups: int):
    random = np.random.default_rng(columns)
    scores = random.integers(-2, 3, (200, columns)).astype(np.float32)  # mostly ties
    scores[random.random(scores.shape) < 0.2] *= np.float32(-0.0)
    scores[:50] += random.standard_normal((50, columns)).astype(np.float32)
    expected = [chosen(row.tolist(), k, groups, top_groups) for row in scores]
    assert top_k(scores, k, groups, top_groups).tolist() == expected


def _walked(row: Sequence[float], k: int) -> list[int]:
    """The definition itself, for rows with NaN."""
    left, found = list(range(len(row))), []
    for _ in range(k):
        best = left[0]
        for i in left[1:]:
            if row[i] > row[best]:
                best = i
        left.remove(best)
        found.append(best)
    return found


def test_with_nan_the_choice_is_still_defined():
    random = np.random.default_rng(5)
    scores = random.standard_normal((100, 7)).astype(np.float32)
    scores[random.random(scores.shape) < 0.4] = np.nan
    assert top_k(scores, 3).tolist() == [_walked(row.tolist(), 3) for row in scores]


def _linear(op: lpu.ExpertLinearOp, x: Any, matrix: Any, bias: Any, rounded: Any) -> np.ndarray:
    """Section 4 for one row."""
    y = mac(matrix, x, rounded)
    y = y if bias is None else y + bias
    if op.gated is None:
        return y
    assert op.activation is not None
    assert op.activation.data == "silu"
    return silu(y[: len(y) // 2]) * y[len(y) // 2 :]


def _experts(op: lpu.ExpertLinearOp, operands: Sequence[np.ndarray], matrix_type: str) -> np.ndarray:
    x, matrices, indices, *rest = operands
    bias = rest.pop(0) if op.bias is not None else None
    if matrices.dtype == np.uint16:
        matrices = (matrices.astype(np.uint32) << 16).view(np.float32)
    matrices, rows = matrices.astype(np.float32), []
    for row, experts in enumerate(indices):
        ranks = []
        for rank, expert in enumerate(experts):
            source = x[row] if x.ndim == 2 else x[row, :, rank]
            own = None if bias is None else bias[expert]
            ranks.append(_linear(op, source, matrices[expert], own, ROUNDED[matrix_type]))
        if op.sum is None:
            rows.append(np.stack(ranks, axis=1))
            continue
        total = ranks[0] * rest[0][row, 0]
        for rank in range(1, len(ranks)):
            total = total + ranks[rank] * rest[0][row, rank]
        rows.append(total)
    return np.stack(rows)


@pytest.mark.parametrize("matrix_type", ["f16", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
def test_experts_give_the_bits_of_the_definition(kind: str, matrix_type: str):
    module = routed_model(kind, matrix_type, layers=2)
    seen = []

    def compare(op: Any, operands: tuple[np.ndarray, ...], results: tuple[np.ndarray, ...]) -> None:
        if isinstance(op, lpu.TopKOp):
            expected = [chosen(row.tolist(), op.k.value.data, *op.limits) for row in operands[0]]
            assert results[0].tolist() == expected
        elif isinstance(op, lpu.TakeColumnsOp):
            assert np.array_equal(results[0], [x[i] for x, i in zip(*operands, strict=True)])
        elif isinstance(op, lpu.ExpertLinearOp):
            assert np.array_equal(results[0], _experts(op, operands, matrix_type))
        else:
            return
        seen.append(type(op))

    tokens = np.random.default_rng(3).integers(0, VOCAB, 11).tolist()
    LpuInterpreter(module, random_parameters(module, {}.__getitem__), LENGTH, compare).forward(tokens, 0, 0)
    assert seen == 2 * [lpu.TopKOp, lpu.TakeColumnsOp, lpu.ExpertLinearOp, lpu.ExpertLinearOp]
