"""SmolLM2's checkpoint rewritten for other architectures, so that they compute the same function."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]
EXPERTS = 3


def _mistral(config: dict[str, Any], tensors: Tensors) -> None:
    config |= {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": None}


def _qwen2(config: dict[str, Any], tensors: Tensors) -> None:
    """Qwen2 always has biases of queries, keys and values: zeros."""
    config |= {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
    for name in [name for name in tensors if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight"))]:
        tensors[name.replace(".weight", ".bias")] = torch.zeros(len(tensors[name]), dtype=tensors[name].dtype)


def _phi3(config: dict[str, Any], tensors: Tensors) -> None:
    """Queries, keys and values in one matrix, gate and up in another."""
    config |= {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "pad_token_id": 2}
    config["original_max_position_embeddings"] = config["max_position_embeddings"]
    for layer in range(config["num_hidden_layers"]):
        for module, parts, whole in (
            ("self_attn", ("q_proj", "k_proj", "v_proj"), "qkv_proj"),
            ("mlp", ("gate_proj", "up_proj"), "gate_up_proj"),
        ):
            path = f"model.layers.{layer}.{module}"
            tensors[f"{path}.{whole}.weight"] = torch.cat([tensors.pop(f"{path}.{part}.weight") for part in parts])


def _granite(config: dict[str, Any], tensors: Tensors) -> None:
    """Multipliers that are powers of two, undone in the embedding, which is the head as well."""
    config |= {
        "architectures": ["GraniteForCausalLM"],
        "model_type": "granite",
        "attention_multiplier": config["head_dim"] ** -0.5,
        "embedding_multiplier": 0.5,
        "logits_scaling": 2.0,
        "residual_multiplier": 1.0,
    }
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"] * 2


def _mixtral(config: dict[str, Any], tensors: Tensors) -> None:
    """Equal experts, stored one by one: whichever are chosen, their weights add up to one."""
    config |= {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "num_local_experts": EXPERTS,
        "num_experts_per_tok": 2,
        "sliding_window": None,
    }
    generator = torch.Generator().manual_seed(0)
    for layer in range(config["num_hidden_layers"]):
        path = f"model.layers.{layer}"
        moe = f"{path}.block_sparse_moe"
        router = torch.randn(EXPERTS, config["hidden_size"], generator=generator) * config["hidden_size"] ** -0.5
        tensors[f"{moe}.gate.weight"] = router.half()
        for part, name in (("gate_proj", "w1"), ("down_proj", "w2"), ("up_proj", "w3")):
            matrix = tensors.pop(f"{path}.mlp.{part}.weight")
            for expert in range(EXPERTS):
                tensors[f"{moe}.experts.{expert}.{name}.weight"] = matrix.clone()


#: Names of tests -> what changes config.json and the tensors in place.
REWRITERS: dict[str, Callable[[dict[str, Any], Tensors], None]] = {
    "mistral": _mistral,
    "qwen2": _qwen2,
    "phi3": _phi3,
    "granite": _granite,
    "mixtral": _mixtral,
}


def rewrite(source: Path, folder: Path, name: str) -> Path:
    """Writes the checkpoint in `source`, a SmolLM2, as another architecture's; gives its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((source / "config.json").read_text())
    tensors = load_file(source / "model.safetensors")
    REWRITERS[name](config, tensors)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    for file in ("generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_bytes((source / file).read_bytes())
    return folder
