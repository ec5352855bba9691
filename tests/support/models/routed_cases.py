"""Tiny models of architectures with routed experts or latent attention, with their options on."""

from __future__ import annotations

from support.models.dense_cases import BIASES, KINDS, LINEAR, YARN, Case

LATENT_HEADS = {
    "num_key_value_heads": 6, "kv_lora_rank": 29, "qk_nope_head_dim": 14, "qk_rope_head_dim": 10, "v_head_dim": 18,
}  # fmt: skip
LATENT = LATENT_HEADS | {"moe_intermediate_size": 46}
MULTIPLIED = {
    "attention_bias": True,
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.7,
    "logits_scaling": 1.7,
    "attention_multiplier": 0.3,
}

#: Names of tests -> models.
ROUTED: dict[str, Case] = {
    "mixtral": Case("mixtral", {"num_local_experts": 5, "head_dim": 22, "sliding_window": 9, "hidden_size": 111}),
    "mixtral-bfloat16": Case("mixtral", {"num_local_experts": 3, "num_experts_per_tok": 2}, "bfloat16"),
    "qwen2_moe": Case(
        "qwen2_moe",
        {
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 46,
            "mlp_only_layers": [1],
            "shared_expert_intermediate_size": 54,
            "norm_topk_prob": True,
        },
    ),
    "qwen2_moe-windows": Case(
        "qwen2_moe",
        {
            "num_experts": 3,
            "num_experts_per_tok": 1,
            "moe_intermediate_size": 46,
            "decoder_sparse_step": 3,
            "shared_expert_intermediate_size": 54,
            "norm_topk_prob": False,
            "qkv_bias": False,
            "use_sliding_window": True,
            "sliding_window": 7,
            "max_window_layers": 1,
        },
        "bfloat16",
    ),
    "qwen3_moe": Case(
        "qwen3_moe",
        {
            "num_experts": 5,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 46,
            "head_dim": 22,
            "decoder_sparse_step": 2,
            "norm_topk_prob": True,
            "attention_bias": True,
        },
        "bfloat16",
    ),
    "qwen3_moe-sums": Case(
        "qwen3_moe",
        {
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 46,
            "head_dim": 14,
            "norm_topk_prob": False,
            "use_sliding_window": True,
            "sliding_window": 5,
        },
    ),
    "gpt_oss": Case(
        "gpt_oss",
        {
            "num_local_experts": 5,
            "num_experts_per_tok": 2,
            "head_dim": 22,
            "sliding_window": 7,
            "swiglu_limit": 1.5,
            "rope_parameters": YARN,
            "num_hidden_layers": 4,
        },
    ),
    "gpt_oss-bfloat16": Case(
        "gpt_oss",
        {
            "num_local_experts": 3,
            "num_experts_per_tok": 2,
            "head_dim": 22,
            "sliding_window": 5,
            "hidden_size": 111,
            "num_hidden_layers": 2,
            "attention_bias": False,
            "rope_parameters": LINEAR,
        },
        "bfloat16",
    ),
    "deepseek_v3": Case(
        "deepseek_v3",
        LATENT
        | {
            "q_lora_rank": 37,
            "n_routed_experts": 6,
            "n_group": 3,
            "topk_group": 2,
            "num_experts_per_tok": 2,
            "first_k_dense_replace": 1,
            "n_shared_experts": 2,
            "rope_parameters": YARN,
        },
    ),
    "deepseek_v3-plain": Case(
        "deepseek_v3",
        LATENT
        | {
            "q_lora_rank": None,
            "n_routed_experts": 4,
            "n_group": 1,
            "topk_group": 1,
            "num_experts_per_tok": 2,
            "first_k_dense_replace": 2,
            "norm_topk_prob": False,
            "rope_interleave": False,
            "attention_bias": True,
        },
        "bfloat16",
    ),
    "olmoe": Case("olmoe", {"num_experts": 5, "num_experts_per_tok": 2, "clip_qkv": 0.8, "attention_bias": True}),
    "flex_olmo": Case(
        "flex_olmo",
        {"num_experts": 5, "num_experts_per_tok": 3, "norm_topk_prob": True, "attention_bias": True},
    ),
    "granitemoe": Case("granitemoe", MULTIPLIED | {"num_local_experts": 5}, gain=4.0),
    "granitemoeshared": Case(
        "granitemoeshared", MULTIPLIED | {"num_local_experts": 5, "shared_intermediate_size": 54}, "bfloat16", 4.0
    ),
    "granitemoe_swa": Case(
        "granitemoe_swa",
        MULTIPLIED
        | {
            "num_local_experts": 5,
            "shared_intermediate_size": 54,
            "sliding_window": 7,
            "num_hidden_layers": 5,
            "layer_rope_theta": [1e4, 5e3, 0, 1e4, 0],
        },
        gain=4.0,
    ),
    "granitemoehybrid": Case(
        "granitemoehybrid",
        MULTIPLIED
        | {
            "num_local_experts": 5,
            "shared_intermediate_size": 54,
            "layer_types": ["attention"] * 3,
            "position_embedding_type": "rope",
            "mamba_n_heads": 6,
        },
        "bfloat16",
        4.0,
    ),
    "granitemoehybrid-dense": Case(
        "granitemoehybrid",
        {
            "num_local_experts": 0,
            "shared_intermediate_size": 54,
            "layer_types": ["full_attention"] * 3,
            "mamba_n_heads": 6,
            "attention_multiplier": 0.3,
        },
    ),
    "aria_text": Case("aria_text", BIASES | {"moe_num_experts": 5, "moe_topk": 2, "head_dim": 22}),
    "ernie4_5_moe": Case(
        "ernie4_5_moe",
        {
            "moe_num_experts": 5,
            "moe_k": 2,
            "moe_intermediate_size": 46,
            "use_bias": True,
            "num_hidden_layers": 5,
            "moe_layer_interval": 2,
        },
        "bfloat16",
    ),
    "cohere2_moe": Case(
        "cohere2_moe",
        {
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "num_shared_experts": 2,
            "head_dim": 22,
            "attention_bias": True,
            "sliding_window": 7,
            "num_hidden_layers": 5,
            "logit_scale": 0.9,
            "first_k_dense_replace": 1,
            "prefix_dense_intermediate_size": 54,
        },
        "bfloat16",
    ),
    "cohere2_moe-sums": Case(
        "cohere2_moe",
        {
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "num_shared_experts": 1,
            "head_dim": 18,
            "rms_norm_eps": 1e-5,
            "shared_expert_combination_strategy": "sum",
            "expert_selection_fn": "sigmoid",
            "norm_topk_prob": False,
            "logit_scale": 0.9,
        },
    ),
    "exaone_moe": Case(
        "exaone_moe",
        {
            "num_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 46,
            "n_group": 3,
            "topk_group": 2,
            "num_shared_experts": 2,
            "sliding_window": 7,
            "head_dim": 22,
            "num_hidden_layers": 5,
        },
    ),
    "glm4_moe": Case(
        "glm4_moe",
        {
            "n_routed_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 46,
            "n_group": 3,
            "topk_group": 2,
            "head_dim": 28,
            "use_qk_norm": True,
            "attention_bias": True,
            "routed_scaling_factor": 1.5,
        },
        "bfloat16",
    ),
    "solar_open": Case(
        "solar_open",
        {
            "n_routed_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 46,
            "n_group": 3,
            "topk_group": 2,
            "head_dim": 22,
            "attention_bias": True,
            "rope_parameters": YARN | {"partial_rotary_factor": 1.0},
        },
    ),
    "dots1": Case(
        "dots1",
        {
            "n_routed_experts": 6,
            "n_shared_experts": 2,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 46,
            "first_k_dense_replace": 1,
            "sliding_window": 7,
            "max_window_layers": 1,
            "attention_bias": True,
            "norm_topk_prob": True,
        },
        "bfloat16",
    ),
    "hunyuan_v1_moe": Case("hunyuan_v1_moe", {"num_experts": 5, "moe_topk": 2, "head_dim": 22, "attention_bias": True}),
    "hy_v3": Case(
        "hy_v3",
        BIASES | {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 46, "head_dim": 22},
        "bfloat16",
    ),
    "flint": Case(
        "flint",
        {
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 46,
            "head_dim": 22,
            "sliding_window": 7,
            "shared_expert_intermediate_size": 54,
            "mlp_only_layers": [1],
            "attention_bias": True,
            "num_hidden_layers": 4,
        },
    ),
    "kolibri1": Case(
        "kolibri1",
        {
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 46,
            "head_dim": 22,
            "sliding_window": 7,
            "shared_expert_intermediate_size": 54,
            "norm_topk_prob": True,
            "num_hidden_layers": 5,
        },
    ),
    "laguna": Case(
        "laguna",
        {
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 46,
            "head_dim": 20,
            "sliding_window": 7,
            "shared_expert_intermediate_size": 54,
            "attention_bias": True,
            "moe_router_logit_softcapping": 3.0,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
            "num_attention_heads_per_layer": [6, 4, 6],
            "moe_routed_scaling_factor": 1.5,
        },
    ),
    "mellum": Case(
        "mellum",
        {
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 46,
            "head_dim": 22,
            "sliding_window": 7,
            "attention_bias": True,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
            "mlp_layer_types": ["sparse", "dense", "sparse"],
            "rope_parameters": KINDS,
        },
    ),
    "minimax_m2": Case(
        "minimax_m2", {"num_local_experts": 5, "num_experts_per_tok": 2, "head_dim": 22, "rotary_dim": 10}
    ),
    "afmoe": Case(
        "afmoe",
        {
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 46,
            "head_dim": 22,
            "sliding_window": 7,
            "attention_bias": True,
            "mup_enabled": True,
            "route_scale": 1.5,
            "num_hidden_layers": 5,
        },
    ),
    "lfm2_moe": Case(
        "lfm2_moe",
        {
            "layer_types": ["conv", "full_attention", "conv", "full_attention"],
            "num_hidden_layers": 4,
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 46,
            "num_dense_layers": 1,
            "conv_bias": True,
        },
    ),
    # transformers clears the row of a padding token when it loads a Youtu.
    "youtu": Case("youtu", LATENT_HEADS | {"q_lora_rank": 37, "attention_bias": True, "pad_token_id": None}),
    "glm4_moe_lite": Case(
        "glm4_moe_lite",
        LATENT
        | {
            "q_lora_rank": 37,
            "n_routed_experts": 6,
            "n_group": 3,
            "topk_group": 2,
            "num_experts_per_tok": 2,
            "attention_bias": True,
        },
    ),
    "axk1": Case(
        "axk1",
        LATENT
        | {
            "q_lora_rank": 37,
            "n_routed_experts": 6,
            "n_group": 3,
            "topk_group": 2,
            "num_experts_per_tok": 2,
            "n_shared_experts": 2,
            "rope_parameters": YARN,
        },
    ),
    "sarvam_mla": Case(
        "sarvam_mla",
        LATENT | {"q_lora_rank": None, "n_routed_experts": 6, "n_group": 3, "topk_group": 2, "num_experts_per_tok": 2},
    ),
    "minicpm3": Case(
        "minicpm3",
        LATENT_HEADS
        | BIASES
        | {
            "q_lora_rank": 37,
            "scale_emb": 3,
            "scale_depth": 1.4,
            "dim_model_base": 54,
            "head_dim": 10,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "original_max_position_embeddings": 24,
                "short_factor": [1.0 + i / 16 for i in range(5)],
                "long_factor": [1.5 + i for i in range(5)],
            },
        },
        gain=4.0,
    ),
    "mimo_v2_flash": Case(
        "mimo_v2_flash",
        {
            "num_attention_heads": 8,
            "head_dim": 22,
            "v_head_dim": 14,
            "sliding_window": 7,
            "n_routed_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 46,
            "n_group": 3,
            "topk_group": 2,
            "attention_bias": True,
            "rope_parameters": {
                "full_attention": KINDS["full_attention"] | {"partial_rotary_factor": 0.5},
                "sliding_attention": KINDS["sliding_attention"] | {"partial_rotary_factor": 0.4},
            },
        },
    ),
}
