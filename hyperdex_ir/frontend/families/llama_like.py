"""Architectures with Llama's layers: RMS norms, rotary positions, grouped queries and gated MLPs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hyperdex_ir.frontend.family import (
    ACTIVATIONS,
    GROUPS,
    HEADS,
    LAYER_TYPES,
    NONE,
    PART,
    UNTIED,
    Family,
    Size,
    activation,
    sizes,
)


def llama_like(architecture: str, model_type: str, sizes: dict[str, Size], **differences: Any) -> Family:
    """Entry with the fields that most of these architectures share. differences: the other fields of Family."""
    common: dict[str, Any] = {
        "numbers": {"rms_norm_eps": 1e-6},
        "flags": UNTIED,
        "choices": activation("silu"),
        "divisions": (GROUPS,),
        "eos": 2,
    }
    sizes = {"num_key_value_heads": NONE, "head_dim": NONE} | sizes
    return Family(architecture, model_type, sizes, **(common | differences))


LLAMA = llama_like(
    "LlamaForCausalLM",
    "llama",
    sizes(32000, 4096, 11008, 32, 32, 2048),
    flags=UNTIED | {"attention_bias": False, "mlp_bias": False},
    divisions=(HEADS, GROUPS),
    variants="biases; linear, dynamic and llama3 rotary",
    checked="SmolLM2, made weights",
)

MISTRAL = llama_like(
    "MistralForCausalLM",
    "mistral",
    sizes(
        32000, 4096, 14336, 32, 32, 131072,
        num_key_value_heads=Size(8, optional=True), sliding_window=Size(4096, optional=True),
    ),
    variants="sliding window",
)  # fmt: skip

QWEN2 = llama_like(
    "Qwen2ForCausalLM",
    "qwen2",
    sizes(
        151936, 4096, 22016, 32, 32, 32768,
        num_key_value_heads=Size(32, optional=True), sliding_window=NONE, max_window_layers=Size(28, least=0),
    ),
    flags=UNTIED | {"use_sliding_window": False},
    lists={"layer_types": LAYER_TYPES},
    eos=None,
    variants="sliding window in some layers",
)  # fmt: skip

QWEN3 = replace(
    QWEN2,
    architecture="Qwen3ForCausalLM",
    model_type="qwen3",
    sizes=QWEN2.sizes | {"head_dim": Size(128)},
    flags=UNTIED | {"attention_bias": False, "use_sliding_window": False},
    variants="biases, sliding window in some layers",
)

SMOLLM3 = llama_like(
    "SmolLM3ForCausalLM",
    "smollm3",
    sizes(
        128256, 2048, 11008, 36, 16, 32768,
        num_key_value_heads=Size(4, optional=True), sliding_window=NONE, no_rope_layer_interval=Size(4),
    ),
    flags={
        "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False, "use_sliding_window": False,
    },
    lists={"layer_types": LAYER_TYPES, "no_rope_layers": (0, 1)},
    eos=128001,
    variants="layers without positions, biases, sliding window in some layers",
)  # fmt: skip

ARCEE = llama_like(
    "ArceeForCausalLM",
    "arcee",
    sizes(32000, 2560, 18432, 32, 32, 4096),
    numbers={"rms_norm_eps": 1e-5},
    flags=UNTIED | {"attention_bias": False, "mlp_bias": False},
    choices=activation("relu2"),
    divisions=(HEADS, GROUPS),
    eos=128001,
    variants="biases, yarn rotary",
)

OLMO2 = llama_like(
    "Olmo2ForCausalLM",
    "olmo2",
    sizes(50304, 4096, 11008, 32, 32, 2048),
    numbers={"rms_norm_eps": 1e-5},
    flags=UNTIED | {"attention_bias": False},
    eos=50279,
    variants="biases",
)

GRANITE = llama_like(
    "GraniteForCausalLM",
    "granite",
    sizes(32000, 4096, 11008, 32, 32, 2048),
    numbers={
        "rms_norm_eps": 1e-6, "embedding_multiplier": 1.0, "logits_scaling": 1.0, "residual_multiplier": 1.0,
        "attention_multiplier": 1.0,
    },
    flags=UNTIED | {"attention_bias": False, "mlp_bias": False},
    variants="all multipliers, biases",
)  # fmt: skip

HELIUM = llama_like(
    "HeliumForCausalLM",
    "helium",
    sizes(48000, 2560, 7040, 24, 20, 4096, num_key_value_heads=Size(20), head_dim=Size(128)),
    numbers={"rms_norm_eps": 1e-8},
    flags=UNTIED | {"attention_bias": False, "mlp_bias": False},
    fills_hidden=True,
    variants="biases",
)

ERNIE = llama_like(
    "Ernie4_5ForCausalLM",
    "ernie4_5",
    sizes(
        103424, 1024, 3072, 18, 16, 131072,
        num_key_value_heads=Size(2, optional=True), head_dim=Size(128, optional=True),
    ),
    numbers={"rms_norm_eps": 1e-5},
    flags={"tie_word_embeddings": True, "use_bias": False},
    variants="biases",
)  # fmt: skip

HUNYUAN = llama_like(
    "HunYuanDenseV1ForCausalLM",
    "hunyuan_v1_dense",
    sizes(290943, 4096, 11008, 32, 32, 2048),
    numbers={"rms_norm_eps": 1e-5},
    flags=UNTIED | {"attention_bias": False},
    variants="biases",
)

GLM = llama_like(
    "GlmForCausalLM",
    "glm",
    sizes(151552, 4096, 13696, 40, 32, 131072, num_key_value_heads=Size(2), head_dim=Size(128)),
    numbers={"rms_norm_eps": 1.5625e-07},
    flags=UNTIED | {"attention_bias": True},
    rotated=(PART, 0.5),
    eos=[151329, 151336, 151338],
    variants="partial rotary",
)

GLM4 = replace(GLM, architecture="Glm4ForCausalLM", model_type="glm4")

PHI3 = llama_like(
    "Phi3ForCausalLM",
    "phi3",
    sizes(
        32064, 3072, 8192, 32, 32, 4096, sliding_window=NONE, original_max_position_embeddings=Size(4096),
    ),
    numbers={"rms_norm_eps": 1e-5},
    rotated=(PART, 1.0),
    eos=32000,
    variants="sliding window, partial rotary, longrope",
)  # fmt: skip

EXAONE4 = llama_like(
    "Exaone4ForCausalLM",
    "exaone4",
    sizes(
        102400, 4096, 16384, 32, 32, 2048,
        num_key_value_heads=Size(32), sliding_window=Size(4096, optional=True),
    ),
    numbers={"rms_norm_eps": 1e-5},
    lists={"layer_types": LAYER_TYPES},
    variants="alternating sliding windows and layers without positions",
)  # fmt: skip

#: EXAONE 3.x: Llama under other names, see frontend/renamed.py; the defaults are those of EXAONE's own code.
EXAONE = llama_like(
    "ExaoneForCausalLM",
    "exaone",
    {
        "vocab_size": Size(102400), "hidden_size": Size(2048), "intermediate_size": NONE,
        "num_layers": Size(32, most=4096), "num_attention_heads": Size(32), "max_position_embeddings": Size(2048),
    },
    numbers={"layer_norm_epsilon": 1e-5},
    flags={"tie_word_embeddings": True},
    choices={"activation_function": ("silu", ACTIVATIONS)},
    divisions=(HEADS, GROUPS),
    names={"layers": "num_layers"},
    token_embedding="wte.weight",
    variants="scaled rotary",
    checked="made weights only",
)  # fmt: skip

SEED = llama_like(
    "SeedOssForCausalLM",
    "seed_oss",
    sizes(
        155136, 4096, 27648, 64, 80, 524288,
        num_key_value_heads=Size(8, optional=True), head_dim=Size(128, optional=True),
    ),
    flags=UNTIED | {"attention_bias": True, "attention_out_bias": False, "mlp_bias": False},
    variants="biases",
)  # fmt: skip

LFM2 = Family(
    architecture="Lfm2ForCausalLM",
    model_type="lfm2",
    sizes=sizes(
        65536, 2560, 12288, 32, 32, 128000,
        num_key_value_heads=Size(8), head_dim=NONE, conv_L_cache=Size(3, most=1024), block_multiple_of=Size(256),
        block_ff_dim=NONE,
    ),
    numbers={"norm_eps": 1e-5, "block_ffn_dim_multiplier": 1.0},
    flags={"tie_word_embeddings": True, "conv_bias": False, "block_auto_adjust_ff_dim": True},
    lists={"layer_types": ("full_attention", "conv")},
    activation="silu",
    divisions=(GROUPS,),
    eos=2,
    variants="convolutions first, last and adjacent, over 3 or 5 tokens, biases",
)  # fmt: skip

APERTUS = llama_like(
    "ApertusForCausalLM",
    "apertus",
    sizes(131072, 4096, 14336, 32, 32, 65536),
    numbers={"rms_norm_eps": 1e-5},
    flags=UNTIED | {"attention_bias": False},
    choices=activation("xielu"),
    variants="biases, llama3 rotary",
)

APERTUS_TEXT = replace(
    APERTUS,
    architecture="Apertus1p5TextForCausalLM",
    model_type="apertus1p5_text",
    sizes=APERTUS.sizes | {"vocab_size": Size(266752), "output_vocab_size": NONE},
    variants="fewer tokens to choose than to read",
)

BITNET = llama_like(
    "BitNetForCausalLM",
    "bitnet",
    sizes(128256, 2560, 6912, 30, 20, 2048, num_key_value_heads=Size(5, optional=True)),
    numbers={"rms_norm_eps": 1e-5},
    flags=UNTIED | {"attention_bias": False},
    choices=activation("relu2"),
    eos=128001,
    variants="norms within blocks, biases",
)

CWM = llama_like(
    "CwmForCausalLM",
    "cwm",
    sizes(
        128256, 6144, 21504, 64, 48, 131072,
        num_key_value_heads=Size(8), head_dim=Size(128), sliding_window=Size(8192),
    ),
    numbers={"rms_norm_eps": 1e-5},
    flags=UNTIED | {"mlp_bias": False},
    lists={"layer_types": LAYER_TYPES},
    divisions=(HEADS, GROUPS),
    eos=[128001, 128008, 128009],
    variants="sliding windows in most layers, llama3 rotary, biases",
)  # fmt: skip

MINISTRAL = replace(
    MISTRAL,
    architecture="MinistralForCausalLM",
    model_type="ministral",
    lists={"layer_types": LAYER_TYPES},
    variants="sliding windows in some layers",
)

NANOCHAT = llama_like(
    "NanoChatForCausalLM",
    "nanochat",
    sizes(50304, 768, 8192, 12, 6, 2048),
    flags=UNTIED | {"attention_bias": False},
    choices=activation("relu2"),
    optional_numbers={"final_logit_softcapping": 15.0},
    eos=1,
    variants="norms without weights, softcap, biases",
)

HYPERCLOVAX = replace(
    GRANITE,
    architecture="HyperCLOVAXForCausalLM",
    model_type="hyperclovax",
    numbers={key: default for key, default in GRANITE.numbers.items() if key != "attention_multiplier"},
    optional_numbers={"attention_multiplier": None},
    flags=GRANITE.flags | {"use_post_norm": True},
    divisions=(HEADS, GROUPS),
    variants="all multipliers, norms after or not, biases",
)

GRANITE_SWA = replace(
    GRANITE,
    architecture="GraniteSWAForCausalLM",
    model_type="granite_swa",
    sizes=GRANITE.sizes
    | sizes(
        100352, 2560, 8192, 24, 20, 8192,
        num_key_value_heads=Size(4, optional=True), sliding_window=Size(128, optional=True),
    ),
    numbers=GRANITE.numbers | {"rms_norm_eps": 1e-5},
    flags=GRANITE.flags | {"tie_word_embeddings": True},
    lists={"layer_types": LAYER_TYPES},
    layer_numbers=("layer_rope_theta",),
    eos=100257,
    variants="sinks, sliding windows, positions of their own or none by layer, all multipliers, biases",
)  # fmt: skip

LFM3 = replace(
    LFM2,
    architecture="Lfm3ForCausalLM",
    model_type="lfm3",
    sizes=sizes(
        128000, 2048, 7680, 24, 16, 128000,
        num_key_value_heads=Size(4), head_dim=Size(128), conv_L_cache=Size(7, most=1024),
        sliding_window=Size(256, optional=True),
    ),
    numbers={"norm_eps": 1e-5},
    flags={
        "tie_word_embeddings": True, "conv_bias": False, "use_sandwich_norm": True, "use_attention_gate": True,
        "attention_bias": False,
    },
    lists={"layer_types": (*LAYER_TYPES, "conv")},
    rotary_kinds=True,
    eos=124900,
    variants="convolutions, sliding windows with rotary positions of their own, gated attention, norms around, biases",
)  # fmt: skip

DIFFLLAMA = llama_like(
    "DiffLlamaForCausalLM",
    "diffllama",
    sizes(32000, 2048, 8192, 16, 32, 2048),
    numbers={"rms_norm_eps": 1e-5},
    flags=UNTIED | {"attention_bias": False},
    variants="differences of two attentions, biases",
)

INTERNLM3 = replace(
    LLAMA,
    model_type="internlm3",
    sizes=LLAMA.sizes
    | sizes(
        128512,
        4096,
        10240,
        48,
        32,
        32768,
        num_key_value_heads=Size(2, optional=True),
        head_dim=Size(128, optional=True),
    ),
    numbers={"rms_norm_eps": 1e-5},
    aliases={"attention_bias": "qkv_bias", "mlp_bias": "bias"},
    variants="biases",
    checked="made weights",
)  # fmt: skip

IQUESTCODER = replace(
    INTERNLM3,
    model_type="iquestcoder",
    sizes=INTERNLM3.sizes | sizes(76800, 5120, 27648, 80, 40, 131072, num_key_value_heads=Size(8, optional=True)),
    aliases={},
)
