"""Every activation in transformers' table: the values of torch in float32, and the same bits from both executors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers.activations import ACT2CLS, ACT2FN

from hyperdex_ir.dialects.isa_program import to_program
from hyperdex_ir.frontend.family import ACTIVATIONS
from hyperdex_ir.frontend.graph import Graph
from hyperdex_ir.frontend.importer import import_graph
from hyperdex_ir.frontend.trace import export_module
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.lpu import LpuInterpreter
from hyperdex_ir.memory.collect import collect_layout
from hyperdex_ir.memory.map import plan_memory
from hyperdex_ir.native.machine import NativeMachine
from hyperdex_ir.passes.pipeline import run_pipeline
from hyperdex_ir.runtime.device import InterpreterDevice, MachineDevice
from hyperdex_ir.targets import load_target

NAMES = tuple(ACT2CLS)
#: Each token's row of the embedding holds arguments of the functions, exact in float16.
ARGUMENTS = np.concatenate([
    np.linspace(-12, 12, 193), np.linspace(-1, 1, 65), 0.1 * 2.0 ** -np.arange(12), -0.1 * 2.0 ** -np.arange(12),
    [0.0, -0.0, 40, -40, 100, -100, 6, -3, 20, 20.25],
]).astype(np.float16)  # fmt: skip
WIDTH = 13
ROWS = -(-len(ARGUMENTS) // WIDTH)
CHUNK = 16


class AllOfThem(nn.Module):
    """[1, T] ids -> [1, T, activations * WIDTH]"""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(ROWS, WIDTH)
        self.functions = nn.ModuleList([ACT2FN[name] for name in NAMES])

    def forward(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        x = self.embed(input_ids)
        return torch.cat([function(x) for function in self.functions], dim=-1)


@dataclass(frozen=True)
class Results:
    """[argument, activation] of float32: by torch, by the operations, by the two executors."""

    torch: np.ndarray
    lpu: np.ndarray
    interpreter: np.ndarray
    native: np.ndarray


def _model() -> AllOfThem:
    model = AllOfThem().float().eval()
    for name, function in zip(NAMES, model.functions, strict=True):
        if name == "xielu":
            assert isinstance(function, nn.Module)
            function.load_state_dict({
                "alpha_p": torch.tensor([0.3]), "alpha_n": torch.tensor([-0.4]), "beta": torch.tensor(0.5),
                "eps": torch.tensor(-1e-6),
            })  # fmt: skip
    rows = np.resize(ARGUMENTS, (ROWS, WIDTH)).astype(np.float32)
    model.embed.weight.data.copy_(torch.from_numpy(rows))
    return model


@pytest.fixture(scope="module")
def results() -> Results:
    model = _model()
    values = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    values["embed.weight"] = values["embed.weight"].astype(np.float16)
    tokens = list(range(ROWS))
    with torch.no_grad():
        expected = model(torch.tensor([tokens]), torch.tensor([tokens]))[0].numpy()
    graph = Graph(export_module(model.to("meta")), "", "AllOfThem", {}, {})
    module = import_graph(graph, target="u55c", max_length=ROWS, matrix_type="f16")
    found = LpuInterpreter(module, values.__getitem__, ROWS).forward(tokens, 0, 0)
    run_pipeline(module, "lpu-token-major,canonicalize,dce,lpu-hoist-select-rows")
    layout = collect_layout(module)
    memory = plan_memory(layout, load_target("u55c"), ROWS)
    run_pipeline(module, "lower-lpu-to-isa,isa-schedule,isa-allocate-lmu")
    program = to_program(module, chunk=CHUNK, head_rows=CHUNK)
    hbm = Hbm.from_parameters(memory, layout, values.__getitem__)
    interpreter = InterpreterDevice(program, hbm, memory, CHUNK, CHUNK)
    machine = NativeMachine(program, hbm, chunk=CHUNK, lmu_words=memory.target.lmu_words)
    native = MachineDevice(machine, memory, CHUNK, CHUNK)
    return Results(*map(_by_argument, (expected, found, _run(interpreter, tokens), _run(native, tokens))))


def _run(device: MachineDevice[Any], tokens: list[int]) -> np.ndarray:
    parts = [device.forward(tokens[i : i + CHUNK], i, 0) for i in range(0, len(tokens), CHUNK)]
    return np.concatenate(parts)


def _by_argument(logits: np.ndarray) -> np.ndarray:
    by_function = logits.reshape(ROWS, len(NAMES), WIDTH)
    return by_function.transpose(0, 2, 1).reshape(-1, len(NAMES))[: len(ARGUMENTS)]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_values_are_those_of_torch(results: Results, name: str) -> None:
    column = NAMES.index(name)
    np.testing.assert_allclose(results.lpu[:, column], results.torch[:, column], rtol=4e-7, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_both_engines_give_the_same_bits(results: Results, name: str) -> None:
    column = NAMES.index(name)
    expected = results.lpu[:, column].tobytes()
    assert results.interpreter[:, column].tobytes() == expected
    assert results.native[:, column].tobytes() == expected


def test_the_table_of_phase_0_is_that_of_transformers() -> None:
    assert sorted(ACTIVATIONS) == sorted(NAMES)
