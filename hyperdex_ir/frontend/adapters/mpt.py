"""MPT: ALiBi slopes instead of position embeddings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions
from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

from hyperdex_ir.frontend.adapters import modules_with, set_forward
from hyperdex_ir.frontend.derived import Derived, HeadSlopes
from hyperdex_ir.frontend.operators import ATTENTION

_SLOPES = "transformer.alibi.slopes"


def adapt(model: PreTrainedModel) -> dict[str, Derived]:
    """Makes each attention of an MPT one node, and calls its layers without the mask, which the node does not need."""
    config: Any = model.config
    # The bias one position back is minus the slope. transformers does not read alibi_bias_max here.
    slopes = -build_mpt_alibi_tensor(config.n_heads, 2, device="cpu")[:, 0, 0].numpy()
    for module in modules_with(model, "Wqkv", "out_proj", "clip_qkv", "softmax_scale"):
        set_forward(module, _attention(module))
    for module in modules_with(model, "wte", "blocks", "norm_f"):
        set_forward(module, _layers(module))
    return {_SLOPES: HeadSlopes(_SLOPES, slopes)}


def _layers(module: Any) -> Callable[..., BaseModelOutputWithPastAndCrossAttentions]:
    def forward(input_ids: torch.Tensor, **_: Any) -> BaseModelOutputWithPastAndCrossAttentions:
        hidden_states = module.wte(input_ids)
        for block in module.blocks:
            hidden_states, _weights = block(hidden_states, position_bias=None, attention_mask=None)
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=module.norm_f(hidden_states))

    return forward


def _attention(module: Any) -> Callable[..., Any]:
    def forward(hidden_states: torch.Tensor, **_: Any) -> tuple[torch.Tensor, None]:
        mixed = module.Wqkv(hidden_states)
        if module.clip_qkv:
            mixed = mixed.clamp(-module.clip_qkv, module.clip_qkv)
        shape = (*mixed.shape[:2], module.n_heads, module.head_dim)
        query, key, value = (part.view(shape).transpose(1, 2) for part in mixed.chunk(3, dim=2))
        attended = ATTENTION(query, key, value, module.softmax_scale, None, None, None, _SLOPES, False)
        return module.out_proj(attended.flatten(2)), None

    return forward
