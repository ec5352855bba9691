"""Gemma and its successors: scaled embeddings, norms of 1 + weight, layers with rotary positions by their kind."""

from __future__ import annotations

from dataclasses import replace

from hyperdex_ir.frontend.families.llama_like import llama_like
from hyperdex_ir.frontend.family import (
    ACTIVATIONS,
    GROUPS,
    HEADS,
    LAYER_TYPES,
    UNTIED,
    Size,
    activation,
    sizes,
)

_TIED = {"tie_word_embeddings": True, "attention_bias": False}
_BIDIRECTIONAL = {"use_bidirectional_attention": "layers that attend to later tokens"}
_GELU = {"hidden_activation": ("gelu_pytorch_tanh", ACTIVATIONS)}
_SCALED = {"rms_norm_eps": 1e-6, "query_pre_attn_scalar": 256}

GEMMA = llama_like(
    "GemmaForCausalLM",
    "gemma",
    sizes(256000, 3072, 24576, 28, 16, 8192, num_key_value_heads=Size(16), head_dim=Size(256)),
    flags=_TIED,
    choices=activation("gelu_pytorch_tanh"),
    refused=_BIDIRECTIONAL,
    eos=1,
    variants="biases, untied",
)

GEMMA2 = llama_like(
    "Gemma2ForCausalLM",
    "gemma2",
    sizes(
        256000, 2304, 9216, 26, 8, 8192,
        num_key_value_heads=Size(4), head_dim=Size(256), sliding_window=Size(4096, optional=True),
    ),
    numbers=_SCALED,
    optional_numbers={"final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0},
    flags=_TIED,
    choices=_GELU,
    lists={"layer_types": LAYER_TYPES},
    divisions=(HEADS, GROUPS),
    refused=_BIDIRECTIONAL,
    eos=1,
    variants="softcaps, alternating sliding windows, biases",
)  # fmt: skip

VAULTGEMMA = replace(
    GEMMA2,
    architecture="VaultGemmaForCausalLM",
    model_type="vaultgemma",
    refused={},
    variants="no norms after, softcaps, alternating sliding windows, biases",
)

GEMMA3 = llama_like(
    "Gemma3ForCausalLM",
    "gemma3_text",
    sizes(
        262208, 2304, 9216, 26, 8, 131072,
        num_key_value_heads=Size(4), head_dim=Size(256), sliding_window=Size(4096, optional=True),
    ),
    numbers=_SCALED,
    optional_numbers={"final_logit_softcapping": None, "attn_logit_softcapping": None},
    flags=_TIED,
    choices=_GELU,
    lists={"layer_types": LAYER_TYPES},
    divisions=(HEADS, GROUPS),
    refused=_BIDIRECTIONAL,
    rotary_kinds=True,
    eos=1,
    variants="sliding windows with rotary positions of their own, softcap, biases",
)  # fmt: skip

OLMO3 = llama_like(
    "Olmo3ForCausalLM",
    "olmo3",
    sizes(50304, 4096, 11008, 32, 32, 2048, sliding_window=Size(4096, optional=True)),
    numbers={"rms_norm_eps": 1e-5},
    flags=UNTIED | {"attention_bias": False},
    lists={"layer_types": LAYER_TYPES},
    rotary_kinds=True,
    eos=50279,
    variants="sliding windows with rotary positions of their own, biases",
)
