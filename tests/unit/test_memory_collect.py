"""The layout of a module takes no element types that memory has no place for."""

from __future__ import annotations

import pytest
from xdsl.dialects.builtin import Float64Type, IntegerType, TensorType, f16, f32
from xdsl.ir import Attribute

from hyperdex_ir.dialects.lpu import WeightOp
from hyperdex_ir.errors import LoweringError
from hyperdex_ir.memory.collect import parameter_of


def weight(element: Attribute) -> WeightOp:
    return WeightOp(["a.weight"], TensorType(element, [4, 64]))


@pytest.mark.parametrize("element", [IntegerType(99999999), IntegerType(8), Float64Type()], ids=str)
def test_weights_of_other_elements_are_one_line(element: Attribute) -> None:
    line = rf"^a\.weight: elements of type {element}, stored are f16, bf16, f32$"
    with pytest.raises(LoweringError, match=line):
        parameter_of(weight(element))


@pytest.mark.parametrize("element", [f16, f32], ids=str)
def test_weights_of_stored_elements(element: Attribute) -> None:
    assert parameter_of(weight(element)).dtype == str(element)
