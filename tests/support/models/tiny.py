"""Tiny checkpoints with random weights: real architectures, a few thousand parameters, a byte-level tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, OPTConfig, PreTrainedConfig, PreTrainedTokenizerFast

BOS, EOS, VOCABULARY = 256, 257, 272
_COMMON: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 128,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}


def tiny_llama_config(**overrides: Any) -> LlamaConfig:
    """A Llama of 2 layers, 4 heads of 16 on 2 KV heads; any field may be overridden."""
    fields: dict[str, Any] = {
        "intermediate_size": 96,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "architectures": ["LlamaForCausalLM"],
    }
    return LlamaConfig(**(_COMMON | fields | overrides))


def tiny_opt_config(**overrides: Any) -> OPTConfig:
    """An OPT of 2 layers and 4 heads of 16; any field may be overridden."""
    fields: dict[str, Any] = {
        "ffn_dim": 96,
        "word_embed_proj_dim": 64,
        "pad_token_id": 1,
        "architectures": ["OPTForCausalLM"],
    }
    return OPTConfig(**(_COMMON | fields | overrides))


def tiny_config(config_class: type[PreTrainedConfig], **overrides: Any) -> PreTrainedConfig:
    """A configuration of another architecture, by its class, of the sizes of `tiny_llama_config`."""
    fields: dict[str, Any] = {
        "intermediate_size": 96,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "pad_token_id": 0,
        "architectures": [config_class.__name__.removesuffix("Config") + "ForCausalLM"],
    }
    return config_class(**(_COMMON | fields | overrides))


def write_checkpoint(
    config: PreTrainedConfig,
    directory: Path,
    dtype: str = "float16",
    seed: int = 0,
    max_shard_size: str = "5GB",
) -> Path:
    """Writes config.json, safetensors with random weights and a tokenizer; gives the directory.

    The same arguments give the same bytes. dtype: a torch type's name, the type of every tensor. max_shard_size: more
    bytes than this make several files and an index.
    """
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    _randomize(model, seed)
    model.to(getattr(torch, dtype)).save_pretrained(directory, max_shard_size=max_shard_size)
    write_tokenizer(directory)
    return directory


def _randomize(model: torch.nn.Module, seed: int) -> None:
    """Weights large enough for logits that differ: unit variance through each matrix, norms near 1, biases near 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 2:
                values = values * (1.0 if "embed" in name else parameter.shape[1] ** -0.5)
            else:
                values = 0.1 * values + (1.0 if name.endswith("weight") else 0.0)
            parameter.copy_(values)


def write_tokenizer(directory: Path) -> None:
    """A tokenizer whose token n < 256 is byte n, with <s> and </s> after them."""
    alphabet = _byte_alphabet()
    tokenizer = Tokenizer(models.BPE(vocab={symbol: byte for byte, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(directory)


def _byte_alphabet() -> list[str]:
    """The visible character that stands for each byte in byte-level tokenizers."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in visible else chr(next(others)) for byte in range(256)]
