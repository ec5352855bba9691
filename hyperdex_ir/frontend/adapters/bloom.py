"""BLOOM: ALiBi slopes instead of position embeddings."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.models.bloom.modeling_bloom import build_alibi_tensor

from hyperdex_ir.frontend.adapters import modules_with, set_forward
from hyperdex_ir.frontend.derived import Derived, HeadSlopes
from hyperdex_ir.frontend.operators import ATTENTION

_SLOPES = "transformer.alibi.slopes"


def adapt(model: PreTrainedModel) -> dict[str, Derived]:
    """Makes each attention of a BLOOM one node, and its activation a graph of operators."""
    config: Any = model.config
    # The bias of position 1 is the slope itself.
    slopes = build_alibi_tensor(torch.ones(1, 2, device="cpu"), config.n_head, torch.float32)[:, 0, 1].numpy()
    for module in modules_with(model, "query_key_value", "dense", "inv_norm_factor"):
        set_forward(module, _attention(module))
    for module in model.modules():
        if _is_gelu(module):
            set_forward(module, _gelu)
    return {_SLOPES: HeadSlopes(_SLOPES, slopes)}


def _attention(module: Any) -> Callable[..., Any]:
    def forward(hidden_states: torch.Tensor, residual: torch.Tensor, **_: Any) -> tuple[torch.Tensor, None]:
        query, key, value = module._reshape(module.query_key_value(hidden_states))
        attended = ATTENTION(query, key, value, module.inv_norm_factor, None, None, None, _SLOPES, False)
        return residual + module.dense(attended.flatten(2)), None

    return forward


def _is_gelu(module: torch.nn.Module) -> bool:
    """Test for a module without parameters that computes `_gelu`."""
    if any(module.children()) or any(True for _ in module.parameters()):
        return False
    if len(inspect.signature(module.forward).parameters) != 1:
        return False
    probe = torch.linspace(-4, 4, 33, device="cpu")
    return torch.allclose(module(probe), _gelu(probe))


def _gelu(x: torch.Tensor) -> torch.Tensor:
    """BLOOM's GELU in plain operators; export does not look into BLOOM's own class, an autograd function."""
    return torch.nn.functional.gelu(x, approximate="tanh")
