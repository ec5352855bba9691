"""Tiny models of the architectures whose GGUF files are read, written to such files as llama.cpp's converter does."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf.quants import quantize
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from support.models.tiny import _byte_alphabet

SIZES: dict[str, Any] = {
    "hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 6,
    "num_key_value_heads": 2, "vocab_size": 259, "max_position_embeddings": 32,
    "bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 0,
}  # fmt: skip
#: The sizes of experts are the default ones: transformers reads no others from such a file.
ROUTED = {"num_experts": 3, "num_experts_per_tok": 2}
TIED = {"tie_word_embeddings": True}


def _rotary(theta: float, **more: float) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta, **more}}


#: Architecture of the file -> model type, and what differs from SIZES.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"head_dim": 16}),
    "qwen2": ("qwen2", TIED),
    "qwen2moe": ("qwen2_moe", ROUTED | {"moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632}),
    "qwen3": ("qwen3", {"head_dim": 128}),
    "qwen3moe": ("qwen3_moe", ROUTED | {"moe_intermediate_size": 768, "norm_topk_prob": True, "head_dim": 18}),
    "falcon": ("falcon", TIED | {"num_key_value_heads": None}),
    "phi3": ("phi3", {"sliding_window": 7}),
    "bloom": ("bloom", TIED | {"n_head": 6, "n_layer": 2}),
    "stablelm": ("stablelm", {"use_qkv_bias": True} | _rotary(2e4, partial_rotary_factor=0.25)),
    "gpt2": ("gpt2", TIED | {"n_embd": 96, "n_layer": 2, "n_head": 6, "max_position_embeddings": 1024}),
    "starcoder2": ("starcoder2", TIED | _rotary(123456.0)),
    "nemotron": ("nemotron", _rotary(2e4, partial_rotary_factor=0.5)),
    "gemma2": ("gemma2", TIED | {"sliding_window": 7, "head_dim": 18}),
    "gemma3": ("gemma3_text", TIED | {"sliding_window": 7, "head_dim": 18}),
    "lfm2": ("lfm2", TIED | {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}),
}
_EPSILONS = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps")


def make_model(arch: str, **more: Any) -> PreTrainedModel:
    """more: of its configuration."""
    model_type, fields = MODELS[arch]
    sizes = {key: value for key, value in (SIZES | fields | more).items() if value is not None}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **sizes), dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape) * parameter.shape[-1] ** -0.5)
            elif name.endswith("bias"):
                parameter.copy_(0.1 * torch.randn(parameter.shape))
    return model.eval()


def write_gguf(
    path: Path, arch: str, kind: gguf.GGMLQuantizationType, factors: dict[str, np.ndarray] | None = None, **more: Any
) -> None:
    """Writes a model with random weights; norms and biases in float32.

    factors: tensors in place of those that the converter makes. more: of the model's configuration.
    """
    model = make_model(arch, **more)
    writer = gguf.GGUFWriter(path, arch)
    _write_config(writer, arch, model.config)
    for name, values in (_write_scaling(writer, model.config) if factors is None else factors).items():
        writer.add_tensor(f"{name}.weight", values)
    _write_vocabulary(writer)
    names = gguf.get_tensor_name_map(next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == arch), 2)
    for name, tensor in tensors_of(model, arch):
        stem, _, suffix = (name if name.endswith((".weight", ".bias")) else f"{name}.weight").rpartition(".")
        given = names.get_name(stem) or names.get_name(stem.partition(".")[2])
        assert given is not None, name
        values = np.ascontiguousarray(tensor.numpy())
        own = kind if values.ndim > 1 and "ffn_gate_inp" not in given else gguf.GGMLQuantizationType.F32
        writer.add_tensor(f"{given}.{suffix}", quantize(values, own), raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_config(writer: gguf.GGUFWriter, arch: str, config: Any) -> None:
    epsilon = next(getattr(config, name) for name in _EPSILONS if hasattr(config, name))
    groups = getattr(config, "num_key_value_heads", 1)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(getattr(config, "max_position_embeddings", 32))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(getattr(config, "intermediate_size", 4 * config.hidden_size))
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv([0, groups] if arch == "lfm2" else groups)
    writer.add_layer_norm_rms_eps(epsilon)
    writer.add_layer_norm_eps(epsilon)
    rotary = getattr(config, "rope_parameters", None) or {}
    writer.add_rope_freq_base(rotary.get("full_attention", rotary).get("rope_theta", 1e4))
    writer.add_rope_dimension_count(int(head * rotary.get("partial_rotary_factor", 1.0)))
    writer.add_key_length(head)
    writer.add_vocab_size(config.vocab_size)
    if (window := getattr(config, "sliding_window", None)) is not None:
        writer.add_sliding_window(window)
    if arch == "lfm2":
        writer.add_uint32("lfm2.shortconv.l_cache", config.conv_L_cache)
    if "moe" in arch:
        writer.add_expert_count(3)
        writer.add_expert_used_count(2)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)


def _write_scaling(writer: gguf.GGUFWriter, config: Any) -> dict[str, np.ndarray]:
    """The rule of the rotary frequencies as fields; the factors of them, which the converter makes tensors of."""
    rotary = getattr(config, "rope_parameters", None) or {}
    rotary = rotary.get("full_attention", rotary)
    rule = rotary.get("rope_type")
    if rule in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rule))
        writer.add_rope_scaling_factor(rotary["factor"])
    if rule == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rotary["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_beta_fast(rotary["beta_fast"])
    if rule == "llama3":
        return {"rope_freqs": llama3_factors(rotary, config.head_dim)}
    if rule != "longrope":
        return {}
    original = rotary["original_max_position_embeddings"]
    writer.add_rope_scaling_orig_ctx_len(original)
    writer.add_rope_scaling_attn_factors(
        math.sqrt(1 + math.log(config.max_position_embeddings / original) / math.log(original))
    )
    return {f"rope_factors_{name}": np.array(rotary[f"{name}_factor"], np.float32) for name in ("short", "long")}


def llama3_factors(rotary: dict[str, Any], head: int) -> np.ndarray:
    """What the frequencies are divided by: 1 for short waves, the factor for long ones, and between them a mean. In
    float32, from torch's frequencies."""
    frequency = 1 / rotary["rope_theta"] ** (torch.arange(0, head, 2).float() / head)
    low, high, factor = rotary["low_freq_factor"], rotary["high_freq_factor"], rotary["factor"]
    turns = rotary["original_max_position_embeddings"] / (2 * math.pi / frequency)
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).numpy()


def _write_vocabulary(writer: gguf.GGUFWriter) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*_byte_alphabet(), "<s>", "</s>", "ab"])
    writer.add_token_types([gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.NORMAL])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    writer.add_pad_token_id(0)


def tensors_of(model: PreTrainedModel, arch: str) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors as the converter writes them."""
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        if name.endswith("experts.gate_up_proj"):
            stem = name.removesuffix("gate_up_proj")
            yield from zip((f"{stem}gate_proj.weight", f"{stem}up_proj.weight"), tensor.chunk(2, 1), strict=True)
        else:
            yield name, _rearranged(name, tensor, arch)


def _rearranged(name: str, tensor: torch.Tensor, arch: str) -> torch.Tensor:
    """Rotary pairs side by side, norms plus one, query, key and value one after another, and so on."""
    if arch == "llama" and (".q_proj" in name or ".k_proj" in name):
        heads = 6 if ".q_proj" in name else 2
        return tensor.reshape(heads, 2, 8, -1).swapaxes(1, 2).reshape(tensor.shape)
    if arch in ("gemma2", "gemma3", "nemotron") and "norm" in name and name.endswith("weight"):
        return tensor + 1
    if arch == "gpt2" and ".c_" in name and tensor.dim() == 2:
        return tensor.T
    if arch == "bloom" and "query_key_value" in name:
        return tensor.reshape(6, 3, 16, *tensor.shape[1:]).swapaxes(0, 1).reshape(tensor.shape)
    if arch == "lfm2" and "conv.conv" in name:
        return tensor.squeeze(1)
    return tensor.squeeze(0) if "shared_expert_gate" in name else tensor
