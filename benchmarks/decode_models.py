"""The models that decode.py measures, made in a folder: checkpoints, compiled forms, GGUF files; and their arithmetic.

Each file is made once: a folder that has it is not written anew. The large model is written tensor by tensor and needs
little memory, but 11 GB of disk.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

LANES = 64  # of a MAC tree
_ROOM = 12 * 10**9  # bytes of disk
_FOLD = LANES - 1  # additions that fold them
_LLAMA = Path(__file__).parent / "workers" / "llama.py"
_COMPILE = "import sys; from hyperdex_ir.tools import AutoCompiler; AutoCompiler().compile(sys.argv[1])"

#: The shape of a 1.3B Llama: 1,345,423,360 parameters.
LARGE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 5504,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "num_hidden_layers": 24,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "dtype": "float16",
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@dataclass(frozen=True)
class Model:
    """A model in its three forms. gguf: None when there is no llama.cpp to run it."""

    name: str
    checkpoint: Path  # compiled in place
    gguf: Path | None

    @property
    def config(self) -> dict[str, Any]:
        return json.loads((self.checkpoint / "config.json").read_text(encoding="utf-8"))


# ---------------------------------------------------------------------------------------------------- arithmetic


def _matrices(config: dict[str, Any]) -> list[tuple[int, int]]:
    """(rows, columns) of the matrices that a Llama layer multiplies by."""
    hidden, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    size = config.get("head_dim", hidden // heads)
    queries, keys = heads * size, config["num_key_value_heads"] * size
    attention = [(queries, hidden), (keys, hidden), (keys, hidden), (hidden, queries)]
    return [*attention, (inner, hidden), (inner, hidden), (hidden, inner)]


def streamed_bytes(config: dict[str, Any]) -> int:
    """Bytes of the float16 matrices that one token of decode takes; KV cache, norms and padding not counted."""
    layer = sum(rows * columns for rows, columns in _matrices(config))
    return 2 * (config["num_hidden_layers"] * layer + config["vocab_size"] * config["hidden_size"])


def cache_bytes(config: dict[str, Any], positions: int) -> int:
    """Bytes of the float16 KV cache of so many positions."""
    _, (keys, _), *_ = _matrices(config)
    return 2 * 2 * keys * config["num_hidden_layers"] * positions


def prefill_operations(config: dict[str, Any], tokens: int) -> tuple[int, int]:
    """What the machine's order of sums takes for a prompt, logits of the last token only: fused multiply-adds (of whole
    steps of 64 lanes), and additions that fold the lanes of every output.
    """
    matrices = _matrices(config)
    heads, (queries, _) = config["num_attention_heads"], matrices[0]
    size = queries // heads
    outputs, steps = _products(matrices, tokens)
    head_outputs, head_steps = _products([(config["vocab_size"], config["hidden_size"])], 1)
    seen = range(1, tokens + 1)  # positions that each row sees
    score_outputs, score_steps = sum(seen), sum(seen) * _steps(size)
    value_outputs, value_steps = tokens * size, sum(size * _steps(count) for count in seen)
    layers = config["num_hidden_layers"]
    all_outputs = head_outputs + layers * (outputs + heads * (score_outputs + value_outputs))
    all_steps = head_steps + layers * (steps + heads * (score_steps + value_steps))
    return LANES * all_steps, _FOLD * all_outputs


def _products(matrices: list[tuple[int, int]], tokens: int) -> tuple[int, int]:
    """Outputs of the matrices for so many rows, and the steps of 64 lanes that they take."""
    return tokens * sum(n for n, _ in matrices), tokens * sum(n * _steps(k) for n, k in matrices)


def _steps(columns: int) -> int:
    return -(-columns // LANES)


# ---------------------------------------------------------------------------------------------------- SmolLM2


def make_smollm2(folder: Path, llama_python: str | None) -> Model:
    """The demo's model, and the GGUF that llama.cpp's quantizer makes of the file with the same weights."""
    from hyperdex_ir.cli.demo_checkpoint import find_gguf, write_checkpoint

    checkpoint = folder / "smollm2"
    checkpoint.mkdir(parents=True, exist_ok=True)
    write_checkpoint(find_gguf(), checkpoint)
    _compile(checkpoint)
    gguf = folder / "smollm2-f16.gguf" if llama_python else None
    if gguf is not None and not gguf.exists():
        part = gguf.with_suffix(".part")
        _run(str(llama_python), os.fspath(_LLAMA), "float16", os.fspath(find_gguf()), os.fspath(part))
        part.rename(gguf)
    return Model("SmolLM2-135M", checkpoint, gguf)


def _compile(checkpoint: Path) -> None:
    """In place; what an earlier run has finished is used again."""
    _run(sys.executable, "-c", _COMPILE, os.fspath(checkpoint))


def _run(*command: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout)


# ---------------------------------------------------------------------------------------------------- 1.3B


def make_large(folder: Path, llama_python: str | None) -> Model:
    """A 1.3B-parameter Llama with random weights."""
    checkpoint = folder / "large"
    checkpoint.mkdir(parents=True, exist_ok=True)
    gguf = folder / "large-f16.gguf" if llama_python else None
    _check_room(folder)
    weights = checkpoint / "model.safetensors"
    if not weights.exists():
        (checkpoint / "config.json").write_text(json.dumps(LARGE, indent=2), encoding="utf-8")
        _write_safetensors(weights)
    _compile(checkpoint)
    if gguf is not None and not gguf.exists():
        _write_gguf(weights, gguf)
    return Model("Llama 1.3B, random weights", checkpoint, gguf)


def _check_room(folder: Path) -> None:
    made = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    free = shutil.disk_usage(folder).free + made
    if free < _ROOM:
        sys.exit(f"{folder}: {free / 1e9:.1f} GB free, {_ROOM / 1e9:.0f} needed; choose another --folder or --no-large")


def _tensors() -> Iterator[tuple[str, tuple[int, ...]]]:
    """transformers' name and shape of every tensor."""
    hidden, inner, vocab = LARGE["hidden_size"], LARGE["intermediate_size"], LARGE["vocab_size"]
    yield "model.embed_tokens.weight", (vocab, hidden)
    for layer in range(LARGE["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", (hidden,)
        for name in "qkvo":
            yield f"{prefix}self_attn.{name}_proj.weight", (hidden, hidden)
        yield prefix + "post_attention_layernorm.weight", (hidden,)
        yield prefix + "mlp.gate_proj.weight", (inner, hidden)
        yield prefix + "mlp.up_proj.weight", (inner, hidden)
        yield prefix + "mlp.down_proj.weight", (hidden, inner)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (vocab, hidden)


def _write_safetensors(path: Path) -> None:
    """Unit variance through each matrix, norms of one."""
    table: dict[str, Any] = {}
    offset = 0
    for name, shape in _tensors():
        size = 2 * int(np.prod(shape))
        table[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    header = json.dumps(table).encode()
    header += b" " * (-len(header) % 8)
    rng = np.random.default_rng(0)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for _, shape in _tensors():
            file.write(_values(rng, shape).tobytes())
    part.rename(path)


def _values(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) == 1:
        return np.ones(shape, np.float16)
    values = rng.standard_normal(shape, np.float32)
    values *= np.float32(shape[1] ** -0.5)
    return values.astype(np.float16)


# ---------------------------------------------------------------------------------------------------- GGUF

_GGUF_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_GGUF_MODEL = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def _write_gguf(weights: Path, path: Path) -> None:
    """The same weights for llama.cpp, by its project's own writer; no vocabulary but its size."""
    from gguf import GGUFWriter
    from safetensors import safe_open

    part = path.with_suffix(".part")
    writer = GGUFWriter(part, "llama")
    writer.add_file_type(1)
    writer.add_context_length(LARGE["max_position_embeddings"])
    writer.add_embedding_length(LARGE["hidden_size"])
    writer.add_block_count(LARGE["num_hidden_layers"])
    writer.add_feed_forward_length(LARGE["intermediate_size"])
    writer.add_head_count(LARGE["num_attention_heads"])
    writer.add_head_count_kv(LARGE["num_key_value_heads"])
    writer.add_rope_freq_base(LARGE["rope_theta"])
    writer.add_layer_norm_rms_eps(LARGE["rms_norm_eps"])
    writer.add_vocab_size(LARGE["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    for name, shape in _tensors():
        dtype = np.dtype(np.float16 if len(shape) == 2 else np.float32)
        writer.add_tensor_info(_gguf_name(name), shape, dtype, int(np.prod(shape)) * dtype.itemsize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    with safe_open(weights, "np") as tensors:
        for name, _ in _tensors():
            writer.write_tensor_data(_gguf_values(name, tensors.get_tensor(name)))
    writer.close()
    part.rename(path)


def _gguf_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in _GGUF_MODEL:
        return f"{_GGUF_MODEL[stem]}.weight"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{_GGUF_LAYER[rest]}.weight"


def _gguf_values(name: str, values: np.ndarray) -> np.ndarray:
    """Vectors in float32; rotary pairs side by side, which transformers has half a head apart."""
    if values.ndim == 1:
        return values.astype(np.float32)
    if not name.endswith(("q_proj.weight", "k_proj.weight")):
        return values
    rows, columns = values.shape
    heads = LARGE["num_attention_heads"]
    pairs = values.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows, columns))
