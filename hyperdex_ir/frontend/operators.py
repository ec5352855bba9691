"""The torch operators that stand for single operations of the machine: attention, short convolution, rotary table.

They are never computed here; export only needs the shapes of their results. Importing this module registers them with
torch, once a process.
"""

from __future__ import annotations

from typing import Any

import torch

from hyperdex_ir.errors import UnsupportedModelError

NAMESPACE = "hyperdex"
#: The name under which our functions are in transformers' attention and mask interfaces while a model is traced.
ATTENTION_NAME = "hyperdex"
#: Arguments that transformers gives to every attention function, not needed by causal attention over one sequence.
_HARMLESS = frozenset({"position_ids", "use_cache", "dropout", "output_attentions", "output_hidden_states",
                       "return_dict", "cache_position", "is_causal", "output_router_logits",
                       "logits_to_keep"})  # fmt: skip

NEVER_COMPUTED = "this operator is for tracing only"


@torch.library.custom_op(f"{NAMESPACE}::attention", mutates_args=())
def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    window: int | None,
    softcap: float | None,
    sinks: torch.Tensor | None,
    slopes: str | None,
    bf16_bias: bool,
) -> torch.Tensor:
    raise NotImplementedError(NEVER_COMPUTED)


@_attention.register_fake
def _attention_shape(query, key, value, scale, window, softcap, sinks, slopes, bf16_bias):
    return query.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[3])


@torch.library.custom_op(f"{NAMESPACE}::short_conv", mutates_args=())
def _short_conv(x: torch.Tensor, taps: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    raise NotImplementedError(NEVER_COMPUTED)


@_short_conv.register_fake
def _short_conv_shape(x, taps, bias):
    return torch.empty_like(x)


@torch.library.custom_op(f"{NAMESPACE}::rotary_table", mutates_args=())
def _rotary_table(position_ids: torch.Tensor, key: str, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    raise NotImplementedError(NEVER_COMPUTED)


@_rotary_table.register_fake
def _rotary_table_shape(position_ids, key, size):
    shape = (*position_ids.shape, size)
    return (
        position_ids.new_empty(shape, dtype=torch.float32),
        position_ids.new_empty(shape, dtype=torch.float32),
    )


#: (query [B, H, T, D], key [B, G, T, D], value [B, G, T, Dv], scale, window, softcap, sinks [H], key of the slopes [H],
#: flag that rounds their bias to bf16) -> [B, T, H, Dv]
ATTENTION = torch.ops.hyperdex.attention.default
#: (x [B, C, T], taps [C, 1, L], bias [C] or none) -> [B, C, T]
SHORT_CONV = torch.ops.hyperdex.short_conv.default
#: (position_ids [B, T], key of the table, d) -> cos [B, T, d], sin [B, T, d]
ROTARY_TABLE = torch.ops.hyperdex.rotary_table.default


def mask_function(*_: Any, local_size: int | None = None, **__: Any) -> torch.Tensor | None:
    """Function that transformers calls for a mask while a model is traced.

    Returns None for a causal mask. For a sliding window it returns an empty tensor [0, window], because some models
    give the window to the mask only.
    """
    return None if local_size is None else torch.empty(0, local_size, dtype=torch.bool)


def _window(name: str, mask: torch.Tensor | None, given: int | None) -> int | None:
    """The sliding window, from the result of `mask_function` and from the argument."""
    if mask is None:
        return given
    if mask.dtype != torch.bool or mask.dim() != 2 or mask.shape[0] != 0:
        raise UnsupportedModelError(f"{name}: attention with a mask of the model's own is not supported")
    window = int(mask.shape[1])
    if given not in (None, window):
        raise UnsupportedModelError(f"{name}: attention with windows of {given} and {window} is not supported")
    return window


def attention_function(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **arguments: Any,
) -> tuple[torch.Tensor, None]:
    """Function that transformers calls for attention while a model is traced: one node in the graph.

    Raises UnsupportedModelError, by name, for anything that the machine's causal attention does not do.
    """
    name = type(module).__name__
    window = _window(name, attention_mask, sliding_window)
    if arguments.get("is_causal", getattr(module, "is_causal", True)) is False:
        raise UnsupportedModelError(f"{name}: attention that is not causal is not supported")
    unknown = sorted(key for key, given in arguments.items() if given is not None and key not in _HARMLESS)
    if unknown:
        raise UnsupportedModelError(f"{name}: attention with {', '.join(unknown)} is not supported")
    scale = float(query.shape[-1]) ** -0.5 if scaling is None else float(scaling)
    return ATTENTION(query, key, value, scale, window, softcap, s_aux, None, False), None
