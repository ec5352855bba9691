"""Routed experts from torch to the `lpu` dialect: what they mean, and what of their graphs is rewritten."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.models.architectures import CASES, write_case
from support.models.evaluate import evaluate
from transformers import AutoModelForCausalLM

from hyperdex_ir.checkpoint.files import Checkpoint
from hyperdex_ir.checkpoint.names import resolve_sources
from hyperdex_ir.checkpoint.tensors import read
from hyperdex_ir.dialects import lpu
from hyperdex_ir.frontend import ImportedModel, trace_model
from hyperdex_ir.frontend.functionalize import make_functional
from hyperdex_ir.frontend.graph import is_mutation

TOKENS = np.random.default_rng(3).integers(0, 256, 12).tolist()
#: Each form of routers and experts; test_architectures.py has the logits of all.
ROUTED = [name for name in CASES if name.startswith(("mixtral", "qwen2_moe", "qwen3_moe", "deepseek", "gpt_oss"))]


def trace_case(name: str, directory: Path) -> ImportedModel:
    write_case(CASES[name], directory, seed=1)
    return trace_model(directory, target="u55c", max_length=16, matrix_type="f16", outlined=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", ROUTED)
def test_means_what_transformers_computes(name: str, tmp_path: Path) -> None:
    """In float64 on both sides, so that nothing but a wrong import can tell them apart."""
    imported = trace_case(name, tmp_path)
    sources = resolve_sources(imported.names, Checkpoint(tmp_path))
    assert set(imported.sources) <= set(sources)

    def parameter(key: str) -> np.ndarray:
        if key in imported.derived:
            return imported.derived[key]
        tensor = sources[key].tensor
        assert tensor is not None
        values = read(tensor)
        return (values.astype(np.uint32) << 16).view(np.float32) if tensor.dtype == "BF16" else values

    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64, experts_implementation="eager")
    with torch.no_grad():
        theirs = model(torch.tensor([TOKENS])).logits[0].numpy()
    np.testing.assert_allclose(evaluate(imported.module, parameter, TOKENS), theirs, rtol=0, atol=3e-5)


def test_a_mask_of_groups_becomes_one_operation(tmp_path: Path) -> None:
    imported = trace_case("deepseek_v3", tmp_path)
    ranked = [op for op in imported.module.walk() if isinstance(op, lpu.TopKOp)]
    assert [op.limits for op in ranked] == [(3, 2), (3, 2)]


# ------------------------------------------------------------------------------------------------- changes in place
class Changing(torch.nn.Module):
    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        match self.kind:
            case "own":
                y /= 3
                return y * y
            case "unused result":
                y.mul_(2)
                return y - 1
            case "view before":
                part = y[:, :2]
                y /= 3
                return part * 2
            case "view":
                y[:, :2] += 5
                return y
            case "argument":
                x += 1
                return x * 2
        empty = x.new_empty(x.shape[0], 5)
        empty[:, 2:].copy_(y[:, :3])
        empty[:, : 2 if self.kind == "assembled" else 1].copy_(y[:, : 2 if self.kind == "assembled" else 1])
        return empty * 2


@pytest.mark.parametrize(
    ("kind", "is_functional"),
    [("own", True), ("unused result", True), ("assembled", True), ("view before", False), ("view", False),
     ("argument", False), ("hole", False)],
)  # fmt: skip
def test_changes_in_place(kind: str, is_functional: bool) -> None:
    x = torch.randn(4, 6)
    program = torch.export.export(Changing(kind), (x.clone(),), strict=False)
    make_functional(program.graph)
    mutations = [node for node in program.graph.nodes if node.op == "call_function" and is_mutation(node)]
    assert bool(mutations) != is_functional
    if is_functional:
        program.graph.lint()
        module = torch.fx.GraphModule(torch.nn.Module(), program.graph)
        (result,) = module(x.clone())
        assert torch.equal(result, Changing(kind)(x.clone()))
