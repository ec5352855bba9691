"""Architectures derived from GPT: layer norms, MLPs without gates."""

from __future__ import annotations

from dataclasses import replace

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

BIOGPT = Family(
    architecture="BioGptForCausalLM",
    model_type="biogpt",
    sizes=sizes(42384, 1024, 4096, 24, 16, 1024),
    numbers={"layer_norm_eps": 1e-12},
    flags={"tie_word_embeddings": True, "scale_embedding": True},
    choices=activation("gelu"),
    divisions=(HEADS,),
    rotary=False,
    eos=2,
    head="output_projection.weight",
    variants="scaled embeddings or not, untied",
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
    head="embed_out.weight",
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

GPT2 = replace(
    BIGCODE,
    architecture="GPT2LMHeadModel",
    model_type="gpt2",
    flags={
        "tie_word_embeddings": True, "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
    },
    choices={"activation_function": ("gelu_new", ACTIVATIONS)},
    multi_query="",
    variants="scales that depend on the layer, no scale",
)  # fmt: skip

BLOOM = Family(
    architecture="BloomForCausalLM",
    model_type="bloom",
    sizes={
        "vocab_size": Size(250880),
        "hidden_size": Size(64),
        "n_layer": Size(2, most=4096),
        "n_head": Size(8),
        "seq_length": NONE,
    },
    numbers={"layer_norm_epsilon": 1e-5},
    flags={"tie_word_embeddings": True, "apply_residual_connection_post_layernorm": False},
    divisions=(("hidden_size", "n_head"),),
    refused={"slow_but_exact": "matrices that are multiplied in slices"},
    aliases={"hidden_size": "n_embed", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads"},
    names={"layers": "n_layer", "heads": "n_head", "positions": "seq_length"},
    limit=2048,
    rotary=False,
    slopes=True,
    eos=2,
    token_embedding="word_embeddings.weight",
    activation="gelu_tanh",
    variants="residual before or after norms, untied",
)

#: transformers silently ignores the options that `fixed` refuses.
MPT = Family(
    architecture="MptForCausalLM",
    model_type="mpt",
    sizes={
        "vocab_size": Size(50368),
        "d_model": Size(2048),
        "n_layers": Size(24, most=4096),
        "n_heads": Size(16),
        "max_seq_len": Size(2048),
    },
    numbers={"layer_norm_epsilon": 1e-5},
    flags={"tie_word_embeddings": True},
    divisions=(("d_model", "n_heads"),),
    fixed={
        "attn_config.alibi": (True, "other positions than ALiBi"),
        "attn_config.alibi_bias_max": (8, "other slopes"),
        "attn_config.attn_type": ("multihead_attention", "shared heads of keys and values"),
        "attn_config.prefix_lm": (False, "prefixes without a causal mask"),
        "attn_config.qk_ln": (False, "norms of queries and keys"),
        "no_bias": (True, "biases"),
        "expansion_ratio": (4, "other numbers of neurons"),
        "logit_scale": (None, "scaled logits"),
        "norm_type": ("low_precision_layernorm", "other norms"),
    },
    optional_numbers={"attn_config.clip_qkv": None, "attn_config.softmax_scale": None},
    aliases={"d_model": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads"},
    names={"hidden": "d_model", "layers": "n_layers", "heads": "n_heads", "positions": "max_seq_len"},
    rotary=False,
    slopes=True,
    token_embedding="wte.weight",
    activation="gelu",
    variants="clipped queries, keys and values, a scale of scores, untied",
)

GPTJ = Family(
    architecture="GPTJForCausalLM",
    model_type="gptj",
    sizes={
        "vocab_size": Size(50400),
        "n_embd": Size(4096),
        "n_inner": NONE,
        "n_layer": Size(28, most=4096),
        "n_head": Size(16),
        "n_positions": Size(2048),
        "rotary_dim": Size(64),
    },
    numbers={"layer_norm_epsilon": 1e-5},
    flags=UNTIED,
    choices={"activation_function": ("gelu_new", ACTIVATIONS)},
    divisions=(("n_embd", "n_head"),),
    names={
        "hidden": "n_embd", "intermediate": "n_inner", "layers": "n_layer", "heads": "n_head",
        "positions": "n_positions",
    },
    turned="rotary_dim",
    eos=50256,
    token_embedding="wte.weight",
    variants="partial rotary or whole, tied",
)  # fmt: skip

CODEGEN = replace(GPTJ, architecture="CodeGenForCausalLM", model_type="codegen", variants="partial rotary, tied")

FALCON = Family(
    architecture="FalconForCausalLM",
    model_type="falcon",
    sizes={
        "vocab_size": Size(65024),
        "hidden_size": Size(4544),
        "num_hidden_layers": Size(32, most=4096),
        "num_attention_heads": Size(71),
        "num_kv_heads": NONE,
        "num_ln_in_parallel_attn": Size(None, optional=True, most=2),
        "ffn_hidden_size": NONE,
        "max_position_embeddings": Size(2048),
    },
    numbers={"layer_norm_epsilon": 1e-5},
    flags={
        "tie_word_embeddings": True, "alibi": False, "new_decoder_architecture": False, "multi_query": True,
        "parallel_attn": True, "bias": False,
    },
    choices={"activation": ("gelu", ACTIVATIONS)},
    divisions=(HEADS,),
    names={"intermediate": "ffn_hidden_size"},
    multi_query="multi_query",
    eos=11,
    token_embedding="word_embeddings.weight",
    variants="multi-query or not, new decoder with grouped queries and one or two norms, sequential, ALiBi, biases",
)  # fmt: skip
