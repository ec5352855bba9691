"""Tiny models of the supported architectures, with their options on: a new architecture is a new entry in CASES."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tiny import BOS, EOS, write_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

#: No size is a multiple of 64; the heads are not hidden / heads where a configuration can say so.
_SIZES = {
    "vocab_size": 263,
    "hidden_size": 108,
    "intermediate_size": 150,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
_GPT2_SIZES = {"n_embd": 108, "n_layer": 3, "n_head": 6, "n_positions": 64}
_BIASES = {"attention_bias": True, "mlp_bias": True}
_YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
_LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
_LINEAR = {"rope_type": "linear", "rope_theta": 5e5, "factor": 4.0}


@dataclass(frozen=True)
class Case:
    """A tiny model: its model_type, what differs from _SIZES, the type of its tensors, a factor of its logits."""

    model_type: str
    fields: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float16"
    gain: float = 2.0


#: Names of tests -> models.
CASES: dict[str, Case] = {
    "llama": Case("llama", _BIASES | {"rope_parameters": _LLAMA3}),
    "llama-linear": Case("llama", {"head_dim": 22, "rope_parameters": _LINEAR}, "bfloat16"),
    "opt": Case("opt", {"ffn_dim": 150, "word_embed_proj_dim": 60, "tie_word_embeddings": True}),
    "opt-norms-after": Case(
        "opt", {"ffn_dim": 150, "word_embed_proj_dim": 108, "do_layer_norm_before": False}, "bfloat16"
    ),
    "mistral": Case("mistral", {"head_dim": 22, "sliding_window": 9}, "bfloat16"),
    "mistral-whole": Case("mistral", {"sliding_window": None, "hidden_size": 111}, "float16"),
    "qwen2": Case("qwen2", {"tie_word_embeddings": True}, "bfloat16"),
    "qwen2-windows": Case(
        "qwen2", {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1, "num_key_value_heads": 3}
    ),
    "qwen3": Case("qwen3", {"head_dim": 22, "attention_bias": True, "rope_parameters": _YARN}, "bfloat16"),
    "qwen3-windows": Case(
        "qwen3", {"head_dim": 14, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2}
    ),
    "smollm3": Case(
        "smollm3",
        _BIASES
        | {"no_rope_layer_interval": 2, "use_sliding_window": True, "sliding_window": 11, "num_hidden_layers": 5},
    ),
    "arcee": Case("arcee", _BIASES | {"rope_parameters": _YARN}, "bfloat16"),
    "olmo": Case("olmo", {"attention_bias": True}),
    "olmo2": Case("olmo2", {"attention_bias": True}, "bfloat16"),
    "granite": Case(
        "granite",
        _BIASES
        | {"embedding_multiplier": 3.0, "residual_multiplier": 0.7, "logits_scaling": 1.7, "attention_multiplier": 0.3},
        "bfloat16",
        4.0,
    ),
    "helium": Case("helium", _BIASES | {"head_dim": 18}),
    "ernie4_5": Case("ernie4_5", {"head_dim": 22, "use_bias": True}, "bfloat16"),
    "hunyuan": Case("hunyuan_v1_dense", {"head_dim": 22, "attention_bias": True}),
    "glm": Case("glm", {"head_dim": 28}, "bfloat16"),
    "glm4": Case("glm4", {"head_dim": 28}),
    "nemotron": Case("nemotron", _BIASES | {"head_dim": 28}, "bfloat16"),
    "stablelm": Case("stablelm", {"hidden_size": 144, "use_qkv_bias": True}, "bfloat16"),
    "stablelm-norms-parallel": Case(
        "stablelm", {"hidden_size": 144, "qk_layernorm": True, "use_parallel_residual": True}
    ),
    "starcoder2": Case("starcoder2", {"sliding_window": 9, "tie_word_embeddings": True}, "bfloat16"),
    "cohere": Case("cohere", {"tie_word_embeddings": True, "attention_bias": True, "logit_scale": 0.4}),
    "cohere-norms": Case("cohere", {"use_qk_norm": True, "logit_scale": 0.9}, "bfloat16"),
    "cohere2": Case(
        "cohere2",
        {"attention_bias": True, "sliding_window": 7, "num_hidden_layers": 5, "logit_scale": 0.9},
        "bfloat16",
    ),
    "phi": Case("phi", {"hidden_size": 120, "partial_rotary_factor": 0.4}, "bfloat16"),
    "phi-norms": Case("phi", {"hidden_size": 120, "qk_layernorm": True}),
    "phi3": Case("phi3", {"sliding_window": 9, "hidden_size": 120}),
    "phi3-partial": Case("phi3", {"hidden_size": 144, "partial_rotary_factor": 0.75}, "bfloat16"),
    "gpt_neox": Case("gpt_neox", {"hidden_size": 144}),
    "gpt_neox-sequential": Case(
        "gpt_neox", {"hidden_size": 120, "use_parallel_residual": False, "attention_bias": False, "rotary_pct": 0.5},
        "bfloat16",
    ),
    "gpt_bigcode": Case("gpt_bigcode", _GPT2_SIZES | {"n_inner": 150, "tie_word_embeddings": True}),
    "gpt_bigcode-heads": Case("gpt_bigcode", _GPT2_SIZES | {"multi_query": False}, "bfloat16"),
    "exaone4": Case("exaone4", {"head_dim": 22, "sliding_window": 7, "num_hidden_layers": 5}),
    "seed_oss": Case("seed_oss", _BIASES | {"head_dim": 22, "attention_out_bias": True}, "bfloat16"),
}  # fmt: skip


def write_case(case: Case, directory: Path, seed: int) -> Path:
    """Writes config.json, safetensors with random weights and a tokenizer; gives the directory."""
    config = AutoConfig.for_model(case.model_type, **(_SIZES | case.fields))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    _randomize(model, seed, case.gain)
    model.to(getattr(torch, case.dtype)).save_pretrained(directory)
    write_tokenizer(directory)
    return directory


def _randomize(model: PreTrainedModel, seed: int, gain: float) -> None:
    """Matrices that keep the variance, an embedding of variance 1, norms near 1, biases near 0; a head with a gain."""
    generator = torch.Generator().manual_seed(seed)
    head: Any = model.get_output_embeddings()
    embedding: Any = model.get_input_embeddings()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator)
            if parameter is embedding.weight:
                parameter.copy_(values)
            elif parameter is head.weight:
                parameter.copy_(values * gain * parameter.shape[1] ** -0.5)
            elif parameter.dim() == 2 and "norm" not in name:
                parameter.copy_(values * parameter.shape[1] ** -0.5)
            else:
                parameter.copy_(0.1 * values + (1.0 if name.endswith("weight") else 0.0))
