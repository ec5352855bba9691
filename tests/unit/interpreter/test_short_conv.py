"""Short convolutions: how they are recognised, what they compute, and in which order passes may come."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.models.graphs import graph_of
from test_lpu_interpreter import INPUTS, LENGTH, parameter, parse
from torch import Tensor, nn

from hyperdex_ir.errors import PromptError, UnsupportedOpError
from hyperdex_ir.frontend.convolutions import fuse_short_convs
from hyperdex_ir.frontend.graph import Graph
from hyperdex_ir.frontend.importer import import_graph
from hyperdex_ir.frontend.trace import export_module
from hyperdex_ir.interpreter.lpu import LpuInterpreter

TOKENS = [3, 7, 11, 3, 2, 19, 0, 5, 8]


# ---------------------------------------------------------------------------------------------------- recognition
class Convolution(nn.Module):
    """[1, T] ids -> [1, T, 12] features -> a convolution of which some tokens are kept."""

    def __init__(self, length: int, keep: str = "first", **options: Any):
        super().__init__()
        self.embed = nn.Embedding(10, 12)
        options = {"groups": 12, "padding": length - 1} | options
        self.conv = nn.Conv1d(12, 12, length, **options)
        self.keep = keep

    def forward(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        x = self.embed(input_ids).transpose(1, 2)
        count = x.shape[2]
        y = self.conv(x)
        y = y[..., :count] if self.keep == "first" else y[..., -count:] if self.keep == "last" else y
        return y.transpose(1, 2)


def imported(module: nn.Module) -> list[str]:
    program = export_module(module.to("meta"))
    fuse_short_convs(program.graph)
    made = import_graph(Graph(program, "", "Toy", {}, {}), target="u55c", max_length=16, matrix_type="f16")
    return [op.name for op in made.walk()]


@pytest.mark.parametrize("module", [Convolution(3), Convolution(1, bias=False), Convolution(5, bias=False)])
def test_a_causal_convolution_of_each_channel_is_one_operation(module: nn.Module) -> None:
    names = imported(module)
    assert names.count("lpu.short_conv") == 1
    assert "lpu.slice" not in names


@pytest.mark.parametrize(
    "module",
    [
        Convolution(3, keep="last"),
        Convolution(3, groups=4),
        Convolution(3, groups=1),
        Convolution(3, dilation=2, padding=4),
        Convolution(3, padding=3),
        Convolution(3, padding=1, keep="all"),
    ],
)
def test_what_else_mixes_tokens_is_refused(module: nn.Module) -> None:
    with pytest.raises(UnsupportedOpError, match=re.escape("aten.conv1d.default")):
        imported(module)


def test_a_convolution_is_refused_where_it_was_not_looked_for() -> None:
    with pytest.raises(UnsupportedOpError, match=re.escape("aten.conv1d.default")):
        import_graph(graph_of(Convolution(3)), target="u55c", max_length=16, matrix_type="f16")


# ---------------------------------------------------------------------------------------------------- arithmetic
def interpreter(length: int, bias: bool) -> tuple[LpuInterpreter, np.ndarray, np.ndarray]:
    """A module that is a convolution of embeddings; its taps [8, length] and bias."""
    rng = np.random.default_rng(length)
    values = {"taps": rng.standard_normal((8, 1, length)).astype(np.float32)}
    values["conv.bias"] = rng.standard_normal(8).astype(np.float32) if bias else np.zeros(8, np.float32)
    plus = "bias %b : tensor<8xf32>" if bias else ""
    text = f"""
func.func @main({INPUTS}) -> tensor<?x8xf32> {{
  %e = lpu.weight "embedding" : tensor<20x8xf16>
  %x = lpu.embedding %e at %ids : (tensor<20x8xf16>, tensor<?xi64>) -> tensor<?x8xf32>
  %w = lpu.weight "taps" : tensor<8x1x{length}xf32>
  %b = lpu.weight "conv.bias" : tensor<8xf32>
  %y = lpu.short_conv %x by %w {plus} slot 0 : tensor<8x1x{length}xf32> -> tensor<?x8xf32>
  func.return %y : tensor<?x8xf32>
}}"""

    def get(key: str) -> np.ndarray:
        return values[key] if key in values else parameter(key)

    return LpuInterpreter(parse(text), get, LENGTH), values["taps"][:, 0], values["conv.bias"]


def expected(taps: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """Number by number: the oldest element first, each product and each sum rounded."""
    x = parameter("embedding")[TOKENS].astype(np.float32)
    y = np.empty_like(x)
    length = taps.shape[1]
    for t, c in np.ndindex(*x.shape):
        for j in range(length):
            place = t - length + 1 + j
            product = taps[c, j] * (x[place, c] if place >= 0 else np.float32(0))
            y[t, c] = product if j == 0 else y[t, c] + product
        if bias is not None:
            y[t, c] = y[t, c] + bias[c]
    return y


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("length", [1, 2, 5])
def test_bits_for_every_chunk(length: int, bias: bool) -> None:
    run, taps, offsets = interpreter(length, bias)
    wanted = expected(taps, offsets if bias else None)
    theirs = torch.conv1d(
        torch.from_numpy(parameter("embedding")[TOKENS].astype(np.float32).T)[None],
        torch.from_numpy(taps)[:, None], torch.from_numpy(offsets), padding=length - 1, groups=8,
    )[0, :, : len(TOKENS)]  # fmt: skip
    np.testing.assert_allclose(wanted, theirs.T.numpy(), rtol=1e-5, atol=1e-5)
    for chunk in (len(TOKENS), 1, 2, 3):
        parts = [run.forward(TOKENS[i : i + chunk], i, 0) for i in range(0, len(TOKENS), chunk)]
        assert np.concatenate(parts).tobytes() == wanted.tobytes(), chunk


# ---------------------------------------------------------------------------------------------------- order of passes
def test_the_interpreter_refuses_a_pass_that_does_not_follow() -> None:
    run, _, _ = interpreter(3, bias=False)
    run.forward(TOKENS[:4], 0)
    with pytest.raises(PromptError, match="tokens from position 2 on; the states of convolutions stand at 4"):
        run.forward(TOKENS[2:4], 2)
    followed = run.forward(TOKENS[4:6], 4, 0)
    assert run.forward(TOKENS[:6], 0, 0)[4:].tobytes() == followed.tobytes()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from support.models.architectures import CASES, write_case

    from hyperdex_ir.tools import AutoCompiler

    folder = write_case(CASES["lfm2"], tmp_path_factory.mktemp("lfm2"), 0)
    AutoCompiler().compile(str(folder), max_length=16)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["native", "interpreter"])
def test_a_device_runs_on_from_where_the_last_step_ended_or_from_the_beginning(compiled: Path, engine: str) -> None:
    from hyperdex_ir.runtime.model import CompiledModel

    model = CompiledModel.open(compiled, engine=engine)
    whole = model.forward(TOKENS, 0, 0)
    for position in (1, len(TOKENS) - 1):
        with pytest.raises(PromptError, match=f"from position {position} on; this model has short convolutions"):
            model.forward(TOKENS[position:], position)
    parts = [model.forward(TOKENS[:4], 0, 0), model.forward(TOKENS[4:5], 4, 0), model.forward(TOKENS[5:], 5, 0)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()
    first, again = (model.generate(TOKENS[:5], 6).tokens for _ in range(2))
    assert first == again
    fresh = CompiledModel.open(compiled, engine=engine).generate(TOKENS[:5], 6).tokens
    assert first == fresh
