"""Table of the causal language models of transformers: which are supported, and what the others need.

`python -m hyperdex_ir.frontend.coverage` prints the part of docs/models.md.
"""

from __future__ import annotations

import sys

from hyperdex_ir.frontend.families import FAMILIES

#: Types of wrappers whose text part is compiled.
WRAPPERS = ("gemma3", "got_ocr2")
#: Mechanism that is missing -> the model types that need it.
MISSING: dict[str, tuple[str, ...]] = {
    "recurrent layers: state spaces, linear attention, gated delta rules": (
        "bailing_hybrid", "bamba", "falcon_h1", "falcon_mamba", "jamba", "kimi_linear", "lara_mini", "mamba", "mamba2",
        "minimax", "nemotron_h", "olmo_hybrid", "qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_5_text",
        "qwen3_next", "qwen4_exp", "qwen4_exp_text", "recurrent_gemma", "rwkv", "xlstm", "zamba", "zamba2",
    ),
    "attention to later tokens: encoders": (
        "bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert",
        "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm", "xlm-roberta", "xlm-roberta-xl",
        "xlnet", "xmod",
    ),
    "attention to an encoder: decoders of translation, speech and music models": (
        "bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "marian", "mbart", "musicgen", "musicgen_melody",
        "mvp", "pegasus", "plbart", "prophetnet", "trocr", "whisper",
    ),
    "attention to chosen keys: indexers, blocks, hashes, masks of the model's own": (
        "axk2", "deepseek_v32", "deepseek_v4", "doge", "dots3_note", "dots3_note_text", "glm_moe_dsa", "hy_v4",
        "reformer",
    ),
    "a text part within a wrapper, with a mechanism of its own or not compared yet": (
        "emu3", "fuyu", "gemma3n", "gemma4", "gemma4_unified", "git", "llama4", "mllama", "moshi",
        "moss_transcribe_diarize", "phi4_multimodal",
    ),
    "keys and values of another layer or model, sizes of heads by layer": (
        "gemma3n_text", "gemma4_assistant", "gemma4_text", "gemma4_unified_assistant", "gemma4_unified_text",
    ),
    "layers that run more than once": ("dory", "hrm_text"),
    "a bias of scores by distance, learned": ("cpmant", "inkling2_loop_text", "inkling2_text", "inkling_text"),
    "queries scaled by their position": ("beam", "ministral3"),
    "rotation by complex numbers": ("deepseek_v2", "llama4_text"),
    "attention outside transformers' interface": ("gpt_neo", "gpt_neox_japanese", "openai-gpt"),
    "positions from a table of sines, as embeddings": ("ctrl", "xglm"),
    "experts or routers of another form": ("jetmoe", "longcat_flash", "phimoe"),
    "convolutions of queries and keys together": ("zaya",),
    "keys in nested objects of config.json": ("dbrx",),
    "tensors of a checkpoint that are split in parts (conversion `Split`)": ("sarvam_moe",),
    "bytes in patches in place of tokens": ("blt",),
    "none that is known: a row and a tiny model": ("cohere_compass_text", "minimax_m3_vl_text"),
}  # fmt: skip


def supported_types() -> list[str]:
    """The causal types whose config.json is accepted, as transformers writes it, in the order of its table."""
    from transformers import CONFIG_MAPPING

    known = {*WRAPPERS, *(family.model_type for family in FAMILIES.values())}
    return [name for name in causal_types() if CONFIG_MAPPING[name].model_type in known]


def causal_types() -> list[str]:
    """The model types of the causal language models of the installed transformers."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def coverage_table() -> str:
    """The table of docs/models.md: the supported types, and for each missing mechanism the types that need it."""
    supported, count = supported_types(), len(causal_types())
    rows = [("", f"types ({count})"), ("---", "---"), (f"**supported** ({len(supported)})", ", ".join(supported))]
    rows += [(f"{mechanism} ({len(types)})", ", ".join(types)) for mechanism, types in MISSING.items()]
    return "".join(f"| {left} | {right} |\n" for left, right in rows)


if __name__ == "__main__":
    sys.stdout.write(coverage_table())
