"""Falcon: three layouts of the matrix for queries, keys and values; rotary positions or slopes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.models.falcon.modeling_falcon import apply_rotary_pos_emb, build_alibi_tensor

from hyperdex_ir.frontend.adapters import modules_with, set_forward
from hyperdex_ir.frontend.derived import Derived, HeadSlopes
from hyperdex_ir.frontend.operators import ATTENTION

_SLOPES = "transformer.alibi.slopes"

Rotation = tuple[torch.Tensor, torch.Tensor]


def adapt(model: PreTrainedModel) -> dict[str, Derived]:
    """Makes each attention of a Falcon one node, its matrices linear layers, and its in-place sums new values."""
    config: Any = model.config
    slopes = _SLOPES if config.alibi else None
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            set_forward(module, _linear(module))
    for module in modules_with(model, "query_key_value", "dense", "inv_norm_factor"):
        set_forward(module, _attention(module, slopes))
    for module in modules_with(model, "self_attention", "mlp"):
        set_forward(module, _layer(module))
    if slopes is None:
        return {}
    # The bias of position 1 is the slope. Like every bias it is a bfloat16 number.
    mask = torch.ones(1, 2, dtype=torch.long, device="cpu")
    biases = build_alibi_tensor(mask, config.num_attention_heads, torch.float32)
    return {slopes: HeadSlopes(slopes, biases[:, 0, 1].numpy())}


def _linear(module: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: functional.linear(x, module.weight, module.bias)


def _projections(module: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Queries [1, T, heads, size], and keys and values with their own number of heads."""
    mixed, size = module.query_key_value(x), module.head_dim
    tokens = mixed.shape[:2]
    if module.new_decoder_architecture:  # each group holds its queries, then their key and value
        groups = mixed.view(*tokens, module.num_kv_heads, module.num_heads // module.num_kv_heads + 2, size)
        return groups[..., :-2, :].flatten(2, 3), groups[..., -2, :], groups[..., -1, :]
    if module.multi_query:
        heads = mixed.view(*tokens, module.num_heads + 2, size)
        return heads[..., :-2, :], heads[..., -2:-1, :], heads[..., -1:, :]
    triples = mixed.view(*tokens, module.num_heads, 3, size)
    return triples[..., 0, :], triples[..., 1, :], triples[..., 2, :]


def _attention(module: Any, slopes: str | None) -> Callable[..., torch.Tensor]:
    def forward(x: torch.Tensor, rotation: Rotation) -> torch.Tensor:
        query, key, value = (part.transpose(1, 2) for part in _projections(module, x))
        if slopes is None:
            query, key = apply_rotary_pos_emb(query, key, *rotation)
        scale = module.inv_norm_factor
        attended = ATTENTION(query, key, value, scale, None, None, None, slopes, slopes is not None)
        return module.dense(attended.flatten(2))

    return forward


def _layer(module: Any) -> Callable[..., tuple[torch.Tensor, None]]:
    """Forward of a layer without in-place additions, which transformers' own layer has."""
    config = module.config
    two_norms = config.new_decoder_architecture and config.num_ln_in_parallel_attn == 2
    parallel = config.new_decoder_architecture or config.parallel_attn

    def forward(hidden_states: torch.Tensor, position_embeddings: Rotation, **_: Any) -> tuple[torch.Tensor, None]:
        x = module.ln_attn(hidden_states) if two_norms else module.input_layernorm(hidden_states)
        attended = module.self_attention(x, position_embeddings)
        if not parallel:
            hidden_states = hidden_states + attended
            return hidden_states + module.mlp(module.post_attention_layernorm(hidden_states)), None
        mixed = module.mlp(module.ln_mlp(hidden_states) if two_norms else x) + attended
        return hidden_states + mixed, None

    return forward
