"""The supported architectures: what their config.json may say, as a table. A new architecture is a new entry."""

from __future__ import annotations

from dataclasses import replace

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

_LLAMA = Family(
    architecture="LlamaForCausalLM",
    model_type="llama",
    sizes=sizes(32000, 4096, 11008, 32, 32, 2048, num_key_value_heads=NONE, head_dim=NONE),
    numbers={"rms_norm_eps": 1e-6},
    flags=UNTIED | {"attention_bias": False, "mlp_bias": False},
    choices=activation("silu"),
    divisions=(HEADS, GROUPS),
    eos=2,
    variants="biases, scaled rotary",
    checked="SmolLM2, made weights",
)

_OPT = Family(
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

_MISTRAL = Family(
    architecture="MistralForCausalLM",
    model_type="mistral",
    sizes=sizes(
        32000, 4096, 14336, 32, 32, 131072,
        num_key_value_heads=Size(8, optional=True), head_dim=NONE, sliding_window=Size(4096, optional=True),
    ),
    numbers={"rms_norm_eps": 1e-6},
    flags=UNTIED,
    choices=activation("silu"),
    divisions=(GROUPS,),
    eos=2,
    variants="sliding window",
)  # fmt: skip

_QWEN2 = Family(
    architecture="Qwen2ForCausalLM",
    model_type="qwen2",
    sizes=sizes(
        151936, 4096, 22016, 32, 32, 32768,
        num_key_value_heads=Size(32, optional=True), head_dim=NONE, sliding_window=NONE,
        max_window_layers=Size(28, least=0),
    ),
    numbers={"rms_norm_eps": 1e-6},
    flags=UNTIED | {"use_sliding_window": False},
    choices=activation("silu"),
    lists={"layer_types": LAYER_TYPES},
    divisions=(GROUPS,),
    variants="sliding window in some layers",
)  # fmt: skip

_QWEN3 = Family(
    architecture="Qwen3ForCausalLM",
    model_type="qwen3",
    sizes=sizes(
        151936, 4096, 22016, 32, 32, 32768,
        num_key_value_heads=Size(32, optional=True), head_dim=Size(128), sliding_window=NONE,
        max_window_layers=Size(28, least=0),
    ),
    numbers={"rms_norm_eps": 1e-6},
    flags=UNTIED | {"attention_bias": False, "use_sliding_window": False},
    choices=activation("silu"),
    lists={"layer_types": LAYER_TYPES},
    divisions=(GROUPS,),
    variants="biases, sliding window in some layers",
)  # fmt: skip

_SMOLLM3 = Family(
    architecture="SmolLM3ForCausalLM",
    model_type="smollm3",
    sizes=sizes(
        128256, 2048, 11008, 36, 16, 32768,
        num_key_value_heads=Size(4, optional=True), head_dim=NONE, sliding_window=NONE,
        no_rope_layer_interval=Size(4),
    ),
    numbers={"rms_norm_eps": 1e-6},
    flags={
        "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False, "use_sliding_window": False,
    },
    choices=activation("silu"),
    lists={"layer_types": LAYER_TYPES, "no_rope_layers": (0, 1)},
    divisions=(GROUPS,),
    eos=128001,
    variants="layers without positions, biases, sliding window in some layers",
)  # fmt: skip

_ARCEE = Family(
    architecture="ArceeForCausalLM",
    model_type="arcee",
    sizes=sizes(32000, 2560, 18432, 32, 32, 4096, num_key_value_heads=NONE, head_dim=NONE),
    numbers={"rms_norm_eps": 1e-5},
    flags=UNTIED | {"attention_bias": False, "mlp_bias": False},
    choices=activation("relu2"),
    divisions=(HEADS, GROUPS),
    eos=128001,
    variants="biases, yarn rotary",
)

_OLMO = Family(
    architecture="OlmoForCausalLM",
    model_type="olmo",
    sizes=sizes(50304, 4096, 11008, 32, 32, 2048, num_key_value_heads=NONE, head_dim=NONE),
    flags=UNTIED | {"attention_bias": False},
    choices=activation("silu"),
    divisions=(GROUPS,),
    refused={"clip_qkv": "clipped queries, keys and values"},
    eos=50279,
    variants="biases",
)

_OLMO2 = Family(
    architecture="Olmo2ForCausalLM",
    model_type="olmo2",
    sizes=sizes(50304, 4096, 11008, 32, 32, 2048, num_key_value_heads=NONE, head_dim=NONE),
    numbers={"rms_norm_eps": 1e-5},
    flags=UNTIED | {"attention_bias": False},
    choices=activation("silu"),
    divisions=(GROUPS,),
    eos=50279,
    variants="biases",
)

_GRANITE = Family(
    architecture="GraniteForCausalLM",
    model_type="granite",
    sizes=sizes(32000, 4096, 11008, 32, 32, 2048, num_key_value_heads=NONE, head_dim=NONE),
    numbers={
        "rms_norm_eps": 1e-6, "embedding_multiplier": 1.0, "logits_scaling": 1.0, "residual_multiplier": 1.0,
        "attention_multiplier": 1.0,
    },
    flags=UNTIED | {"attention_bias": False, "mlp_bias": False},
    choices=activation("silu"),
    divisions=(GROUPS,),
    eos=2,
    variants="all multipliers, biases",
)  # fmt: skip

_HELIUM = Family(
    architecture="HeliumForCausalLM",
    fills_hidden=True,
    model_type="helium",
    sizes=sizes(48000, 2560, 7040, 24, 20, 4096, num_key_value_heads=Size(20), head_dim=Size(128)),
    numbers={"rms_norm_eps": 1e-8},
    flags=UNTIED | {"attention_bias": False, "mlp_bias": False},
    choices=activation("silu"),
    divisions=(GROUPS,),
    eos=2,
    variants="biases",
)

_ERNIE = Family(
    architecture="Ernie4_5ForCausalLM",
    model_type="ernie4_5",
    sizes=sizes(
        103424, 1024, 3072, 18, 16, 131072, num_key_value_heads=Size(2, optional=True),
        head_dim=Size(128, optional=True),
    ),
    numbers={"rms_norm_eps": 1e-5},
    flags={"tie_word_embeddings": True, "use_bias": False},
    choices=activation("silu"),
    divisions=(GROUPS,),
    eos=2,
    variants="biases",
)  # fmt: skip

_HUNYUAN = Family(
    architecture="HunYuanDenseV1ForCausalLM",
    model_type="hunyuan_v1_dense",
    sizes=sizes(290943, 4096, 11008, 32, 32, 2048, num_key_value_heads=NONE, head_dim=NONE),
    numbers={"rms_norm_eps": 1e-5},
    flags=UNTIED | {"attention_bias": False},
    choices=activation("silu"),
    divisions=(GROUPS,),
    eos=2,
    variants="biases",
)

_GLM = Family(
    architecture="GlmForCausalLM",
    model_type="glm",
    sizes=sizes(
        151552, 4096, 13696, 40, 32, 131072, num_key_value_heads=Size(2), head_dim=Size(128),
    ),
    numbers={"rms_norm_eps": 1.5625e-07},
    flags=UNTIED | {"attention_bias": True},
    choices=activation("silu"),
    divisions=(GROUPS,),
    rotated=(PART, 0.5),
    eos=[151329, 151336, 151338],
    variants="partial rotary",
)  # fmt: skip

_GLM4 = replace(_GLM, architecture="Glm4ForCausalLM", model_type="glm4")

_NEMOTRON = Family(
    architecture="NemotronForCausalLM",
    model_type="nemotron",
    sizes=sizes(256000, 6144, 24576, 32, 48, 4096, num_key_value_heads=Size(None), head_dim=NONE),
    numbers={"norm_eps": 1e-5},
    flags=UNTIED | {"attention_bias": False, "mlp_bias": False},
    choices=activation("relu2"),
    divisions=(GROUPS,),
    rotated=(PART, 0.5),
    eos=3,
    variants="biases",
)

_STABLELM = Family(
    architecture="StableLmForCausalLM",
    model_type="stablelm",
    sizes=sizes(50304, 2560, 6912, 32, 32, 4096, num_key_value_heads=Size(32)),
    numbers={"layer_norm_eps": 1e-5},
    flags=UNTIED | {"use_qkv_bias": False, "qk_layernorm": False, "use_parallel_residual": False},
    choices=activation("silu"),
    divisions=(HEADS, GROUPS),
    rotated=(PART, 0.25),
    eos=0,
    variants="biases, norms of heads, parallel residual",
)

_STARCODER2 = Family(
    architecture="Starcoder2ForCausalLM",
    model_type="starcoder2",
    sizes=sizes(
        49152, 3072, 12288, 30, 24, 4096, num_key_value_heads=Size(2), head_dim=NONE, sliding_window=NONE
    ),
    numbers={"norm_epsilon": 1e-5},
    flags={"tie_word_embeddings": True, "use_bias": True},
    choices=activation("gelu_pytorch_tanh"),
    divisions=(GROUPS,),
    eos=50256,
    variants="sliding window",
)  # fmt: skip

_COHERE = Family(
    architecture="CohereForCausalLM",
    model_type="cohere",
    sizes=sizes(256000, 8192, 22528, 40, 64, 8192, num_key_value_heads=NONE, head_dim=NONE),
    numbers={"layer_norm_eps": 1e-5, "logit_scale": 0.0625},
    flags={"tie_word_embeddings": True, "attention_bias": False, "use_qk_norm": False},
    choices=activation("silu"),
    divisions=(GROUPS,),
    eos=255001,
    variants="biases, norms of heads",
)

_COHERE2 = Family(
    architecture="Cohere2ForCausalLM",
    model_type="cohere2",
    sizes=sizes(
        256000, 8192, 22528, 40, 64, 8192, num_key_value_heads=NONE, sliding_window=Size(4096, optional=True)
    ),
    numbers={"layer_norm_eps": 1e-5, "logit_scale": 0.0625},
    flags={"tie_word_embeddings": True, "attention_bias": False},
    choices=activation("silu"),
    lists={"layer_types": LAYER_TYPES},
    divisions=(HEADS, GROUPS),
    eos=255001,
    variants="biases, alternating sliding windows and layers without positions",
)  # fmt: skip

_PHI = Family(
    architecture="PhiForCausalLM",
    model_type="phi",
    sizes=sizes(51200, 2048, 8192, 24, 32, 2048, num_key_value_heads=NONE, head_dim=NONE),
    numbers={"layer_norm_eps": 1e-5},
    flags=UNTIED | {"qk_layernorm": False},
    choices=activation("gelu_new"),
    divisions=(GROUPS,),
    rotated=(PART, 0.5),
    eos=2,
    variants="norms of heads",
)

_PHI3 = Family(
    architecture="Phi3ForCausalLM",
    model_type="phi3",
    sizes=sizes(
        32064, 3072, 8192, 32, 32, 4096, num_key_value_heads=NONE, head_dim=NONE,
        sliding_window=NONE, original_max_position_embeddings=Size(4096),
    ),
    numbers={"rms_norm_eps": 1e-5},
    flags=UNTIED,
    choices=activation("silu"),
    divisions=(GROUPS,),
    rotated=(PART, 1.0),
    eos=32000,
    variants="sliding window, partial rotary",
)  # fmt: skip

_GPT_NEOX = Family(
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

_BIGCODE = Family(
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

_EXAONE4 = Family(
    architecture="Exaone4ForCausalLM",
    model_type="exaone4",
    sizes=sizes(
        102400, 4096, 16384, 32, 32, 2048,
        num_key_value_heads=Size(32), head_dim=NONE, sliding_window=Size(4096, optional=True),
    ),
    numbers={"rms_norm_eps": 1e-5},
    flags=UNTIED,
    choices=activation("silu"),
    lists={"layer_types": LAYER_TYPES},
    divisions=(GROUPS,),
    eos=2,
    variants="alternating sliding windows and layers without positions",
)  # fmt: skip

_SEED = Family(
    architecture="SeedOssForCausalLM",
    model_type="seed_oss",
    sizes=sizes(
        155136, 4096, 27648, 64, 80, 524288, num_key_value_heads=Size(8, optional=True),
        head_dim=Size(128, optional=True),
    ),
    numbers={"rms_norm_eps": 1e-6},
    flags=UNTIED | {"attention_bias": True, "attention_out_bias": False, "mlp_bias": False},
    choices=activation("silu"),
    divisions=(GROUPS,),
    eos=2,
    variants="biases",
)  # fmt: skip

FAMILIES = {
    family.architecture: family
    for family in (
        _LLAMA, _OPT, _MISTRAL, _QWEN2, _QWEN3, _SMOLLM3, _ARCEE, _OLMO, _OLMO2, _GRANITE, _HELIUM, _ERNIE, _HUNYUAN,
        _GLM, _GLM4, _NEMOTRON, _STABLELM, _STARCODER2, _COHERE, _COHERE2, _PHI, _PHI3, _GPT_NEOX,
        _BIGCODE, _EXAONE4, _SEED,
    )
}  # fmt: skip
