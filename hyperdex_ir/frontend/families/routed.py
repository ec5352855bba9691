"""Mixture-of-experts architectures: each token is routed to some of several experts, in some or all layers."""

from __future__ import annotations

from dataclasses import replace

from hyperdex_ir.frontend.families.llama_like import GRANITE, llama_like
from hyperdex_ir.frontend.family import GROUPS, LAYER_TYPES, NONE, PART, UNTIED, Family, Size, activation, sizes

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

#: Kinds of MLP of a layer, for architectures that list them.
MLP_TYPES = ("dense", "sparse")
_OF_EXPERTS = (("num_experts_per_tok", "num_experts"),)
_OF_ROUTED = (("num_experts_per_tok", "n_routed_experts"), ("topk_group", "n_group"))
_GROUPED = (GROUPS, ("n_routed_experts", "n_group"))
_SCALED_ROUTES = {"rms_norm_eps": 1e-5, "routed_scaling_factor": 1.0}


def _groups() -> dict[str, Size]:
    return {"n_group": Size(1), "topk_group": Size(1)}


OLMOE = llama_like(
    "OlmoeForCausalLM",
    "olmoe",
    sizes(50304, 2048, 2048, 16, 16, 4096, num_experts_per_tok=Size(8), num_experts=Size(64, _MOST)),
    numbers={"rms_norm_eps": 1e-5},
    optional_numbers={"clip_qkv": None},
    flags=UNTIED | {"attention_bias": False, "norm_topk_prob": False},
    limits=_OF_EXPERTS,
    aliases={"num_experts": "num_local_experts"},
    eos=50279,
    variants="routed experts, norms of heads together, clipped queries, keys and values, biases",
)

FLEX_OLMO = replace(
    OLMOE,
    architecture="FlexOlmoForCausalLM",
    model_type="flex_olmo",
    sizes=OLMOE.sizes
    | sizes(100352, 4096, 11008, 32, 32, 4096, num_experts_per_tok=Size(5), num_experts=Size(7, _MOST)),
    numbers={"rms_norm_eps": 1e-6},
    optional_numbers={},
    eos=100257,
    variants="routed experts, norms after, norms of heads together, biases",
)

GRANITE_MOE = replace(
    GRANITE,
    architecture="GraniteMoeForCausalLM",
    model_type="granitemoe",
    sizes=GRANITE.sizes | {"num_local_experts": Size(8, _MOST), "num_experts_per_tok": Size(2)},
    flags=UNTIED | {"attention_bias": False},
    limits=(("num_experts_per_tok", "num_local_experts"),),
    variants="routed experts, all multipliers, biases",
)

GRANITE_MOE_SHARED = replace(
    GRANITE_MOE,
    architecture="GraniteMoeSharedForCausalLM",
    model_type="granitemoeshared",
    sizes=GRANITE_MOE.sizes | {"shared_intermediate_size": Size(0, least=0)},
    variants="routed experts, a shared expert, all multipliers, biases",
)

GRANITE_MOE_SWA = replace(
    GRANITE_MOE_SHARED,
    architecture="GraniteMoeSWAForCausalLM",
    model_type="granitemoe_swa",
    sizes=GRANITE_MOE_SHARED.sizes | {"sliding_window": Size(128, optional=True)},
    lists={"layer_types": LAYER_TYPES},
    layer_numbers=("layer_rope_theta",),
    variants="routed experts, a shared expert, sinks, sliding windows, no positions in some layers, all multipliers",
)

GRANITE_MOE_HYBRID = replace(
    GRANITE_MOE_SHARED,
    architecture="GraniteMoeHybridForCausalLM",
    model_type="granitemoehybrid",
    sizes=GRANITE_MOE_SHARED.sizes
    | {"num_local_experts": Size(8, _MOST, least=0), "shared_intermediate_size": Size(1024)},
    lists={"layer_types": ("attention", "full_attention")},
    needed=("layer_types",),
    limits=(),
    variants="layers of attention only; with positions or without, with routed experts or without, all multipliers",
)

ARIA = llama_like(
    "AriaTextForCausalLM",
    "aria_text",
    sizes(
        32000, 4096, 4096, 32, 32, 2048,
        moe_num_experts=Size(8, _MOST), moe_topk=Size(2), moe_num_shared_experts=Size(2),
    ),
    flags=UNTIED | {"attention_bias": False, "mlp_bias": False},
    limits=(("moe_topk", "moe_num_experts"),),
    variants="routed experts, shared experts, biases",
)  # fmt: skip

ERNIE_MOE = llama_like(
    "Ernie4_5_MoeForCausalLM",
    "ernie4_5_moe",
    sizes(
        103424, 2560, 12288, 28, 20, 131072,
        num_key_value_heads=Size(4, optional=True), moe_intermediate_size=Size(1536), moe_k=Size(6),
        moe_num_experts=Size(64, _MOST), moe_num_shared_experts=Size(2, least=0),
        moe_layer_start_index=Size(1, least=0), moe_layer_end_index=Size(None, least=-1, optional=True),
        moe_layer_interval=Size(1),
    ),
    numbers={"rms_norm_eps": 1e-5, "moe_norm_min": 1e-12},
    flags={"tie_word_embeddings": True, "use_bias": False},
    limits=(("moe_k", "moe_num_experts"),),
    aliases={"moe_num_experts": "num_experts", "moe_k": "num_experts_per_tok"},
    variants="routed experts in some layers, shared experts, biases",
)  # fmt: skip

COHERE2_MOE = Family(
    architecture="Cohere2MoeForCausalLM",
    model_type="cohere2_moe",
    sizes=sizes(
        256000, 8192, 22528, 40, 64, 8192,
        num_key_value_heads=NONE, head_dim=Size(128), sliding_window=Size(4096, optional=True),
        num_experts_per_tok=Size(2), num_experts=Size(8, _MOST), num_shared_experts=Size(0, least=0),
        prefix_dense_sliding_window_pattern=Size(1), sliding_window_pattern=Size(4),
        prefix_dense_intermediate_size=NONE,
    ),
    numbers={"layer_norm_eps": 1e-5, "logit_scale": 0.0625},
    optional_numbers={"rms_norm_eps": None},
    flags={"tie_word_embeddings": True, "attention_bias": False, "norm_topk_prob": True},
    choices=activation("silu")
    | {
        "shared_expert_combination_strategy": ("average", ("average", "sum")),
        "expert_selection_fn": ("softmax", ("softmax", "sigmoid")),
    },
    lists={"layer_types": LAYER_TYPES, "mlp_layer_types": MLP_TYPES},
    divisions=(GROUPS,),
    limits=_OF_EXPERTS,
    eos=255001,
    variants="routed experts in some layers, shared experts, layer or RMS norms, alternating sliding windows, biases",
)  # fmt: skip

EXAONE_MOE = llama_like(
    "ExaoneMoeForCausalLM",
    "exaone_moe",
    sizes(
        102400, 4096, 16384, 32, 32, 2048,
        num_key_value_heads=Size(32), sliding_window=Size(4096), first_k_dense_replace=Size(1, least=0),
        moe_intermediate_size=Size(1024), num_experts=Size(64, _MOST), num_experts_per_tok=Size(8),
        num_shared_experts=Size(1), **_groups(),
    ),
    numbers=_SCALED_ROUTES | {"routed_scaling_factor": 2.5},
    flags=UNTIED | {"norm_topk_prob": True},
    lists={"layer_types": LAYER_TYPES, "mlp_layer_types": MLP_TYPES},
    divisions=(GROUPS, ("num_experts", "n_group")),
    limits=(*_OF_EXPERTS, ("topk_group", "n_group")),
    eos=53,
    variants="groups of experts, shared experts, alternating sliding windows and layers without positions",
)  # fmt: skip

GLM4_MOE = llama_like(
    "Glm4MoeForCausalLM",
    "glm4_moe",
    sizes(
        151552, 4096, 10944, 46, 96, 131072,
        num_key_value_heads=Size(8), moe_intermediate_size=Size(1408), num_experts_per_tok=Size(8),
        n_shared_experts=Size(1), n_routed_experts=Size(128, _MOST), first_k_dense_replace=Size(1, least=0),
        **_groups(),
    ),
    numbers=_SCALED_ROUTES,
    flags=UNTIED | {"attention_bias": False, "norm_topk_prob": True, "use_qk_norm": False},
    divisions=_GROUPED,
    limits=_OF_ROUTED,
    aliases={"n_routed_experts": "num_local_experts"},
    rotated=(PART, 0.5),
    eos=None,
    variants="dense and routed layers, groups of experts, shared experts, norms of heads, partial rotary, biases",
)  # fmt: skip

SOLAR_OPEN = replace(
    GLM4_MOE,
    architecture="SolarOpenForCausalLM",
    model_type="solar_open",
    sizes={
        key: size for key, size in GLM4_MOE.sizes.items() if key not in ("first_k_dense_replace", "intermediate_size")
    }
    | {
        "vocab_size": Size(196608), "num_hidden_layers": Size(48, most=4096), "num_attention_heads": Size(64),
        "head_dim": Size(128), "moe_intermediate_size": Size(1280),
    },
    flags=UNTIED | {"attention_bias": False, "norm_topk_prob": True},
    names={"intermediate": "moe_intermediate_size"},
    rotated=(PART, 1.0),
    variants="groups of experts, shared experts, yarn rotary, biases",
)  # fmt: skip

DOTS1 = replace(
    GLM4_MOE,
    architecture="Dots1ForCausalLM",
    model_type="dots1",
    sizes=GLM4_MOE.sizes
    | sizes(
        152064, 4608, 10944, 62, 32, 2048,
        num_key_value_heads=Size(32, optional=True), n_shared_experts=Size(None), n_routed_experts=Size(None, _MOST),
        num_experts_per_tok=Size(None), first_k_dense_replace=Size(0, least=0),
        sliding_window=Size(4096, optional=True),
        max_window_layers=Size(62, least=0, optional=True),
    ),
    numbers=_SCALED_ROUTES | {"rms_norm_eps": 1e-6},
    flags=UNTIED | {"attention_bias": False, "norm_topk_prob": False},
    lists={"layer_types": LAYER_TYPES},
    rotated=None,
    variants="dense and routed layers, groups of experts, shared experts, sliding windows in some layers, biases",
)  # fmt: skip

HUNYUAN_MOE = llama_like(
    "HunYuanMoEV1ForCausalLM",
    "hunyuan_v1_moe",
    sizes(290943, 4096, 11008, 32, 32, 2048, num_experts=Size(1, _MOST), moe_topk=Size(1)),
    numbers={"rms_norm_eps": 1e-5},
    flags=UNTIED | {"attention_bias": False},
    limits=(("moe_topk", "num_experts"),),
    aliases={"num_experts": "num_local_experts", "moe_topk": "num_experts_per_tok"},
    variants="routed experts, a shared expert, biases",
)

HY_V3 = llama_like(
    "HYV3ForCausalLM",
    "hy_v3",
    sizes(
        120832, 4096, 13312, 80, 64, 131072,
        num_key_value_heads=Size(8), head_dim=Size(128), num_experts=Size(192, _MOST), num_experts_per_tok=Size(8),
        num_shared_experts=Size(1), moe_intermediate_size=Size(1536),
    ),
    numbers={"rms_norm_eps": 1e-5, "router_scaling_factor": 2.826},
    flags=UNTIED | {"attention_bias": False, "mlp_bias": False, "enable_moe_fp32_combine": True},
    lists={"mlp_layer_types": MLP_TYPES},
    limits=_OF_EXPERTS,
    aliases={"num_experts": "num_local_experts"},
    eos=None,
    variants="dense and routed layers, shared experts, biases",
)  # fmt: skip

FLINT = llama_like(
    "FlintForCausalLM",
    "flint",
    sizes(
        150144, 2048, 6144, 49, 32, 262144,
        num_key_value_heads=Size(4), head_dim=Size(128), sliding_window=Size(513), decoder_sparse_step=Size(1),
        moe_intermediate_size=Size(512), shared_expert_intermediate_size=Size(1024), num_experts_per_tok=Size(6),
        num_experts=Size(256, _MOST),
    ),
    flags=UNTIED | {"attention_bias": False, "norm_topk_prob": True},
    lists={"layer_types": LAYER_TYPES},
    limits=_OF_EXPERTS,
    eos=None,
    variants="dense and routed layers, shared experts, sliding windows in some layers, biases",
)  # fmt: skip

KOLIBRI = llama_like(
    "Kolibri1ForCausalLM",
    "kolibri1",
    {
        "vocab_size": Size(128000), "hidden_size": Size(2560), "num_hidden_layers": Size(50, most=4096),
        "num_attention_heads": Size(48), "max_position_embeddings": Size(262144), "num_key_value_heads": Size(4),
        "head_dim": Size(128), "sliding_window": Size(513, optional=True), "moe_intermediate_size": Size(512),
        "shared_expert_intermediate_size": Size(512), "num_experts_per_tok": Size(6), "num_experts": Size(384, _MOST),
    },
    flags=UNTIED | {"norm_topk_prob": False},
    lists={"layer_types": LAYER_TYPES},
    limits=_OF_EXPERTS,
    names={"intermediate": "moe_intermediate_size"},
    aliases={"num_experts": "num_local_experts"},
    eos=None,
    variants="routed experts, shared experts, sliding windows in most layers",
)  # fmt: skip

LAGUNA = llama_like(
    "LagunaForCausalLM",
    "laguna",
    sizes(
        100352, 2048, 8192, 40, 48, 131072,
        num_key_value_heads=Size(8), head_dim=Size(128), sliding_window=Size(512), moe_intermediate_size=Size(512),
        shared_expert_intermediate_size=Size(512), num_experts_per_tok=Size(8), num_experts=Size(256, _MOST),
    ),
    numbers={"rms_norm_eps": 1e-6, "moe_routed_scaling_factor": 1.0},
    flags=UNTIED | {"attention_bias": False},
    lists={"layer_types": LAYER_TYPES, "mlp_layer_types": MLP_TYPES},
    layer_numbers=("num_attention_heads_per_layer",),
    limits=_OF_EXPERTS,
    refused={"moe_apply_router_weight_on_input": "experts whose inputs are scaled"},
    rotary_kinds=True,
    eos=None,
    variants="numbers of heads by layer, gated attention, dense and routed layers, a shared expert, sliding windows "
    "with partial rotary positions of their own, scores capped, biases",
)  # fmt: skip

MELLUM = llama_like(
    "MellumForCausalLM",
    "mellum",
    sizes(
        98304, 2304, 7168, 28, 32, 131072,
        num_key_value_heads=Size(4), head_dim=Size(128), sliding_window=Size(1024, optional=True),
        moe_intermediate_size=Size(896), num_experts_per_tok=Size(8), num_experts=Size(64, _MOST),
    ),
    flags=UNTIED | {"attention_bias": False, "norm_topk_prob": True},
    lists={"layer_types": LAYER_TYPES, "mlp_layer_types": MLP_TYPES},
    limits=_OF_EXPERTS,
    aliases={"num_experts": "num_local_experts"},
    rotary_kinds=True,
    eos=None,
    variants="dense and routed layers, sliding windows with rotary positions of their own, biases",
)  # fmt: skip

MINIMAX_M2 = llama_like(
    "MiniMaxM2ForCausalLM",
    "minimax_m2",
    sizes(
        200064, 3072, 1536, 62, 48, 196608,
        num_key_value_heads=Size(8), head_dim=Size(128), num_experts_per_tok=Size(8),
        num_local_experts=Size(256, _MOST),
    ),
    limits=(("num_experts_per_tok", "num_local_experts"),),
    aliases={"num_local_experts": "num_experts"},
    eos=200020,
    variants="routed experts, norms of heads together, partial rotary",
)  # fmt: skip

AFMOE = llama_like(
    "AfmoeForCausalLM",
    "afmoe",
    sizes(
        200192, 2048, 6144, 32, 16, 16384,
        head_dim=Size(128), moe_intermediate_size=Size(1408), num_dense_layers=Size(1, least=0),
        num_experts=Size(64, _MOST), num_experts_per_tok=Size(6), num_shared_experts=Size(2),
        global_attn_every_n_layers=Size(4), sliding_window=Size(1024),
    ),
    numbers={"rms_norm_eps": 1e-5, "route_scale": 1.0},
    flags=UNTIED | {"attention_bias": False, "mup_enabled": False},
    lists={"layer_types": LAYER_TYPES},
    limits=_OF_EXPERTS,
    eos=None,
    variants="gated attention, norms around, dense and routed layers, shared experts, sliding windows, layers without "
    "positions, scaled embeddings, biases",
)  # fmt: skip

LFM2_MOE = Family(
    architecture="Lfm2MoeForCausalLM",
    model_type="lfm2_moe",
    sizes=sizes(
        65536, 2048, 7168, 32, 32, 128000,
        num_key_value_heads=Size(8), moe_intermediate_size=Size(1792), conv_L_cache=Size(3, most=1024),
        num_dense_layers=Size(2, least=0), num_experts_per_tok=Size(4), num_experts=Size(32, _MOST),
    ),
    numbers={"norm_eps": 1e-5, "routed_scaling_factor": 1.0},
    flags={"tie_word_embeddings": True, "conv_bias": False, "use_expert_bias": True, "norm_topk_prob": True},
    lists={"layer_types": ("full_attention", "conv")},
    needed=("layer_types",),
    activation="silu",
    divisions=(GROUPS,),
    limits=_OF_EXPERTS,
    eos=2,
    variants="convolutions, dense and routed layers, biases",
)  # fmt: skip

MIMO = llama_like(
    "MiMoV2FlashForCausalLM",
    "mimo_v2_flash",
    sizes(
        152576, 4096, 16384, 48, 64, 131072,
        num_key_value_heads=Size(4), head_dim=Size(192), v_head_dim=Size(128), sliding_window=Size(129),
        moe_intermediate_size=Size(2048), num_experts_per_tok=Size(8), n_routed_experts=Size(256, _MOST), **_groups(),
    ),
    numbers={"rms_norm_eps": 1e-5},
    optional_numbers={"routed_scaling_factor": 1.0, "attention_value_scale": 0.707},
    flags=UNTIED | {"attention_bias": False, "norm_topk_prob": True},
    lists={"layer_types": LAYER_TYPES, "mlp_layer_types": MLP_TYPES},
    divisions=_GROUPED,
    limits=_OF_ROUTED,
    aliases={"n_routed_experts": "num_local_experts"},
    rotary_kinds=True,
    eos=None,
    variants="sliding windows with sinks, heads and partial rotary positions of their own, scaled values, dense and "
    "routed layers, groups of experts, biases",
)  # fmt: skip
