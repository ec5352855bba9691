"""Tiny models of architectures without routed experts, with their options on; the sizes that all tiny models share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from support.models.tiny import BOS, EOS

SIZES = {
    "vocab_size": 263,
    "hidden_size": 108,
    "intermediate_size": 150,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
GPT2_SIZES = {"n_embd": 108, "n_layer": 3, "n_head": 6, "n_positions": 64}
BIASES = {"attention_bias": True, "mlp_bias": True}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
LINEAR = {"rope_type": "linear", "rope_theta": 5e5, "factor": 4.0}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 3.0}
LONG = {
    "rope_type": "longrope", "rope_theta": 1e4,
    "short_factor": [1.0 + i / 16 for i in range(9)], "long_factor": [1.5 + i for i in range(9)],
}  # fmt: skip
KINDS = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e3},
}
LAYER_TYPES = (["sliding_attention"] * 2 + ["full_attention"]) * 3 + ["sliding_attention"] * 2


@dataclass(frozen=True)
class Case:
    """A tiny model: its model_type, what differs from SIZES, the type of its tensors, a factor of its logits."""

    model_type: str
    fields: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float16"
    gain: float = 2.0


#: Names of tests -> models.
DENSE: dict[str, Case] = {
    "llama": Case("llama", BIASES | {"rope_parameters": LLAMA3}),
    "llama-dynamic": Case("llama", {"rope_parameters": DYNAMIC, "max_position_embeddings": 17}),
    "llama-dynamic-short": Case("llama", {"rope_parameters": DYNAMIC, "max_position_embeddings": 41}, "bfloat16"),
    "llama-linear": Case("llama", {"head_dim": 22, "rope_parameters": LINEAR}, "bfloat16"),
    "opt": Case("opt", {"ffn_dim": 150, "word_embed_proj_dim": 60, "tie_word_embeddings": True}),
    "opt-norms-after": Case(
        "opt", {"ffn_dim": 150, "word_embed_proj_dim": 108, "do_layer_norm_before": False}, "bfloat16"
    ),
    "opt-xielu": Case("opt", {"ffn_dim": 150, "word_embed_proj_dim": 108, "activation_function": "xielu"}, "bfloat16"),
    "mistral": Case("mistral", {"head_dim": 22, "sliding_window": 9}, "bfloat16"),
    "mistral-whole": Case("mistral", {"sliding_window": None, "hidden_size": 111}, "float16"),
    "qwen2": Case("qwen2", {"tie_word_embeddings": True}, "bfloat16"),
    "qwen2-windows": Case(
        "qwen2", {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1, "num_key_value_heads": 3}
    ),
    "qwen3": Case("qwen3", {"head_dim": 22, "attention_bias": True, "rope_parameters": YARN}, "bfloat16"),
    "qwen3-windows": Case(
        "qwen3", {"head_dim": 14, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2}
    ),
    "smollm3": Case(
        "smollm3",
        BIASES
        | {"no_rope_layer_interval": 2, "use_sliding_window": True, "sliding_window": 11, "num_hidden_layers": 5},
    ),
    "arcee": Case("arcee", BIASES | {"rope_parameters": YARN}, "bfloat16"),
    "olmo": Case("olmo", {"attention_bias": True}),
    "olmo-clipped": Case("olmo", {"clip_qkv": 0.8, "num_key_value_heads": 3}, "bfloat16"),
    "olmo2": Case("olmo2", {"attention_bias": True}, "bfloat16"),
    "olmo3": Case(
        "olmo3",
        {
            "attention_bias": True,
            "sliding_window": 7,
            "num_hidden_layers": 8,
            "rope_parameters": KINDS | {"full_attention": YARN},
        },
        "bfloat16",
    ),
    "gemma": Case("gemma", {"head_dim": 22, "tie_word_embeddings": True, "attention_bias": True}, "bfloat16"),
    "gemma-untied": Case("gemma", {"head_dim": 14, "hidden_size": 111, "num_key_value_heads": 1}),
    "gemma2": Case(
        "gemma2",
        {
            "head_dim": 22,
            "sliding_window": 7,
            "query_pre_attn_scalar": 31,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 20.0,
            "attention_bias": True,
        },
        "bfloat16",
    ),
    "gemma2-uncapped": Case(
        "gemma2",
        {
            "head_dim": 14,
            "sliding_window": 5,
            "query_pre_attn_scalar": 20,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "num_hidden_layers": 5,
            "tie_word_embeddings": True,
        },
    ),
    "gemma3": Case(
        "gemma3_text",
        {
            "head_dim": 22,
            "sliding_window": 7,
            "query_pre_attn_scalar": 31,
            "layer_types": LAYER_TYPES,
            "num_hidden_layers": 11,
            "rope_parameters": KINDS,
            "attention_bias": True,
        },
        "bfloat16",
    ),
    "gemma3-softcap": Case(
        "gemma3_text",
        {
            "head_dim": 14,
            "sliding_window": 5,
            "query_pre_attn_scalar": 20,
            "sliding_window_pattern": 3,
            "num_hidden_layers": 4,
            "final_logit_softcapping": 20.0,
        },
    ),
    "granite": Case(
        "granite",
        BIASES
        | {"embedding_multiplier": 3.0, "residual_multiplier": 0.7, "logits_scaling": 1.7, "attention_multiplier": 0.3},
        "bfloat16",
        4.0,
    ),
    "helium": Case("helium", BIASES | {"head_dim": 18}),
    "ernie4_5": Case("ernie4_5", {"head_dim": 22, "use_bias": True}, "bfloat16"),
    "hunyuan": Case("hunyuan_v1_dense", {"head_dim": 22, "attention_bias": True}),
    "glm": Case("glm", {"head_dim": 28}, "bfloat16"),
    "glm4": Case("glm4", {"head_dim": 28}),
    "nemotron": Case("nemotron", BIASES | {"head_dim": 28}, "bfloat16"),
    "stablelm": Case("stablelm", {"hidden_size": 144, "use_qkv_bias": True}, "bfloat16"),
    "stablelm-norms-parallel": Case(
        "stablelm", {"hidden_size": 144, "qk_layernorm": True, "use_parallel_residual": True}
    ),
    "starcoder2": Case("starcoder2", {"sliding_window": 9, "tie_word_embeddings": True}, "bfloat16"),
    "cohere": Case("cohere", {"tie_word_embeddings": True, "attention_bias": True, "logit_scale": 0.4}),
    "cohere-norms": Case("cohere", {"use_qk_norm": True, "logit_scale": 0.9}, "bfloat16"),
    "cohere2": Case(
        "cohere2",
        {"attention_bias": True, "sliding_window": 7, "num_hidden_layers": 5, "logit_scale": 0.9},
        "bfloat16",
    ),
    "phi": Case("phi", {"hidden_size": 120, "partial_rotary_factor": 0.4}, "bfloat16"),
    "phi-norms": Case("phi", {"hidden_size": 120, "qk_layernorm": True}),
    "phi3": Case("phi3", {"sliding_window": 9, "hidden_size": 120}),
    "phi3-partial": Case("phi3", {"hidden_size": 144, "partial_rotary_factor": 0.75}, "bfloat16"),
    "phi3-long": Case("phi3", {"rope_parameters": LONG, "original_max_position_embeddings": 24}, "bfloat16"),
    "phi3-long-short": Case("phi3", {"rope_parameters": LONG, "original_max_position_embeddings": 40}),
    "gpt_neox": Case("gpt_neox", {"hidden_size": 144}),
    "gpt_neox-sequential": Case(
        "gpt_neox",
        {"hidden_size": 120, "use_parallel_residual": False, "attention_bias": False, "rotary_pct": 0.5},
        "bfloat16",
    ),
    "gpt_bigcode": Case("gpt_bigcode", GPT2_SIZES | {"n_inner": 150, "tie_word_embeddings": True}),
    "gpt_bigcode-heads": Case("gpt_bigcode", GPT2_SIZES | {"multi_query": False}, "bfloat16"),
    "gptj": Case("gptj", {"n_inner": 150, "rotary_dim": 10}),
    "gptj-tied": Case("gptj", {"rotary_dim": 18, "tie_word_embeddings": True}, "bfloat16"),
    "codegen": Case("codegen", {"hidden_size": 88, "num_attention_heads": 4, "rotary_dim": 10}, "bfloat16"),
    "codegen-tied": Case(
        "codegen",
        {"hidden_size": 112, "num_attention_heads": 8, "n_inner": 150, "rotary_dim": 14, "tie_word_embeddings": True},
    ),
    "falcon": Case("falcon", {"tie_word_embeddings": True}, "bfloat16"),
    "falcon-heads-sequential": Case(
        "falcon", {"multi_query": False, "parallel_attn": False, "bias": True, "ffn_hidden_size": 150}
    ),
    "falcon-slopes": Case("falcon", {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True}),
    "falcon-slopes-shared": Case("falcon", {"alibi": True, "bias": True}, "bfloat16"),
    "falcon-new": Case("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon-new-one-norm": Case(
        "falcon",
        {
            "new_decoder_architecture": True,
            "num_kv_heads": 3,
            "num_ln_in_parallel_attn": 1,
            "bias": True,
            "ffn_hidden_size": 150,
        },
        "bfloat16",
    ),
    "bloom": Case("bloom"),
    "bloom-norms-residual": Case(
        "bloom",
        {
            "num_attention_heads": 4,
            "hidden_size": 100,
            "tie_word_embeddings": True,
            "apply_residual_connection_post_layernorm": True,
        },
        "bfloat16",
    ),
    "mpt": Case("mpt", {"max_seq_len": 64}),
    "mpt-clipped": Case(
        "mpt",
        {
            "num_attention_heads": 4,
            "hidden_size": 100,
            "tie_word_embeddings": True,
            "max_seq_len": 64,
            "attn_config": {"clip_qkv": 0.8, "softmax_scale": 0.3},
        },
        "bfloat16",
    ),
    "gpt2": Case("gpt2", GPT2_SIZES | {"n_inner": 150, "tie_word_embeddings": True}),
    "gpt2-scales": Case(
        "gpt2", GPT2_SIZES | {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True}, "bfloat16"
    ),
    "gpt2-no-scale": Case("gpt2", GPT2_SIZES | {"scale_attn_weights": False, "activation_function": "relu"}),
    "exaone4": Case("exaone4", {"head_dim": 22, "sliding_window": 7, "num_hidden_layers": 5}),
    "seed_oss": Case("seed_oss", BIASES | {"head_dim": 22, "attention_out_bias": True}, "bfloat16"),
    "lfm2": Case(
        "lfm2",
        {
            "layer_types": ["conv", "conv", "full_attention", "conv"],
            "num_hidden_layers": 4,
            "block_multiple_of": 7,
            "tie_word_embeddings": True,
        },
        "bfloat16",
    ),
    "lfm2-biases": Case(
        "lfm2",
        {
            "layer_types": ["full_attention", "conv", "full_attention", "conv", "conv"],
            "num_hidden_layers": 5,
            "conv_bias": True,
            "conv_L_cache": 5,
            "block_auto_adjust_ff_dim": False,
            "head_dim": 22,
        },
    ),
    "apertus": Case("apertus", {"attention_bias": True}, "bfloat16"),
    "apertus1p5_text": Case(
        "apertus1p5_text", {"attention_bias": True, "output_vocab_size": 258, "rope_parameters": YARN}
    ),
    "bitnet": Case("bitnet", {"attention_bias": True}),
    "cwm": Case("cwm", {"head_dim": 22, "sliding_window": 7, "num_hidden_layers": 6, "mlp_bias": True}, "bfloat16"),
    "ministral": Case(
        "ministral",
        {"head_dim": 22, "sliding_window": 7, "layer_types": ["full_attention", "sliding_attention", "full_attention"]},
    ),
    "nanochat": Case("nanochat", {"attention_bias": True, "final_logit_softcapping": 12.0}, "bfloat16"),
    "hyperclovax": Case(
        "hyperclovax",
        BIASES
        | {"embedding_multiplier": 3.0, "residual_multiplier": 0.7, "logits_scaling": 0.6, "attention_multiplier": 0.3},
        gain=4.0,
    ),
    "hyperclovax-plain": Case("hyperclovax", {"use_post_norm": False, "head_dim": 22}, "bfloat16"),
    "granite_swa": Case(
        "granite_swa",
        BIASES
        | {
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.7,
            "logits_scaling": 1.7,
            "attention_multiplier": 0.3,
            "sliding_window": 7,
            "num_hidden_layers": 6,
            "layer_rope_theta": [1e4, 5e3, 0, 1e4, 5e3, 0],
        },
        "bfloat16",
        4.0,
    ),
    "vaultgemma": Case(
        "vaultgemma",
        {
            "head_dim": 22,
            "sliding_window": 7,
            "query_pre_attn_scalar": 31,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 20.0,
            "attention_bias": True,
            "num_hidden_layers": 5,
        },
        "bfloat16",
    ),
    "jais2": Case("jais2", {"head_dim": 22}),
    "persimmon": Case("persimmon", {"hidden_size": 120, "rope_parameters": LINEAR | {"partial_rotary_factor": 0.5}}),
    "persimmon-plain": Case("persimmon", {"hidden_size": 144, "qk_layernorm": False}, "bfloat16"),
    "modernbert-decoder": Case(
        "modernbert-decoder",
        BIASES | {"local_attention": 14, "num_hidden_layers": 5, "norm_bias": True, "rope_parameters": KINDS},
    ),
    "biogpt": Case("biogpt", {"tie_word_embeddings": True}),
    "biogpt-untied": Case("biogpt", {"scale_embedding": False}, "bfloat16"),
    "lfm3": Case(
        "lfm3",
        {
            "layer_types": ["conv", "full_attention", "sliding_attention", "conv"],
            "num_hidden_layers": 4,
            "conv_bias": True,
            "conv_L_cache": 5,
            "head_dim": 20,
            "sliding_window": 7,
            "attention_bias": True,
        },
    ),
    "lfm3-plain": Case(
        "lfm3",
        {
            "layer_types": ["sliding_attention", "conv", "full_attention"],
            "use_sandwich_norm": False,
            "use_attention_gate": False,
            "head_dim": 22,
            "sliding_window": 5,
            "rope_parameters": KINDS,
        },
        "bfloat16",
    ),
    "diffllama": Case("diffllama", {"attention_bias": True, "head_dim": 22, "num_key_value_heads": 2}),
    "internlm3": Case("internlm3", {"qkv_bias": True, "bias": True, "head_dim": 22, "rope_parameters": DYNAMIC}),
    "iquestcoder": Case("iquestcoder", BIASES | {"head_dim": 22}, "bfloat16"),
}
