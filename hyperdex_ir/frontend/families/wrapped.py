"""Text models that have a head in wrappers only: models of images around a text model (`frontend/wrapper.py`)."""

from __future__ import annotations

from dataclasses import replace

from hyperdex_ir.frontend.families.llama_like import QWEN2, QWEN3, llama_like
from hyperdex_ir.frontend.families.routed import QWEN3_MOE
from hyperdex_ir.frontend.family import HEADS, NONE, PART, UNTIED, Size, sizes

QWEN2_VL = replace(
    QWEN2,
    architecture="Qwen2VLTextModel",
    model_type="qwen2_vl_text",
    sizes=sizes(
        152064, 8192, 29568, 80, 64, 32768,
        num_key_value_heads=Size(8, optional=True), sliding_window=NONE, max_window_layers=Size(80, least=0),
    ),
    numbers={"rms_norm_eps": 1e-5},
    divisions=(HEADS, *QWEN2.divisions),
    eos=151645,
    wrapped=True,
    sections=True,
    variants="sections of positions",
)  # fmt: skip

QWEN2_5_VL = replace(QWEN2_VL, architecture="Qwen2_5_VLTextModel", model_type="qwen2_5_vl_text")

QWEN3_VL = replace(
    QWEN3,
    architecture="Qwen3VLTextModel",
    model_type="qwen3_vl_text",
    sizes=sizes(
        151936, 4096, 22016, 32, 32, 128000, num_key_value_heads=Size(32, optional=True), head_dim=Size(128)
    ),
    flags=UNTIED | {"attention_bias": False},
    lists={},
    wrapped=True,
    sections=True,
    variants="sections of positions",
)  # fmt: skip

QWEN3_VL_MOE = replace(
    QWEN3_MOE,
    architecture="Qwen3VLMoeTextModel",
    model_type="qwen3_vl_moe_text",
    sizes=sizes(
        151936, 2048, 5632, 24, 16, 128000,
        num_key_value_heads=Size(16), head_dim=NONE, decoder_sparse_step=Size(1), moe_intermediate_size=Size(1408),
        num_experts_per_tok=Size(4), num_experts=Size(60, most=4096, least=0),
    ),
    flags={"tie_word_embeddings": True, "attention_bias": False},
    wrapped=True,
    sections=True,
    variants="routed experts, sections of positions",
)  # fmt: skip

GLM4V = llama_like(
    "Glm4vTextModel",
    "glm4v_text",
    sizes(151552, 4096, 13696, 40, 32, 32768, num_key_value_heads=Size(2, optional=True)),
    numbers={"rms_norm_eps": 1e-5},
    rotated=(PART, 1.0),
    eos=None,
    wrapped=True,
    sections=True,
    variants="sections of positions, partial rotary",
)

GLM_OCR = replace(
    GLM4V,
    architecture="GlmOcrTextModel",
    model_type="glm_ocr_text",
    sizes=sizes(59392, 1024, 4096, 16, 16, 131072, num_key_value_heads=Size(8), head_dim=NONE),
)
