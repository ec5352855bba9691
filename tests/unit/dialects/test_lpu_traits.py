"""Operations of the `lpu` dialect are what their traits say, on the interpreter; every operation with a trait."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.dialects import test
from xdsl.dialects.builtin import DYNAMIC_INDEX, TensorType, f16, f32, i64
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.traits import OpTrait, is_side_effect_free

from hyperdex_ir.dialects import lpu
from hyperdex_ir.interpreter import lpu as interpreter
from hyperdex_ir.interpreter.arithmetic import quiet
from hyperdex_ir.interpreter.lpu_ops import MEANINGS, RunState
from hyperdex_ir.isa.functions import FUNCTIONS
from hyperdex_ir.passes.sharding_rules import RULES

TOKENS = 5
T = DYNAMIC_INDEX


def value(*shape: int, element: Attribute = f32) -> SSAValue:
    return test.TestOp(result_types=[TensorType(element, shape)]).results[0]


def _examples() -> list[lpu.LpuOp]:
    x, wide, heads, column = value(T, 4), value(T, 6), value(T, 2, 4), value(T, 1)
    index, ranks, scores = value(T, element=i64), value(T, 2, element=i64), value(T, 2)
    matrix, matrices = value(6, 4, element=f16), value(4, 6, 4, element=f16)
    angles = value(T, 4)
    functions = [
        op(x, value(4)) if issubclass(op, lpu.BinaryOp) else op(x)
        for op in lpu.OPERATIONS
        if issubclass(op, lpu.UnaryOp | lpu.BinaryOp | lpu.ReduceOp)
    ]
    return [
        *functions,
        lpu.EmbeddingOp(value(8, 4, element=f16), index, scale=3.0),
        lpu.RotaryTableOp(value(8, 2, 4), index),
        lpu.LinearOp(x, matrix, value(6), scale=3.0, times=wide),
        lpu.LinearOp(x, matrix, softcap=2.0, activation="silu", gated=True, plus=value(T, 3)),
        lpu.LinearOp(heads, matrix),
        lpu.RmsNormOp(x, value(4), 1e-5),
        lpu.LayerNormOp(x, value(4), None, 1e-5, unit_offset=True),
        lpu.LayerNormOp(x, value(4), value(4), 1e-5),
        lpu.RotaryOp(heads, angles, angles, "half"),
        lpu.RotaryOp(heads, angles, angles, "interleaved"),
        lpu.AttentionOp(heads, heads, heads, slot=0, scale=0.5),
        lpu.ShortConvOp(x, value(4, 1, 3), value(4), slot=0),
        lpu.TopKOp(wide, 2),
        lpu.TakeColumnsOp(wide, ranks),
        lpu.ExpertLinearOp(x, matrices, ranks, value(4, 6), gated=True, sum=scores),
        lpu.ExpertLinearOp(x, matrices, ranks, activation="relu"),
        lpu.ReshapeOp(x, (T, 2, 2)),
        lpu.TransposeOp(heads, (0, 2, 1)),
        lpu.SliceOp(x, 1, 1, 4, 2),
        lpu.ConcatOp([x, wide], 1),
        lpu.BroadcastOp(column, (T, 4)),
        lpu.SelectRowsOp(x),
        lpu.SelectColumnsOp(x, 3),
    ]


EXAMPLES = _examples()
#: Joined by the interpreter itself, from all devices: column beside column.
_NOT_ON_ONE_DEVICE = lpu.AllGatherOp


def of(kind: type[OpTrait] | type[lpu.LpuOp]) -> Any:
    """The examples of a trait or interface; each operation that has it has one."""
    is_trait = issubclass(kind, OpTrait)

    def has(op: type[Operation]) -> bool:
        return op.has_trait(kind) if is_trait else issubclass(op, kind)

    found = [op for op in EXAMPLES if has(type(op))]
    missing = {op for op in lpu.OPERATIONS if has(op)} - {type(op) for op in found} - {_NOT_ON_ONE_DEVICE}
    assert not missing, missing
    return pytest.mark.parametrize("op", [pytest.param(op, id=f"{op.mnemonic()}{EXAMPLES.index(op)}") for op in found])


def arrays_for(op: Operation, tokens: int = TOKENS) -> list[np.ndarray]:
    """Operands; of integers those that are indices of everything."""
    rng = np.random.default_rng(7)
    made: dict[SSAValue, np.ndarray] = {}
    for operand in op.operands:
        shape = [tokens if extent == T else extent for extent in lpu.shape_of(operand)]
        if lpu.element_of(operand) == i64:
            made.setdefault(operand, rng.integers(0, 4, shape))
        else:
            numbers = rng.standard_normal(shape).astype(np.float32)
            made.setdefault(operand, numbers.astype(np.float16) if lpu.element_of(operand) == f16 else numbers)
    return [made[operand] for operand in op.operands]


def run(op: Operation, arrays: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    meaning = MEANINGS.get(type(op))
    assert meaning is not None
    with quiet():
        return meaning(RunState(lambda key: np.zeros(0), "f16", 64, rows=TOKENS), op, tuple(arrays))


def bits(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array).tobytes()


def rows_of(type_: Attribute, array: np.ndarray, rows: list[int]) -> np.ndarray:
    assert isinstance(type_, TensorType)
    return array.take(rows, axis=type_.get_shape().index(T)) if T in type_.get_shape() else array


@of(lpu.RowWise)
@settings(max_examples=5, deadline=None)
@given(rows=st.lists(st.integers(0, TOKENS - 1), min_size=1, max_size=TOKENS))
def test_each_row_follows_from_its_own(op: lpu.LpuOp, rows: list[int]) -> None:
    arrays = arrays_for(op)
    chosen = [rows_of(operand.type, array, rows) for operand, array in zip(op.operands, arrays, strict=True)]
    for result, all_rows, of_chosen in zip(op.results, run(op, arrays), run(op, chosen), strict=True):
        assert bits(of_chosen) == bits(rows_of(result.type, all_rows, rows))


@pytest.mark.parametrize("op", [lpu.SelectRowsOp, lpu.AttentionOp, lpu.ShortConvOp])
def test_what_mixes_tokens_is_not_row_wise(op: type[lpu.LpuOp]) -> None:
    assert not op.has_trait(lpu.RowWise)


@of(lpu.Elementwise)
def test_each_element_follows_from_those_at_its_place(op: lpu.LpuOp) -> None:
    arrays = [np.broadcast_to(array, (TOKENS, 4)) for array in arrays_for(op)]
    (together,) = run(op, arrays)
    for place in np.ndindex(TOKENS, 4):
        (alone,) = run(op, [np.array([array[place]]) for array in arrays])
        assert bits(alone) == bits(together[place])


@of(lpu.MovesData)
def test_elements_are_those_of_the_operands(op: lpu.LpuOp) -> None:
    arrays = arrays_for(op)
    (result,) = run(op, arrays)
    assert set(result.flat) <= {number for array in arrays for number in array.flat}
    if op.has_trait(lpu.IsView):
        assert np.may_share_memory(result, arrays[0])


@of(lpu.KeepsZeros)
def test_zeros_follow_from_zeros(op: lpu.KeepsZeros) -> None:
    needed = op.zeros_from()
    if needed is None:
        others = [one for one in EXAMPLES if type(one) is type(op) and isinstance(one, lpu.KeepsZeros)]
        assert any(one.zeros_from() is not None for one in others)
        return
    arrays = [
        np.zeros_like(array) if operand in needed or T not in lpu.shape_of(operand) else array
        for operand, array in zip(op.operands, arrays_for(op), strict=True)
    ]
    (result,) = run(op, arrays)
    assert result.size > 0
    assert not result.any()


def test_sources_take_nothing() -> None:
    sources = [op for op in lpu.OPERATIONS if op.has_trait(lpu.Source)]
    assert sources == [lpu.WeightOp, lpu.ConstantOp, lpu.LayerConstantOp]
    made = [lpu.WeightOp(["w"], TensorType(f32, [4])), lpu.ConstantOp(1.0), lpu.LayerConstantOp("c.*", [1.0])]
    assert not any(op.operands for op in made)


@pytest.mark.parametrize("op", EXAMPLES, ids=lambda op: op.mnemonic())
def test_what_keeps_nothing_has_no_effects(op: lpu.LpuOp) -> None:
    assert is_side_effect_free(op) != isinstance(op, lpu.StatefulOp)


@pytest.mark.parametrize("function", [one for one in FUNCTIONS if one.is_operation], ids=lambda one: one.name)
def test_only_partial_functions_leave_the_finite_numbers(function: Any) -> None:
    (op,) = (one for one in EXAMPLES if one.mnemonic() == function.name)
    numbers = np.array([-3, -1, -0.0, 0, 0.5, 2], np.float32)
    pairs = np.stack(np.meshgrid(numbers, numbers)).reshape(2, -1, 1)
    (result,) = run(op, list(pairs[: function.arity]))
    assert np.isfinite(result).all() != function.is_partial


def test_operations_without_a_sharding_rule() -> None:
    """Their results are whole on every device; the sharding of others follows from what they do."""
    sources = {lpu.WeightOp, lpu.ConstantOp, lpu.LayerConstantOp}
    control = {lpu.RepeatOp, lpu.YieldOp, lpu.LayerOp, lpu.LayersOp}
    routing = {lpu.RotaryTableOp, lpu.TopKOp, lpu.TakeColumnsOp}
    without = {op for op in lpu.OPERATIONS if RULES.get(op) is None}
    assert without == sources | control | routing | {lpu.AllGatherOp, lpu.SelectColumnsOp}
    assert interpreter.MEANINGS is MEANINGS  # the interpreter has registered all of them
