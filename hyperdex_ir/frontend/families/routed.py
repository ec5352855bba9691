"""Mixture-of-experts architectures: each token is routed to some of several experts, in some or all layers."""

from __future__ import annotations

from dataclasses import replace

from hyperdex_ir.frontend.families.llama_like import llama_like
from hyperdex_ir.frontend.family import GROUPS, LAYER_TYPES, NONE, UNTIED, Size, sizes

#: Limit for the experts of a layer; no model has as many.
_MOST = 4096

MIXTRAL = llama_like(
    "MixtralForCausalLM",
    "mixtral",
    sizes(
        32000, 4096, 14336, 32, 32, 131072,
        num_key_value_heads=Size(8, optional=True), sliding_window=NONE, num_local_experts=Size(8, _MOST),
        num_experts_per_tok=Size(2),
    ),
    numbers={"rms_norm_eps": 1e-5},
    limits=(("num_experts_per_tok", "num_local_experts"),),
    variants="routed experts, sliding window",
)  # fmt: skip

QWEN2_MOE = llama_like(
    "Qwen2MoeForCausalLM",
    "qwen2_moe",
    sizes(
        151936, 2048, 5632, 24, 16, 32768,
        num_key_value_heads=Size(16, optional=True), sliding_window=Size(0, least=0, optional=True),
        max_window_layers=Size(28, least=0), decoder_sparse_step=Size(1), moe_intermediate_size=Size(1408),
        shared_expert_intermediate_size=Size(5632), num_experts_per_tok=Size(4), num_experts=Size(60, _MOST, least=0),
    ),
    flags=UNTIED | {"use_sliding_window": False, "norm_topk_prob": False, "qkv_bias": True},
    lists={"layer_types": LAYER_TYPES},
    limits=(("num_experts_per_tok", "num_experts"),),
    aliases={"num_experts": "num_local_experts"},
    eos=None,
    variants="routed experts in some layers, shared experts, sliding window in some layers",
)  # fmt: skip

QWEN3_MOE = llama_like(
    "Qwen3MoeForCausalLM",
    "qwen3_moe",
    sizes(
        151936, 2048, 6144, 24, 32, 32768,
        num_key_value_heads=Size(4), sliding_window=NONE, decoder_sparse_step=Size(1),
        moe_intermediate_size=Size(768), num_experts_per_tok=Size(8), num_experts=Size(128, _MOST, least=0),
    ),
    flags=UNTIED | {"use_sliding_window": False, "norm_topk_prob": False, "attention_bias": False},
    limits=(("num_experts_per_tok", "num_experts"),),
    aliases={"num_experts": "num_local_experts"},
    eos=None,
    variants="routed experts in some layers, sliding window",
)  # fmt: skip

GPT_OSS = llama_like(
    "GptOssForCausalLM",
    "gpt_oss",
    sizes(
        201088, 2880, 2880, 36, 64, 131072,
        num_key_value_heads=Size(8), head_dim=Size(64), sliding_window=Size(128), num_local_experts=Size(128, _MOST),
        num_experts_per_tok=Size(4),
    ),
    numbers={"rms_norm_eps": 1e-5, "swiglu_alpha": 1.702, "swiglu_limit": 7.0},
    flags=UNTIED | {"attention_bias": True},
    lists={"layer_types": LAYER_TYPES},
    limits=(("num_experts_per_tok", "num_local_experts"),),
    eos=None,
    variants="routed experts with biases, attention sinks, alternating sliding windows, yarn rotary, MXFP4",
)  # fmt: skip

DEEPSEEK_V3 = replace(
    MIXTRAL,
    architecture="DeepseekV3ForCausalLM",
    model_type="deepseek_v3",
    sizes=sizes(
        129280, 7168, 18432, 61, 128, 4096,
        num_key_value_heads=Size(128, optional=True), moe_intermediate_size=Size(2048), n_shared_experts=Size(1),
        n_routed_experts=Size(256, _MOST), kv_lora_rank=Size(512), q_lora_rank=Size(1536, optional=True),
        qk_nope_head_dim=Size(128), qk_rope_head_dim=Size(64), v_head_dim=Size(128), n_group=Size(8),
        topk_group=Size(4), num_experts_per_tok=Size(8), first_k_dense_replace=Size(3, least=0),
    ),
    numbers={"rms_norm_eps": 1e-6, "routed_scaling_factor": 2.5},
    flags=UNTIED | {"norm_topk_prob": True, "rope_interleave": True, "attention_bias": False},
    divisions=(GROUPS, ("n_routed_experts", "n_group")),
    limits=(("num_experts_per_tok", "n_routed_experts"), ("topk_group", "n_group")),
    aliases={"n_routed_experts": "num_local_experts"},
    head_parts=("qk_nope_head_dim", "qk_rope_head_dim"),
    eos=1,
    variants="latent attention, dense and routed layers, shared experts, groups of experts, yarn rotary, FP8",
)  # fmt: skip
