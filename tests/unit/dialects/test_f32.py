"""float32 numbers in the IR: exact as text, refused in one line when there is none."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects.builtin import FloatAttr, ModuleOp, TensorType, f16, f32, i64

from hyperdex_ir.dialects import lpu
from hyperdex_ir.dialects.f32 import f32_attr
from hyperdex_ir.errors import CapacityError, PassError
from hyperdex_ir.support.xdsl import parse_module, print_module


def _bits(attribute: FloatAttr) -> bytes:
    return struct.pack("<f", attribute.value.data)


@given(st.floats(width=32, allow_nan=False))
def test_every_number_reads_back(number: float) -> None:
    module = ModuleOp([lpu.ConstantOp(number)])
    (again,) = parse_module(print_module(module)).ops
    assert isinstance(again, lpu.ConstantOp)
    assert _bits(again.value) == struct.pack("<f", number)


@pytest.mark.parametrize("number", [16777216.0, 1e10, float("inf"), -1e20, 0.1])
def test_every_operation_with_a_number_reads_back(number: float) -> None:
    x = lpu.WeightOp(["x"], TensorType(f32, [4, 4, 8]))
    w = lpu.WeightOp(["w"], TensorType(f16, [8, 8]))
    table = lpu.WeightOp(["t"], TensorType(f16, [8, 8]))
    index = lpu.WeightOp(["i"], TensorType(i64, [4]))
    ops = [
        lpu.LinearOp(x, w, scale=number, softcap=number),
        lpu.RmsNormOp(x, None, number),
        lpu.LayerNormOp(x, None, None, number),
        lpu.AttentionOp(x, x, x, slot=0, scale=number, softcap=number),
        lpu.EmbeddingOp(table, index, scale=number),
    ]
    text = print_module(ModuleOp([x, w, table, index, *ops]))
    assert print_module(parse_module(text)) == text


MAKERS: dict[str, Callable[[float], object]] = {
    "attribute": f32_attr,
    "constant": lpu.ConstantOp,
    "norm": lambda number: lpu.RmsNormOp(lpu.ConstantOp(1.0), None, number),
    "scale": lambda number: lpu.LinearOp(
        lpu.WeightOp(["x"], TensorType(f32, [4, 8])), lpu.WeightOp(["w"], TensorType(f16, [8, 8])), scale=number
    ),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("number", [1e39, -3.5e38])
def test_numbers_beyond_float32_are_refused(make: Callable[[float], object], number: float) -> None:
    with pytest.raises(CapacityError, match="is outside float32"):
        make(number)


def test_text_beyond_float32_is_refused_at_its_column() -> None:
    with pytest.raises(PassError, match=r"<text>:1:14: outside float32"):
        parse_module("lpu.constant 1.0e+39 : tensor<f32>")


def test_generic_text_beyond_float32_is_refused() -> None:
    with pytest.raises(PassError, match=r"<text>: a number is outside its type"):
        parse_module('%c = "lpu.constant"() <{value = 1.0e+39 : f32}> : () -> tensor<f32>')
