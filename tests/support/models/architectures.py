"""Tiny models of the supported architectures, with their options on: a new architecture is a new entry in CASES."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from support.models.tiny import BOS, EOS, write_tokenizer

#: No size is a multiple of 64; the heads are not hidden / heads where a configuration can say so.
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
_GPT2_SIZES = {"n_embd": 108, "n_layer": 3, "n_head": 6, "n_positions": 64}
_BIASES = {"attention_bias": True, "mlp_bias": True}
_YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
_LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
_LINEAR = {"rope_type": "linear", "rope_theta": 5e5, "factor": 4.0}
_DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 3.0}
_LONG = {
    "rope_type": "longrope", "rope_theta": 1e4,
    "short_factor": [1.0 + i / 16 for i in range(9)], "long_factor": [1.5 + i for i in range(9)],
}  # fmt: skip
_KINDS = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e3},
}
#: 26 layers of Gemma 3 in small: repeated periods of one that sees all after others, and then a part of a period.
_LAYER_TYPES = (["sliding_attention"] * 2 + ["full_attention"]) * 3 + ["sliding_attention"] * 2

_LATENT_HEADS = {
    "num_key_value_heads": 6, "kv_lora_rank": 29, "qk_nope_head_dim": 14, "qk_rope_head_dim": 10, "v_head_dim": 18,
}  # fmt: skip
_LATENT = _LATENT_HEADS | {"moe_intermediate_size": 46}
_MULTIPLIED = {
    "attention_bias": True,
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.7,
    "logits_scaling": 1.7,
    "attention_multiplier": 0.3,
}


@dataclass(frozen=True)
class Case:
    """A tiny model: its model_type, what differs from SIZES, the type of its tensors, a factor of its logits."""

    model_type: str
    fields: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float16"
    gain: float = 2.0


#: Names of tests -> models.
CASES: dict[str, Case] = {
    "llama": Case("llama", _BIASES | {"rope_parameters": _LLAMA3}),
    "llama-dynamic": Case("llama", {"rope_parameters": _DYNAMIC, "max_position_embeddings": 17}),
    "llama-dynamic-short": Case("llama", {"rope_parameters": _DYNAMIC, "max_position_embeddings": 41}, "bfloat16"),
    "llama-linear": Case("llama", {"head_dim": 22, "rope_parameters": _LINEAR}, "bfloat16"),
    "opt": Case("opt", {"ffn_dim": 150, "word_embed_proj_dim": 60, "tie_word_embeddings": True}),
    "opt-norms-after": Case(
        "opt", {"ffn_dim": 150, "word_embed_proj_dim": 108, "do_layer_norm_before": False}, "bfloat16"
    ),
    "opt-xielu": Case(
        "opt", {"ffn_dim": 150, "word_embed_proj_dim": 108, "activation_function": "xielu"}, "bfloat16"
    ),
    "mistral": Case("mistral", {"head_dim": 22, "sliding_window": 9}, "bfloat16"),
    "mistral-whole": Case("mistral", {"sliding_window": None, "hidden_size": 111}, "float16"),
    "qwen2": Case("qwen2", {"tie_word_embeddings": True}, "bfloat16"),
    "qwen2-windows": Case(
        "qwen2", {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1, "num_key_value_heads": 3}
    ),
    "qwen3": Case("qwen3", {"head_dim": 22, "attention_bias": True, "rope_parameters": _YARN}, "bfloat16"),
    "qwen3-windows": Case(
        "qwen3", {"head_dim": 14, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2}
    ),
    "smollm3": Case(
        "smollm3",
        _BIASES
        | {"no_rope_layer_interval": 2, "use_sliding_window": True, "sliding_window": 11, "num_hidden_layers": 5},
    ),
    "arcee": Case("arcee", _BIASES | {"rope_parameters": _YARN}, "bfloat16"),
    "olmo": Case("olmo", {"attention_bias": True}),
    "olmo-clipped": Case("olmo", {"clip_qkv": 0.8, "num_key_value_heads": 3}, "bfloat16"),
    "olmo2": Case("olmo2", {"attention_bias": True}, "bfloat16"),
    "olmo3": Case(
        "olmo3",
        {
            "attention_bias": True, "sliding_window": 7, "num_hidden_layers": 8,
            "rope_parameters": _KINDS | {"full_attention": _YARN},
        },
        "bfloat16",
    ),
    "gemma": Case("gemma", {"head_dim": 22, "tie_word_embeddings": True, "attention_bias": True}, "bfloat16"),
    "gemma-untied": Case("gemma", {"head_dim": 14, "hidden_size": 111, "num_key_value_heads": 1}),
    "gemma2": Case(
        "gemma2",
        {
            "head_dim": 22, "sliding_window": 7, "query_pre_attn_scalar": 31, "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 20.0, "attention_bias": True,
        },
        "bfloat16",
    ),
    "gemma2-uncapped": Case(
        "gemma2",
        {
            "head_dim": 14, "sliding_window": 5, "query_pre_attn_scalar": 20, "attn_logit_softcapping": None,
            "final_logit_softcapping": None, "num_hidden_layers": 5, "tie_word_embeddings": True,
        },
    ),
    "gemma3": Case(
        "gemma3_text",
        {
            "head_dim": 22, "sliding_window": 7, "query_pre_attn_scalar": 31, "layer_types": _LAYER_TYPES,
            "num_hidden_layers": 11, "rope_parameters": _KINDS, "attention_bias": True,
        },
        "bfloat16",
    ),
    "gemma3-softcap": Case(
        "gemma3_text",
        {
            "head_dim": 14, "sliding_window": 5, "query_pre_attn_scalar": 20, "sliding_window_pattern": 3,
            "num_hidden_layers": 4, "final_logit_softcapping": 20.0,
        },
    ),
    "granite": Case(
        "granite",
        _BIASES
        | {"embedding_multiplier": 3.0, "residual_multiplier": 0.7, "logits_scaling": 1.7, "attention_multiplier": 0.3},
        "bfloat16",
        4.0,
    ),
    "helium": Case("helium", _BIASES | {"head_dim": 18}),
    "ernie4_5": Case("ernie4_5", {"head_dim": 22, "use_bias": True}, "bfloat16"),
    "hunyuan": Case("hunyuan_v1_dense", {"head_dim": 22, "attention_bias": True}),
    "glm": Case("glm", {"head_dim": 28}, "bfloat16"),
    "glm4": Case("glm4", {"head_dim": 28}),
    "nemotron": Case("nemotron", _BIASES | {"head_dim": 28}, "bfloat16"),
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
    "phi3-long": Case("phi3", {"rope_parameters": _LONG, "original_max_position_embeddings": 24}, "bfloat16"),
    "phi3-long-short": Case("phi3", {"rope_parameters": _LONG, "original_max_position_embeddings": 40}),
    "gpt_neox": Case("gpt_neox", {"hidden_size": 144}),
    "gpt_neox-sequential": Case(
        "gpt_neox", {"hidden_size": 120, "use_parallel_residual": False, "attention_bias": False, "rotary_pct": 0.5},
        "bfloat16",
    ),
    "gpt_bigcode": Case("gpt_bigcode", _GPT2_SIZES | {"n_inner": 150, "tie_word_embeddings": True}),
    "gpt_bigcode-heads": Case("gpt_bigcode", _GPT2_SIZES | {"multi_query": False}, "bfloat16"),
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
        {"new_decoder_architecture": True, "num_kv_heads": 3, "num_ln_in_parallel_attn": 1, "bias": True,
         "ffn_hidden_size": 150},
        "bfloat16",
    ),
    "bloom": Case("bloom"),
    "bloom-norms-residual": Case(
        "bloom",
        {"num_attention_heads": 4, "hidden_size": 100, "tie_word_embeddings": True,
         "apply_residual_connection_post_layernorm": True},
        "bfloat16",
    ),
    "mpt": Case("mpt", {"max_seq_len": 64}),
    "mpt-clipped": Case(
        "mpt",
        {"num_attention_heads": 4, "hidden_size": 100, "tie_word_embeddings": True, "max_seq_len": 64,
         "attn_config": {"clip_qkv": 0.8, "softmax_scale": 0.3}},
        "bfloat16",
    ),
    "gpt2": Case("gpt2", _GPT2_SIZES | {"n_inner": 150, "tie_word_embeddings": True}),
    "gpt2-scales": Case(
        "gpt2", _GPT2_SIZES | {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True}, "bfloat16"
    ),
    "gpt2-no-scale": Case("gpt2", _GPT2_SIZES | {"scale_attn_weights": False, "activation_function": "relu"}),
    "exaone4": Case("exaone4", {"head_dim": 22, "sliding_window": 7, "num_hidden_layers": 5}),
    "seed_oss": Case("seed_oss", _BIASES | {"head_dim": 22, "attention_out_bias": True}, "bfloat16"),
    "mixtral": Case("mixtral", {"num_local_experts": 5, "head_dim": 22, "sliding_window": 9, "hidden_size": 111}),
    "mixtral-bfloat16": Case("mixtral", {"num_local_experts": 3, "num_experts_per_tok": 2}, "bfloat16"),
    "qwen2_moe": Case(
        "qwen2_moe",
        {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 46, "mlp_only_layers": [1],
         "shared_expert_intermediate_size": 54, "norm_topk_prob": True},
    ),
    "qwen2_moe-windows": Case(
        "qwen2_moe",
        {"num_experts": 3, "num_experts_per_tok": 1, "moe_intermediate_size": 46, "decoder_sparse_step": 3,
         "shared_expert_intermediate_size": 54, "norm_topk_prob": False, "qkv_bias": False,
         "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
        "bfloat16",
    ),
    "qwen3_moe": Case(
        "qwen3_moe",
        {"num_experts": 5, "num_experts_per_tok": 3, "moe_intermediate_size": 46, "head_dim": 22,
         "decoder_sparse_step": 2, "norm_topk_prob": True, "attention_bias": True},
        "bfloat16",
    ),
    "qwen3_moe-sums": Case(
        "qwen3_moe",
        {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 46, "head_dim": 14,
         "norm_topk_prob": False, "use_sliding_window": True, "sliding_window": 5},
    ),
    "gpt_oss": Case("gpt_oss", {"num_local_experts": 5, "num_experts_per_tok": 2, "head_dim": 22, "sliding_window": 7,
                                "swiglu_limit": 1.5, "rope_parameters": _YARN, "num_hidden_layers": 4}),
    "gpt_oss-bfloat16": Case(
        "gpt_oss",
        {"num_local_experts": 3, "num_experts_per_tok": 2, "head_dim": 22, "sliding_window": 5, "hidden_size": 111,
         "num_hidden_layers": 2, "attention_bias": False, "rope_parameters": _LINEAR},
        "bfloat16",
    ),
    "deepseek_v3": Case(
        "deepseek_v3",
        _LATENT | {"q_lora_rank": 37, "n_routed_experts": 6, "n_group": 3, "topk_group": 2, "num_experts_per_tok": 2,
                   "first_k_dense_replace": 1, "n_shared_experts": 2, "rope_parameters": _YARN},
    ),
    "deepseek_v3-plain": Case(
        "deepseek_v3",
        _LATENT | {"q_lora_rank": None, "n_routed_experts": 4, "n_group": 1, "topk_group": 1,
                   "num_experts_per_tok": 2, "first_k_dense_replace": 2, "norm_topk_prob": False,
                   "rope_interleave": False, "attention_bias": True},
        "bfloat16",
    ),
    "lfm2": Case(
        "lfm2",
        {"layer_types": ["conv", "conv", "full_attention", "conv"], "num_hidden_layers": 4, "block_multiple_of": 7,
         "tie_word_embeddings": True},
        "bfloat16",
    ),
    "lfm2-biases": Case(
        "lfm2",
        {"layer_types": ["full_attention", "conv", "full_attention", "conv", "conv"], "num_hidden_layers": 5,
         "conv_bias": True, "conv_L_cache": 5, "block_auto_adjust_ff_dim": False, "head_dim": 22},
    ),
    "apertus": Case("apertus", {"attention_bias": True}, "bfloat16"),
    "apertus1p5_text": Case(
        "apertus1p5_text", {"attention_bias": True, "output_vocab_size": 258, "rope_parameters": _YARN}
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
        _BIASES
        | {"embedding_multiplier": 3.0, "residual_multiplier": 0.7, "logits_scaling": 0.6, "attention_multiplier": 0.3},
        gain=4.0,
    ),
    "hyperclovax-plain": Case("hyperclovax", {"use_post_norm": False, "head_dim": 22}, "bfloat16"),
    "granite_swa": Case(
        "granite_swa",
        _BIASES
        | {"embedding_multiplier": 3.0, "residual_multiplier": 0.7, "logits_scaling": 1.7, "attention_multiplier": 0.3,
           "sliding_window": 7, "num_hidden_layers": 6, "layer_rope_theta": [1e4, 5e3, 0, 1e4, 5e3, 0]},
        "bfloat16",
        4.0,
    ),
    "vaultgemma": Case(
        "vaultgemma",
        {"head_dim": 22, "sliding_window": 7, "query_pre_attn_scalar": 31, "attn_logit_softcapping": 3.0,
         "final_logit_softcapping": 20.0, "attention_bias": True, "num_hidden_layers": 5},
        "bfloat16",
    ),
    "jais2": Case("jais2", {"head_dim": 22}),
    "persimmon": Case("persimmon", {"hidden_size": 120, "rope_parameters": _LINEAR | {"partial_rotary_factor": 0.5}}),
    "persimmon-plain": Case("persimmon", {"hidden_size": 144, "qk_layernorm": False}, "bfloat16"),
    "modernbert-decoder": Case(
        "modernbert-decoder",
        _BIASES | {"local_attention": 14, "num_hidden_layers": 5, "norm_bias": True, "rope_parameters": _KINDS},
    ),
    "biogpt": Case("biogpt", {"tie_word_embeddings": True}),
    "biogpt-untied": Case("biogpt", {"scale_embedding": False}, "bfloat16"),
    "lfm3": Case(
        "lfm3",
        {"layer_types": ["conv", "full_attention", "sliding_attention", "conv"], "num_hidden_layers": 4,
         "conv_bias": True, "conv_L_cache": 5, "head_dim": 20, "sliding_window": 7, "attention_bias": True},
    ),
    "lfm3-plain": Case(
        "lfm3",
        {"layer_types": ["sliding_attention", "conv", "full_attention"], "use_sandwich_norm": False,
         "use_attention_gate": False, "head_dim": 22, "sliding_window": 5, "rope_parameters": _KINDS},
        "bfloat16",
    ),
    "olmoe": Case(
        "olmoe", {"num_experts": 5, "num_experts_per_tok": 2, "clip_qkv": 0.8, "attention_bias": True}
    ),
    "flex_olmo": Case(
        "flex_olmo",
        {"num_experts": 5, "num_experts_per_tok": 3, "norm_topk_prob": True, "attention_bias": True},
    ),
    "granitemoe": Case("granitemoe", _MULTIPLIED | {"num_local_experts": 5}, gain=4.0),
    "granitemoeshared": Case(
        "granitemoeshared", _MULTIPLIED | {"num_local_experts": 5, "shared_intermediate_size": 54}, "bfloat16", 4.0
    ),
    "granitemoe_swa": Case(
        "granitemoe_swa",
        _MULTIPLIED
        | {"num_local_experts": 5, "shared_intermediate_size": 54, "sliding_window": 7, "num_hidden_layers": 5,
           "layer_rope_theta": [1e4, 5e3, 0, 1e4, 0]},
        gain=4.0,
    ),
    "granitemoehybrid": Case(
        "granitemoehybrid",
        _MULTIPLIED
        | {"num_local_experts": 5, "shared_intermediate_size": 54, "layer_types": ["attention"] * 3,
           "position_embedding_type": "rope", "mamba_n_heads": 6},
        "bfloat16",
        4.0,
    ),
    "granitemoehybrid-dense": Case(
        "granitemoehybrid",
        {"num_local_experts": 0, "shared_intermediate_size": 54, "layer_types": ["full_attention"] * 3,
         "mamba_n_heads": 6, "attention_multiplier": 0.3},
    ),
    "aria_text": Case("aria_text", _BIASES | {"moe_num_experts": 5, "moe_topk": 2, "head_dim": 22}),
    "ernie4_5_moe": Case(
        "ernie4_5_moe",
        {"moe_num_experts": 5, "moe_k": 2, "moe_intermediate_size": 46, "use_bias": True, "num_hidden_layers": 5,
         "moe_layer_interval": 2},
        "bfloat16",
    ),
    "cohere2_moe": Case(
        "cohere2_moe",
        {"num_experts": 5, "num_experts_per_tok": 2, "num_shared_experts": 2, "head_dim": 22, "attention_bias": True,
         "sliding_window": 7, "num_hidden_layers": 5, "logit_scale": 0.9, "first_k_dense_replace": 1,
         "prefix_dense_intermediate_size": 54},
        "bfloat16",
    ),
    "cohere2_moe-sums": Case(
        "cohere2_moe",
        {"num_experts": 5, "num_experts_per_tok": 2, "num_shared_experts": 1, "head_dim": 18, "rms_norm_eps": 1e-5,
         "shared_expert_combination_strategy": "sum", "expert_selection_fn": "sigmoid", "norm_topk_prob": False,
         "logit_scale": 0.9},
    ),
    "exaone_moe": Case(
        "exaone_moe",
        {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 46, "n_group": 3, "topk_group": 2,
         "num_shared_experts": 2, "sliding_window": 7, "head_dim": 22, "num_hidden_layers": 5},
    ),
    "glm4_moe": Case(
        "glm4_moe",
        {"n_routed_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 46, "n_group": 3, "topk_group": 2,
         "head_dim": 28, "use_qk_norm": True, "attention_bias": True, "routed_scaling_factor": 1.5},
        "bfloat16",
    ),
    "solar_open": Case(
        "solar_open",
        {"n_routed_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 46, "n_group": 3, "topk_group": 2,
         "head_dim": 22, "attention_bias": True, "rope_parameters": _YARN | {"partial_rotary_factor": 1.0}},
    ),
    "dots1": Case(
        "dots1",
        {"n_routed_experts": 6, "n_shared_experts": 2, "num_experts_per_tok": 2, "moe_intermediate_size": 46,
         "first_k_dense_replace": 1, "sliding_window": 7, "max_window_layers": 1, "attention_bias": True,
         "norm_topk_prob": True},
        "bfloat16",
    ),
    "hunyuan_v1_moe": Case(
        "hunyuan_v1_moe", {"num_experts": 5, "moe_topk": 2, "head_dim": 22, "attention_bias": True}
    ),
    "hy_v3": Case(
        "hy_v3",
        _BIASES | {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 46, "head_dim": 22},
        "bfloat16",
    ),
    "flint": Case(
        "flint",
        {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 46, "head_dim": 22, "sliding_window": 7,
         "shared_expert_intermediate_size": 54, "mlp_only_layers": [1], "attention_bias": True,
         "num_hidden_layers": 4},
    ),
    "kolibri1": Case(
        "kolibri1",
        {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 46, "head_dim": 22, "sliding_window": 7,
         "shared_expert_intermediate_size": 54, "norm_topk_prob": True, "num_hidden_layers": 5},
    ),
    "laguna": Case(
        "laguna",
        {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 46, "head_dim": 20, "sliding_window": 7,
         "shared_expert_intermediate_size": 54, "attention_bias": True, "moe_router_logit_softcapping": 3.0,
         "layer_types": ["full_attention", "sliding_attention", "full_attention"],
         "num_attention_heads_per_layer": [6, 4, 6], "moe_routed_scaling_factor": 1.5},
    ),
    "mellum": Case(
        "mellum",
        {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 46, "head_dim": 22, "sliding_window": 7,
         "attention_bias": True, "layer_types": ["full_attention", "sliding_attention", "full_attention"],
         "mlp_layer_types": ["sparse", "dense", "sparse"], "rope_parameters": _KINDS},
    ),
    "minimax_m2": Case(
        "minimax_m2", {"num_local_experts": 5, "num_experts_per_tok": 2, "head_dim": 22, "rotary_dim": 10}
    ),
    "afmoe": Case(
        "afmoe",
        {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 46, "head_dim": 22, "sliding_window": 7,
         "attention_bias": True, "mup_enabled": True, "route_scale": 1.5, "num_hidden_layers": 5},
    ),
    "lfm2_moe": Case(
        "lfm2_moe",
        {"layer_types": ["conv", "full_attention", "conv", "full_attention"], "num_hidden_layers": 4,
         "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 46, "num_dense_layers": 1,
         "conv_bias": True},
    ),
    # transformers clears the row of a padding token when it loads a Youtu.
    "youtu": Case("youtu", _LATENT_HEADS | {"q_lora_rank": 37, "attention_bias": True, "pad_token_id": None}),
    "glm4_moe_lite": Case(
        "glm4_moe_lite",
        _LATENT | {"q_lora_rank": 37, "n_routed_experts": 6, "n_group": 3, "topk_group": 2, "num_experts_per_tok": 2,
                   "attention_bias": True},
    ),
    "axk1": Case(
        "axk1",
        _LATENT | {"q_lora_rank": 37, "n_routed_experts": 6, "n_group": 3, "topk_group": 2, "num_experts_per_tok": 2,
                   "n_shared_experts": 2, "rope_parameters": _YARN},
    ),
    "diffllama": Case("diffllama", {"attention_bias": True, "head_dim": 22, "num_key_value_heads": 2}),
    "internlm3": Case("internlm3", {"qkv_bias": True, "bias": True, "head_dim": 22, "rope_parameters": _DYNAMIC}),
    "iquestcoder": Case("iquestcoder", _BIASES | {"head_dim": 22}, "bfloat16"),
    "sarvam_mla": Case(
        "sarvam_mla",
        _LATENT | {"q_lora_rank": None, "n_routed_experts": 6, "n_group": 3, "topk_group": 2,
                   "num_experts_per_tok": 2},
    ),
    "minicpm3": Case(
        "minicpm3",
        _LATENT_HEADS | _BIASES
        | {"q_lora_rank": 37, "scale_emb": 3, "scale_depth": 1.4, "dim_model_base": 54, "head_dim": 10,
           "rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 24,
                               "short_factor": [1.0 + i / 16 for i in range(5)],
                               "long_factor": [1.5 + i for i in range(5)]}},
        gain=4.0,
    ),
    "mimo_v2_flash": Case(
        "mimo_v2_flash",
        {"num_attention_heads": 8, "head_dim": 22, "v_head_dim": 14, "sliding_window": 7, "n_routed_experts": 6,
         "num_experts_per_tok": 2, "moe_intermediate_size": 46, "n_group": 3, "topk_group": 2, "attention_bias": True,
         "rope_parameters": {"full_attention": _KINDS["full_attention"] | {"partial_rotary_factor": 0.5},
                             "sliding_attention": _KINDS["sliding_attention"] | {"partial_rotary_factor": 0.4}}},
    ),
}  # fmt: skip


def write_config(case: Case, directory: Path) -> Path:
    """Writes config.json alone; gives the directory."""
    with torch.device("meta"):
        model = _model(case)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(directory)
    return directory


def _model(case: Case) -> PreTrainedModel:
    config = AutoConfig.for_model(case.model_type, **(SIZES | case.fields))
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def write_case(case: Case, directory: Path, seed: int) -> Path:
    """Writes config.json, safetensors with random weights and a tokenizer; gives the directory."""
    model = _model(case)
    _randomize(model, seed, case.gain)
    model.to(getattr(torch, case.dtype)).save_pretrained(directory)
    write_tokenizer(directory)
    return directory


def _randomize(model: PreTrainedModel, seed: int, gain: float) -> None:
    """Matrices that keep the variance, an embedding of variance 1, norms near 1, biases near 0; a head with a gain."""
    generator = torch.Generator().manual_seed(seed)
    head: Any = model.get_output_embeddings()
    embedding: Any = model.get_input_embeddings()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator)
            if parameter is embedding.weight:
                parameter.copy_(values)
            elif parameter is head.weight:
                parameter.copy_(values * gain * parameter.shape[1] ** -0.5)
            elif parameter.dim() >= 2 and "norm" not in name and not name.endswith("bias"):
                parameter.copy_(values * _inputs(model, name, parameter) ** -0.5)
            else:
                parameter.copy_(0.1 * values + (1.0 if name.endswith("weight") else 0.0))
        for name, buffer in model.named_buffers():
            if name.endswith(("e_score_correction_bias", "expert_bias")):
                buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))


def _inputs(model: PreTrainedModel, name: str, parameter: torch.Tensor) -> int:
    """How many numbers a row of a matrix is multiplied with."""
    experts: Any = model.get_submodule(name.rpartition(".")[0])
    return parameter.shape[1 if getattr(experts, "is_transposed", False) else -1]
