"""Attention with slopes and sinks as it is imported: what it means, against transformers in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.models.evaluate import evaluate
from support.models.tiny import write_checkpoint
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BloomConfig, MptConfig, PreTrainedConfig
from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward

from hyperdex_ir.backend.length import layout_at
from hyperdex_ir.dialects import lpu
from hyperdex_ir.errors import UnsupportedOpError
from hyperdex_ir.frontend import trace_model
from hyperdex_ir.frontend.graph import Graph
from hyperdex_ir.frontend.importer import import_graph
from hyperdex_ir.frontend.operators import attention_function
from hyperdex_ir.frontend.trace import export_module
from hyperdex_ir.memory.collect import collect_layout

TOKENS = [3, 1, 4, 1, 5, 9, 2]


class Sinks(nn.Module):
    """Attention of 4 heads on 2, with a sink for each, as gpt-oss calls it."""

    def __init__(self, computed: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 24)
        self.sinks = nn.Parameter(torch.linspace(-1.0, 2.0, 4))
        self.num_key_value_groups = 2
        self.computed = computed

    def parts(self, input_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        heads = self.embed(input_ids).view(1, -1, 8, 3).transpose(1, 2)
        return heads[:, :4], heads[:, 4:6], heads[:, 6:]

    def forward(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        sinks = self.sinks * 2 if self.computed else self.sinks
        attended, _ = attention_function(self, *self.parts(input_ids), None, scaling=0.7, s_aux=sinks)
        return attended.flatten(2)


def _graph(module: nn.Module) -> Graph:
    return Graph(export_module(module.to("meta").eval()), "", "Sinks", {}, {})


def test_sinks_are_those_of_gpt_oss() -> None:
    torch.manual_seed(0)
    model = Sinks().double()
    mask = torch.full((7, 7), -torch.inf).triu(1)
    with torch.no_grad():
        expected, _ = eager_attention_forward(model, *model.parts(torch.tensor([TOKENS])), mask, 0.7)
    parameters = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    module = import_graph(_graph(model.float()), target="u55c", max_length=8, matrix_type="f16")
    (op,) = [op for op in module.walk() if isinstance(op, lpu.AttentionOp)]
    assert op.slopes is None
    np.testing.assert_allclose(evaluate(module, parameters.__getitem__, TOKENS), expected[0].flatten(1), atol=1e-12)


def test_sinks_that_are_computed_are_refused() -> None:
    with pytest.raises(UnsupportedOpError, match=r"hyperdex.attention.default x1 .* sinks that are computed"):
        import_graph(_graph(Sinks(computed=True)), target="u55c", max_length=8, matrix_type="f16")


_SIZES = {"vocab_size": 272, "num_hidden_layers": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_MPT = {"architectures": ["MptForCausalLM"], "max_seq_len": 32}
SLOPES: dict[str, PreTrainedConfig] = {
    "bloom": BloomConfig(hidden_size=48, n_head=12, architectures=["BloomForCausalLM"], **_SIZES),
    "bloom-5-heads": BloomConfig(
        hidden_size=40, n_head=5, apply_residual_connection_post_layernorm=True, architectures=["BloomForCausalLM"],
        **_SIZES,
    ),
    "mpt": MptConfig(d_model=48, n_heads=8, attn_config={"softmax_scale": 0.4}, **_SIZES, **_MPT),
    "mpt-7-heads": MptConfig(d_model=56, n_heads=7, **_SIZES, **_MPT),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOPES)
def test_slopes_stand_for_positions(name: str, tmp_path: Path) -> None:
    write_checkpoint(SLOPES[name], tmp_path, "float32")
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    with torch.no_grad():
        expected = model(torch.tensor([TOKENS])).logits[0].numpy()
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    imported = trace_model(tmp_path, target="u55c", max_length=16, matrix_type="f16", outlined=False)
    values = state | dict(imported.derived)
    assert list(imported.derived) == ["transformer.alibi.slopes"]
    np.testing.assert_allclose(evaluate(imported.module, values.__getitem__, TOKENS), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_slopes_have_no_row_for_each_position(tmp_path: Path) -> None:
    """Not even where there are as many heads as positions."""
    SLOPES["mpt"].save_pretrained(tmp_path)
    imported = trace_model(tmp_path, target="u55c", max_length=8, matrix_type="f16")
    assert not imported.derived.tables
    shorter = layout_at(collect_layout(imported.module), imported.derived.tables, 8, 5)
    shapes = {parameter.name: parameter.shape for parameter in shorter.main.parameters}
    assert shapes["transformer.alibi.slopes"] == (8,)
