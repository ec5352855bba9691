"""Equal layers are traced twice at most: the module is that of the whole trace, and what is not equal is noticed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support import chosen
from support.models.architectures import CASES, write_config
from torch import nn

from hyperdex_ir.frontend.config import read_config
from hyperdex_ir.frontend.equal_layers import IrregularLayersError, find_equal_layers
from hyperdex_ir.frontend.model import _imported
from hyperdex_ir.frontend.trace import trace
from hyperdex_ir.support.xdsl import print_module

#: One for each way in which layers are kinds: windows and tables, experts, convolutions, closures, scales.
CHOICE = ("gemma3", "deepseek_v3", "lfm2", "falcon-slopes", "gpt2-scales")


@pytest.mark.slow
@pytest.mark.parametrize("name", chosen(CASES, *CHOICE))
def test_the_module_is_that_of_the_whole_trace(name: str, tmp_path: Path) -> None:
    folder = write_config(CASES[name], tmp_path / "model")
    architecture = read_config(folder).architecture
    once, whole = trace(folder, architecture, once=True), trace(folder, architecture)
    if name in CHOICE:  # each layer of gpt2-scales has a scale of its own
        assert (once.equal is None) == (name == "gpt2-scales")
    assert len(once.program.graph.nodes) <= len(whole.program.graph.nodes)
    imported = [_imported(traced, architecture, "f16", outlined=True) for traced in (once, whole)]
    texts = [print_module(one.module, locations=True) for one in imported]
    assert texts[0] == texts[1]
    assert imported[0].transposed == imported[1].transposed
    assert imported[0].sources == imported[1].sources


# ---------------------------------------------------------------------------------------------------- what is equal
class Layer(nn.Module):
    def __init__(self, number: int, size: int = 4, scale: float = 1.0, compute: Callable[..., Any] = torch.add):
        super().__init__()
        self.number = number
        self.scale = scale
        self.linear = nn.Linear(size, 4)
        self.compute = compute

    def forward(self, x: torch.Tensor, other: Any = None) -> torch.Tensor:
        return self.compute(x, self.linear(x) * self.scale)


class Model(nn.Module):
    def __init__(self, layers: list[Layer]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def others(self) -> list[Any]:
        return [None] * len(self.layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer, other in zip(self.layers, self.others(), strict=True):
            x = layer(x, other)
        return x


def of(make: Callable[[int], Layer], count: int = 4) -> Model:
    return Model([make(number) for number in range(count)])


def kinds(model: Model) -> tuple[int, ...] | None:
    equal = find_equal_layers(model, {})
    return None if equal is None else equal.kinds


def run(model: Model) -> torch.Tensor:
    equal = find_equal_layers(model, {})
    assert equal is not None
    with equal.once():
        return model(torch.ones(1, 4))


def test_the_first_and_the_last_of_each_kind_run() -> None:
    model = of(Layer)
    before = [dict(vars(module)) for module in model.modules()]
    result = run(model)
    x = torch.ones(1, 4)
    assert torch.equal(result, model.layers[3](model.layers[0](x)))
    assert [vars(module) for module in model.modules()] == before


def test_attributes_shapes_and_values_tell_kinds_apart() -> None:
    assert kinds(of(Layer)) == (0, 0, 0, 0)
    assert kinds(of(lambda n: Layer(n, scale=n % 2))) == (0, 1, 0, 1)
    assert kinds(of(lambda n: Layer(n, compute=torch.add if n else torch.sub))) == (0, 1, 1, 1)
    assert kinds(of(lambda n: Layer(n, scale=n / 2))) is None
    model = of(Layer)
    model.layers[2].linear = nn.Linear(4, 4, bias=False)
    assert kinds(model) == (0, 0, 2, 0)


def test_closures_are_equal_when_what_they_hold_is() -> None:
    def patched(factor: Callable[[int], float]) -> Model:
        def make(module: Any, number: int) -> Callable[..., torch.Tensor]:
            held = factor(number)
            return lambda x, other: module.linear(x) * held

        model = of(Layer)
        for number, layer in enumerate(model.layers):
            layer.forward = make(layer, number)
        return model

    assert kinds(patched(lambda _: 2.0)) == (0, 0, 0, 0)
    assert kinds(patched(lambda number: float(number % 2))) == (0, 1, 0, 1)


def test_parameters_that_layers_share_are_traced_whole() -> None:
    model = of(Layer)
    model.layers[1].linear.weight = model.layers[0].linear.weight
    assert kinds(model) is None


def test_hooks_are_not_equal() -> None:
    model = of(Layer)
    model.layers[1].register_forward_hook(lambda *_: None)
    assert kinds(model) == (0, 1, 0, 0)


# ---------------------------------------------------------------------------------------------------- what is checked
@pytest.mark.parametrize(
    "use", [lambda n: n + 1, lambda n: n % 2 == 0, lambda n: [1.0] * n, lambda n: (1, 2, 3, 4)[n], float, str, bool]
)
def test_a_layer_that_looks_at_its_number_is_noticed(use: Callable[[int], Any]) -> None:
    class Looking(Layer):
        def forward(self, x: torch.Tensor, other: Any = None) -> torch.Tensor:
            use(self.number)
            return super().forward(x, other)

    with pytest.raises(IrregularLayersError, match="its number"):
        run(of(Looking))


@pytest.mark.parametrize(
    "others",
    [[1, 2, 1, 1], [None, torch.ones(1), None, None], [torch.ones(1) for _ in range(4)], [{} for _ in range(4)]],
    ids=["numbers", "one tensor", "other tensors", "what can be changed"],
)
def test_layers_that_are_called_otherwise_are_noticed(others: list[Any]) -> None:
    model = of(Layer)
    model.others = lambda: others
    with pytest.raises(IrregularLayersError, match=r"arguments|takes a dict"):
        run(model)


def test_layers_that_are_given_the_same_are_called_alike() -> None:
    model, same = of(Layer), torch.ones(1)
    model.others = lambda: [(same, same)] * 4
    assert torch.isfinite(run(model)).all()


def test_a_layer_that_runs_twice_is_noticed() -> None:
    class Twice(Model):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers[0](super().forward(x))

    with pytest.raises(IrregularLayersError, match="twice"):
        run(Twice([Layer(number) for number in range(3)]))
