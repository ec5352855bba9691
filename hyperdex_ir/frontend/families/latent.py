"""Architectures with latent attention: keys and values are expanded from a vector that the heads share."""

from __future__ import annotations

from dataclasses import replace

from hyperdex_ir.frontend.families.routed import DEEPSEEK_V3, MLP_TYPES
from hyperdex_ir.frontend.family import GROUPS, NONE, Size, sizes

#: Keys of routed layers.
_ROUTED = (
    "moe_intermediate_size", "n_shared_experts", "n_routed_experts", "n_group", "topk_group", "num_experts_per_tok",
    "first_k_dense_replace",
)  # fmt: skip

YOUTU = replace(
    DEEPSEEK_V3,
    architecture="YoutuForCausalLM",
    model_type="youtu",
    sizes={key: size for key, size in DEEPSEEK_V3.sizes.items() if key not in _ROUTED}
    | sizes(128256, 2048, 6144, 32, 16, 131072, num_key_value_heads=Size(16)),
    numbers={"rms_norm_eps": 1e-6},
    flags={"tie_word_embeddings": True, "rope_interleave": True, "attention_bias": False},
    divisions=(GROUPS,),
    limits=(),
    aliases={},
    eos=128001,
    variants="latent attention, biases",
)

GLM4_MOE_LITE = replace(
    DEEPSEEK_V3,
    architecture="Glm4MoeLiteForCausalLM",
    model_type="glm4_moe_lite",
    sizes={key: size for key, size in DEEPSEEK_V3.sizes.items() if key != "first_k_dense_replace"}
    | sizes(
        154880, 2048, 10240, 47, 20, 202752,
        num_key_value_heads=Size(20), moe_intermediate_size=Size(1536), n_routed_experts=Size(64, 4096),
        q_lora_rank=Size(768, optional=True), qk_nope_head_dim=Size(192), v_head_dim=Size(256), n_group=Size(1),
        topk_group=Size(1), num_experts_per_tok=Size(4),
    ),
    numbers={"rms_norm_eps": 1e-5, "routed_scaling_factor": 1.8},
    lists={"mlp_layer_types": MLP_TYPES},
    variants="latent attention, dense and routed layers, shared experts, groups of experts, biases",
)  # fmt: skip

AXK1 = replace(
    GLM4_MOE_LITE,
    architecture="AXK1ForCausalLM",
    model_type="axk1",
    sizes={key: size for key, size in DEEPSEEK_V3.sizes.items() if key != "first_k_dense_replace"}
    | sizes(
        163840, 7168, 18432, 61, 64, 32768,
        num_key_value_heads=Size(64), n_routed_experts=Size(192, 4096), q_lora_rank=Size(1536),
    ),
    numbers={"rms_norm_eps": 1e-6, "routed_scaling_factor": 2.5},
    eos=163691,
    variants="latent attention, dense and routed layers, shared experts, groups of experts, yarn rotary",
)  # fmt: skip

SARVAM_MLA = replace(
    DEEPSEEK_V3,
    model_type="sarvam_mla",
    sizes=DEEPSEEK_V3.sizes
    | sizes(
        262144, 4096, 16384, 32, 64, 4096,
        num_key_value_heads=NONE, n_routed_experts=Size(128, 4096), q_lora_rank=NONE,
        n_group=Size(1), topk_group=Size(1), first_k_dense_replace=Size(1, least=0),
    ),
    variants="latent attention, dense and routed layers, shared experts, groups of experts",
)  # fmt: skip

MINICPM3 = replace(
    DEEPSEEK_V3,
    architecture="MiniCPM3ForCausalLM",
    model_type="minicpm3",
    sizes={key: size for key, size in DEEPSEEK_V3.sizes.items() if key not in _ROUTED}
    | sizes(
        73448, 2560, 6400, 62, 40, 32768,
        num_key_value_heads=Size(40, optional=True), kv_lora_rank=Size(256), q_lora_rank=Size(768, optional=True),
        qk_nope_head_dim=Size(64), qk_rope_head_dim=Size(32), v_head_dim=NONE, dim_model_base=Size(256, optional=True),
    ),
    numbers={"rms_norm_eps": 1e-5, "scale_emb": 12, "scale_depth": 1.4},
    flags={"tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False},
    divisions=(GROUPS,),
    limits=(),
    aliases={},
    eos=2,
    variants="latent attention, scaled embeddings, residuals and logits, longrope, biases",
)  # fmt: skip
