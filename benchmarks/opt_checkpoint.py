"""Writes a checkpoint of OPT-1.3B's shape with random weights: 2.6 GB of float16 in four safetensors shards.

    python benchmarks/opt_checkpoint.py DIRECTORY [--layers N]

Weights are made and written some rows at a time; the process never holds more than a few MB of them. The same
arguments give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import struct
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np

SHARDS = 4
_STEP = 1 << 21  # elements that are made at once
_HIDDEN, _FFN, _VOCAB, _POSITIONS = 2048, 8192, 50272, 2048

Shapes = dict[str, tuple[int, ...]]


def config(layers: int) -> dict[str, object]:
    """config.json of facebook/opt-1.3b, with that many layers."""
    return {
        "architectures": ["OPTForCausalLM"],
        "model_type": "opt",
        "torch_dtype": "float16",
        "activation_function": "relu",
        "do_layer_norm_before": True,
        "hidden_size": _HIDDEN,
        "word_embed_proj_dim": _HIDDEN,
        "ffn_dim": _FFN,
        "num_hidden_layers": layers,
        "num_attention_heads": 32,
        "vocab_size": _VOCAB,
        "max_position_embeddings": _POSITIONS,
        "bos_token_id": 2,
        "eos_token_id": 2,
        "pad_token_id": 1,
    }


def shapes(layers: int) -> Shapes:
    """The tensors, in order."""
    found: Shapes = {
        "model.decoder.embed_tokens.weight": (_VOCAB, _HIDDEN),
        "model.decoder.embed_positions.weight": (_POSITIONS + 2, _HIDDEN),
    }
    linear = {f"self_attn.{name}_proj": (_HIDDEN, _HIDDEN) for name in ("k", "v", "q", "out")}
    linear |= {"fc1": (_FFN, _HIDDEN), "fc2": (_HIDDEN, _FFN)}
    for layer in range(layers):
        prefix = f"model.decoder.layers.{layer}"
        for name, shape in linear.items():
            found[f"{prefix}.{name}.weight"], found[f"{prefix}.{name}.bias"] = shape, shape[:1]
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            found[f"{prefix}.{name}.weight"] = found[f"{prefix}.{name}.bias"] = (_HIDDEN,)
    found["model.decoder.final_layer_norm.weight"] = found["model.decoder.final_layer_norm.bias"] = (_HIDDEN,)
    return found


def _in_shards(tensors: Shapes) -> Iterator[Shapes]:
    """The tensors in groups of about equal size."""
    share = sum(map(prod, tensors.values())) / SHARDS
    group: Shapes = {}
    done, total = 1, 0
    for name, shape in tensors.items():
        if total >= done * share:
            yield group
            group, done = {}, done + 1
        group[name] = shape
        total += prod(shape)
    yield group


def _header(tensors: Shapes) -> bytes:
    entries, end = {}, 0
    for name, shape in tensors.items():
        start, end = end, end + 2 * prod(shape)
        entries[name] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _values(random: np.random.Generator, name: str, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """A tensor in pieces; norms near 1, the rest near 0."""
    middle = 1.0 if name.endswith("norm.weight") else 0.0
    for start in range(0, prod(shape), _STEP):
        count = min(_STEP, prod(shape) - start)
        yield (random.standard_normal(count, np.float32) * np.float32(0.02) + np.float32(middle)).astype("<f2")


def write_checkpoint(folder: Path, layers: int = 24) -> None:
    """Writes config.json, the shards and their index into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    random, placed = np.random.default_rng(0), {}
    for number, tensors in enumerate(_in_shards(shapes(layers)), 1):
        path = folder / f"model-{number:05d}-of-{SHARDS:05d}.safetensors"
        with path.open("wb") as file:
            file.write(_header(tensors))
            for name, shape in tensors.items():
                placed[name] = path.name
                for values in _values(random, name, shape):
                    file.write(values.data)
    index = {"metadata": {"total_size": 2 * sum(map(prod, shapes(layers).values()))}, "weight_map": placed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
    (folder / "config.json").write_text(json.dumps(config(layers), indent=1))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path, help="where to write it; made when it is not there")
    parser.add_argument("--layers", type=int, default=24, help="default: 24")
    arguments = parser.parse_args()
    write_checkpoint(arguments.directory, arguments.layers)


if __name__ == "__main__":
    main()
