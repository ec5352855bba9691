"""The layout of a module takes no element types that memory has no place for."""

from __future__ import annotations

import pytest
from xdsl.dialects.builtin import Float64Type, IntegerType, TensorType, f16, f32
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, Operation, Region

from hyperdex_ir.dialects.lpu import LayerOp, RepeatOp, WeightOp
from hyperdex_ir.errors import LoweringError
from hyperdex_ir.memory.collect import parameter_of, running_order


def weight(element: Attribute) -> WeightOp:
    return WeightOp(["a.weight"], TensorType(element, [4, 64]))


@pytest.mark.parametrize("element", [IntegerType(99999999), IntegerType(8), Float64Type()], ids=str)
def test_weights_of_other_elements_are_one_line(element: Attribute) -> None:
    line = rf"^a\.weight: elements of type {element}, stored are f16, bf16, f32$"
    with pytest.raises(LoweringError, match=line):
        parameter_of(weight(element))


@pytest.mark.parametrize("counts", [(1 << 60,), (1 << 10, 1 << 10), (1,) * 3 + (131_073,)])
@pytest.mark.parametrize("layers", [0, 1])
def test_layers_that_run_again_and_again(counts: tuple[int, ...], layers: int) -> None:
    ops: list[Operation] = [LayerOp("layer", [], []) for _ in range(layers)]
    for count in counts:
        ops = [RepeatOp(count, [], Region(Block(ops)))]
    main = FuncOp("main", ((), ()), Region(Block(ops)))
    if not layers:
        assert running_order(main) == []
        return
    with pytest.raises(LoweringError, match=r"^more than 131072 layers$"):
        running_order(main)


@pytest.mark.parametrize("element", [f16, f32], ids=str)
def test_weights_of_stored_elements(element: Attribute) -> None:
    assert parameter_of(weight(element)).dtype == str(element)
