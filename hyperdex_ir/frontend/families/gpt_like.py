"""Architectures after GPT: layer norms, neurons without gates."""

from __future__ import annotations

from hyperdex_ir.frontend.family import (
    ACTIVATIONS,
    HEADS,
    NONE,
    UNTIED,
    Family,
    Size,
    activation,
    sizes,
)

OPT = Family(
    architecture="OPTForCausalLM",
    model_type="opt",
    sizes={
        "vocab_size": Size(50272),
        "hidden_size": Size(768),
        "ffn_dim": Size(3072),
        "num_hidden_layers": Size(12, most=4096),
        "num_attention_heads": Size(12),
        "word_embed_proj_dim": Size(None, optional=True),
        "max_position_embeddings": Size(2048),
    },
    flags={
        "tie_word_embeddings": True,
        "do_layer_norm_before": True,
        "_remove_final_layer_norm": False,
        "enable_bias": True,
        "layer_norm_elementwise_affine": True,
    },
    choices={"activation_function": ("relu", ACTIVATIONS)},
    divisions=(("hidden_size", "num_attention_heads"),),
    names={"intermediate": "ffn_dim"},
    rotary=False,
    eos=2,
    variants="projected embeddings, norms before or after, no biases, untied",
)

GPT_NEOX = Family(
    architecture="GPTNeoXForCausalLM",
    model_type="gpt_neox",
    sizes=sizes(50432, 6144, 24576, 44, 64, 2048),
    numbers={"layer_norm_eps": 1e-5},
    flags=UNTIED | {"use_parallel_residual": True, "attention_bias": True},
    choices=activation("gelu"),
    divisions=(HEADS,),
    rotated=("rotary_pct", 0.25),
    eos=2,
    token_embedding="embed_in.weight",
    variants="parallel residual or not",
)

BIGCODE = Family(
    architecture="GPTBigCodeForCausalLM",
    model_type="gpt_bigcode",
    sizes={
        "vocab_size": Size(50257),
        "n_embd": Size(768),
        "n_inner": NONE,
        "n_layer": Size(12, most=4096),
        "n_head": Size(12),
        "n_positions": Size(1024),
    },
    numbers={"layer_norm_epsilon": 1e-5},
    flags={"tie_word_embeddings": True, "multi_query": True, "scale_attn_weights": True},
    choices={"activation_function": ("gelu_pytorch_tanh", ACTIVATIONS)},
    divisions=(("n_embd", "n_head"),),
    refused={"add_cross_attention": "layers that attend to another model"},
    names={
        "hidden": "n_embd", "intermediate": "n_inner", "layers": "n_layer", "heads": "n_head",
        "positions": "n_positions",
    },
    multi_query="multi_query",
    rotary=False,
    eos=50256,
    token_embedding="wte.weight",
    variants="multi-query or not",
)  # fmt: skip
