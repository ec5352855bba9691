"""Table of the supported architectures and of the values their config.json may have; one entry for each."""

from __future__ import annotations

from hyperdex_ir.frontend.families import gemma_like, gpt_like, latent, layer_norm, llama_like, routed, wrapped
from hyperdex_ir.frontend.family import Family


def entry_of(architecture: str, model_type: str) -> str:
    """Name of the entry of a model type that takes the class of another, with keys and defaults of its own."""
    return f"{architecture} ({model_type})"


#: Architecture -> its entry, in the order of the table that users see; at the end, entries by `entry_of`.
FAMILIES: dict[str, Family] = {
    family.architecture: family
    for family in (
        llama_like.LLAMA,
        gpt_like.OPT,
        gpt_like.GPT2,
        llama_like.MISTRAL,
        llama_like.QWEN2,
        llama_like.QWEN3,
        llama_like.SMOLLM3,
        llama_like.ARCEE,
        layer_norm.OLMO,
        llama_like.OLMO2,
        gemma_like.OLMO3,
        gemma_like.GEMMA,
        gemma_like.GEMMA2,
        gemma_like.GEMMA3,
        llama_like.GRANITE,
        llama_like.HELIUM,
        llama_like.ERNIE,
        llama_like.HUNYUAN,
        llama_like.GLM,
        llama_like.GLM4,
        layer_norm.NEMOTRON,
        layer_norm.STABLELM,
        layer_norm.STARCODER2,
        layer_norm.COHERE,
        layer_norm.COHERE2,
        layer_norm.PHI,
        llama_like.PHI3,
        gpt_like.GPT_NEOX,
        gpt_like.BIGCODE,
        gpt_like.GPTJ,
        gpt_like.CODEGEN,
        gpt_like.FALCON,
        gpt_like.BLOOM,
        gpt_like.MPT,
        llama_like.EXAONE,
        llama_like.EXAONE4,
        llama_like.SEED,
        routed.MIXTRAL,
        routed.QWEN2_MOE,
        routed.QWEN3_MOE,
        routed.GPT_OSS,
        routed.DEEPSEEK_V3,
        llama_like.LFM2,
        wrapped.QWEN2_VL,
        wrapped.QWEN2_5_VL,
        wrapped.QWEN3_VL,
        wrapped.QWEN3_VL_MOE,
        wrapped.GLM4V,
        wrapped.GLM_OCR,
        llama_like.APERTUS,
        llama_like.APERTUS_TEXT,
        llama_like.BITNET,
        llama_like.CWM,
        llama_like.MINISTRAL,
        llama_like.NANOCHAT,
        llama_like.HYPERCLOVAX,
        llama_like.GRANITE_SWA,
        gemma_like.VAULTGEMMA,
        layer_norm.JAIS2,
        layer_norm.PERSIMMON,
        layer_norm.MODERNBERT_DECODER,
        gpt_like.BIOGPT,
        llama_like.LFM3,
        routed.OLMOE,
        routed.FLEX_OLMO,
        routed.GRANITE_MOE,
        routed.GRANITE_MOE_SHARED,
        routed.GRANITE_MOE_SWA,
        routed.GRANITE_MOE_HYBRID,
        routed.ARIA,
        routed.ERNIE_MOE,
        routed.COHERE2_MOE,
        routed.EXAONE_MOE,
        routed.GLM4_MOE,
        routed.SOLAR_OPEN,
        routed.DOTS1,
        routed.HUNYUAN_MOE,
        routed.HY_V3,
        routed.FLINT,
        routed.KOLIBRI,
        routed.LAGUNA,
        routed.MELLUM,
        routed.MINIMAX_M2,
        routed.AFMOE,
        routed.LFM2_MOE,
        routed.MIMO,
        latent.YOUTU,
        latent.GLM4_MOE_LITE,
        latent.AXK1,
        latent.MINICPM3,
        llama_like.DIFFLLAMA,
    )
} | {
    entry_of(family.architecture, family.model_type): family
    for family in (llama_like.INTERNLM3, llama_like.IQUESTCODER, latent.SARVAM_MLA)
}
