"""Architectures with rotary positions and layer norms."""

from __future__ import annotations

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

OLMO = Family(
    architecture="OlmoForCausalLM",
    model_type="olmo",
    sizes=sizes(50304, 4096, 11008, 32, 32, 2048, num_key_value_heads=NONE, head_dim=NONE),
    flags=UNTIED | {"attention_bias": False},
    choices=activation("silu"),
    divisions=(GROUPS,),
    optional_numbers={"clip_qkv": None},
    eos=50279,
    variants="biases, clipped queries, keys and values",
)

NEMOTRON = Family(
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

STABLELM = Family(
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

STARCODER2 = Family(
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

COHERE = Family(
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

COHERE2 = Family(
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

PHI = Family(
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

JAIS2 = Family(
    architecture="Jais2ForCausalLM",
    model_type="jais2",
    sizes=sizes(150272, 3328, 26624, 32, 26, 8192, num_key_value_heads=NONE, head_dim=NONE),
    numbers={"layer_norm_eps": 1e-5},
    flags=UNTIED | {"attention_bias": True, "mlp_bias": True},
    choices=activation("relu2"),
    divisions=(HEADS, GROUPS),
    eos=150024,
    variants="biases",
)

PERSIMMON = Family(
    architecture="PersimmonForCausalLM",
    model_type="persimmon",
    sizes=sizes(262144, 4096, 16384, 36, 64, 16384),
    numbers={"layer_norm_eps": 1e-5},
    flags=UNTIED | {"qk_layernorm": True},
    choices=activation("relu2"),
    divisions=(HEADS,),
    rotated=(PART, 0.5),
    eos=2,
    variants="norms of heads or not, partial rotary",
)

MODERNBERT_DECODER = Family(
    architecture="ModernBertDecoderForCausalLM",
    model_type="modernbert-decoder",
    sizes=sizes(50368, 768, 1152, 22, 12, 8192, local_attention=Size(128, least=2, optional=True)),
    numbers={"norm_eps": 1e-5},
    flags={
        "tie_word_embeddings": True, "norm_bias": False, "attention_bias": False, "mlp_bias": False,
        "decoder_bias": True,
    },
    choices={"hidden_activation": ("gelu", ACTIVATIONS)},
    lists={"layer_types": LAYER_TYPES},
    divisions=(HEADS,),
    rotary_kinds=True,
    eos=50282,
    token_embedding="tok_embeddings.weight",
    head="decoder.weight",
    variants="sliding windows with rotary positions of their own, biases, untied",
)  # fmt: skip
