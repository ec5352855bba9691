"""The layout of a module takes no element types that memory has no place for, and no endless stacks of layers."""

from __future__ import annotations

from math import prod

import pytest
from xdsl.dialects.builtin import Float64Type, IntegerType, TensorType, f16, f32
from xdsl.ir import Attribute

from hyperdex_ir.dialects.lpu import WeightOp
from hyperdex_ir.errors import LoweringError
from hyperdex_ir.memory.collect import MAX_LAYERS, find_function, parameter_of, running_order
from hyperdex_ir.support.xdsl import parse_module


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


LAYER = "%r = lpu.layer @layer(%{x}) : (tensor<?x4xf32>) -> tensor<?x4xf32>"
NO_LAYER = "%r = lpu.silu %{x} : tensor<?x4xf32>"


def stack(*trips: int, body: str = LAYER) -> str:
    """A module whose @main runs `body` in repeats inside each other."""
    text = body.format(x=f"x{len(trips)}")
    for depth in reversed(range(len(trips))):
        text = f"""%r = lpu.repeat {trips[depth]} (%x{depth + 1} = %x{depth} : tensor<?x4xf32>) {{
          {text.replace("%r", f"%r{depth}")}
          lpu.yield %r{depth} : tensor<?x4xf32>
        }}"""
    return f"""func.func @main(%x0: tensor<?x4xf32>) -> tensor<?x4xf32> {{
      {text}
      func.return %r : tensor<?x4xf32>
    }}"""


@pytest.mark.parametrize("trips", [(30,), (8, 4), (MAX_LAYERS,)], ids=str)
def test_every_layer_of_a_stack(trips: tuple[int, ...]) -> None:
    main = find_function(parse_module(stack(*trips)), "main")
    assert running_order(main) == ["layer"] * prod(trips)


@pytest.mark.parametrize("trips", [(MAX_LAYERS + 1,), (10**12,), (4096, 4096, 4096), (2**62, 2**62, 2**62)], ids=str)
def test_a_stack_without_end_is_one_line(trips: tuple[int, ...]) -> None:
    main = find_function(parse_module(stack(*trips)), "main")
    with pytest.raises(LoweringError, match=r"^@main runs more than 4096 layers$"):
        running_order(main)


def test_trips_around_no_layer_take_no_time() -> None:
    module = parse_module(stack(2**62, 2**62, body=NO_LAYER))
    assert running_order(find_function(module, "main")) == []
