"""Tensors as people publish them: leftovers of training, prefixes of wrappers, missing experts; as transformers reads
them, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models.tiny import tiny_llama_config
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from hyperdex_ir.checkpoint.files import Checkpoint
from hyperdex_ir.checkpoint.names import SourceTensor, name_rules, resolve_sources
from hyperdex_ir.checkpoint.pretrained import model_from
from hyperdex_ir.checkpoint.tensors import read
from hyperdex_ir.errors import CheckpointError
from hyperdex_ir.frontend.imported import canonical_names

Tensors = dict[str, torch.Tensor]
_GPT = {"n_embd": 16, "n_layer": 3, "n_head": 2, "vocab_size": 30, "n_positions": 16}
_MOE = {
    "hidden_size": 24, "intermediate_size": 18, "moe_intermediate_size": 10, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 30, "head_dim": 12,
}  # fmt: skip


@cache
def _model(model_type: str, **fields: Any) -> PreTrainedModel:
    config = tiny_llama_config(**fields) if model_type == "llama" else AutoConfig.for_model(model_type, **fields)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def _write(directory: Path, model: PreTrainedModel, change: Callable[[Tensors], Any] = lambda tensors: None) -> None:
    """Writes the checkpoint of a model, with changed tensors."""
    model.save_pretrained(directory)
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})


def _resolve(directory: Path, model: PreTrainedModel) -> tuple[dict[str, SourceTensor], list[str]]:
    lines: list[str] = []
    return resolve_sources(name_rules(model, canonical_names(model)), Checkpoint(directory), lines.append), lines


def _assert_values(sources: dict[str, SourceTensor], model: PreTrainedModel) -> None:
    """All parameters have the values of a model."""
    expected = model.state_dict()
    for key, source in sources.items():
        assert source.tensor is not None
        np.testing.assert_array_equal(read(source.tensor), expected[key].numpy(), key)
    assert sources.keys() == {canonical_names(model).get(name, name) for name in expected}


def _added(**tensors: torch.Tensor) -> Callable[[Tensors], None]:
    return lambda found: found.update({name.replace("__", "."): tensor for name, tensor in tensors.items()})


def _masks(tensors: Tensors) -> None:
    for layer in range(3):
        tensors[f"transformer.h.{layer}.attn.bias"] = torch.ones(1, 1, 16, 16)
        tensors[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)


@pytest.mark.parametrize(
    ("model_type", "fields", "change", "words"),
    [
        (
            "gpt2",
            _GPT,
            _masks,
            "transformer.h.*.attn.bias (3), transformer.h.*.attn.masked_bias (3)",
        ),
        (
            "gpt_bigcode",
            _GPT | {"n_layer": 1},
            _added(transformer__h__0__attn__bias=torch.ones(16, 16, dtype=torch.bool)),
            "transformer.h.0.attn.bias",
        ),
        (
            "llama",
            {},
            _added(v_head__summary__weight=torch.ones(1, 64), v_head__summary__bias=torch.ones(1)),
            "v_head.summary.bias, v_head.summary.weight",
        ),
        (
            "llama",
            {},
            _added(
                model__layers__0__self_attn__k_scale=torch.tensor(1.0),
                model__layers__1__self_attn__v_proj__v_scale=torch.ones(1),
                model__layers__1__self_attn__rotary_emb__cos_cached=torch.ones(1, 1, 64, 64),
                score__weight=torch.ones(2, 64),
            ),
            "model.layers.0.self_attn.k_scale, model.layers.1.self_attn.rotary_emb.cos_cached, "
            "model.layers.1.self_attn.v_proj.v_scale, score.weight",
        ),
        (
            "glm4_moe",
            _MOE | {"n_routed_experts": 2, "num_experts_per_tok": 1, "first_k_dense_replace": 0},
            _added(
                model__layers__46__enorm__weight=torch.ones(24), model__layers__46__eh_proj__weight=torch.ones(24, 48)
            ),
            "model.layers.46.eh_proj.weight, model.layers.46.enorm.weight",
        ),
    ],
    ids=["gpt2", "gpt_bigcode", "value head", "scales", "layer for prediction"],
)  # fmt: skip
def test_harmless_leftovers(
    tmp_path: Path, model_type: str, fields: dict[str, Any], change: Callable[[Tensors], None], words: str
) -> None:
    model = _model(model_type, **fields)
    _write(tmp_path, model, change)
    sources, lines = _resolve(tmp_path, model)
    assert lines == [f"{tmp_path}: ignored, as the model has no place for them: {words}"]
    _assert_values(sources, model)
    _assert_values(sources, AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32))


@pytest.mark.parametrize(
    ("name", "shape", "tied"),
    [
        ("model.layers.2.mlp.up_proj.weight", (96, 64), False),
        ("model.layers.0.self_attn.q_proj.lora_A.weight", (4, 64), False),
        ("model.layers.0.self_attn.q_proj.weight_zero", (64, 1), False),
        ("model.embed_tokens.modules_to_save.default.weight", (272, 64), False),
        ("output.weight", (272, 64), True),
    ],
)
def test_leftovers_that_may_be_meant(tmp_path: Path, name: str, shape: tuple[int, ...], tied: bool) -> None:
    model = _model("llama", tie_word_embeddings=tied)
    _write(tmp_path, model, _added(**{name.replace(".", "__"): torch.ones(shape)}))
    with pytest.raises(CheckpointError) as caught:
        _resolve(tmp_path, model)
    assert str(caught.value) == f"{tmp_path}: not the tensors of this LlamaForCausalLM: 1 unexpected: {name}"
    assert ("LoRA" in caught.value.hint) == ("lora" in name)


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe"])
def test_missing_experts_are_named(tmp_path: Path, kind: str) -> None:
    model = _model(kind, **_MOE, **({"num_local_experts": 3} if kind == "mixtral" else {"num_experts": 3}))
    gone: list[str] = []

    def drop(tensors: Tensors) -> None:
        down = "w2" if kind == "mixtral" else "down_proj"
        gone.extend(name for name in sorted(tensors) if "layers.1" in name and f"experts.1.{down}" in name)
        gone.extend(
            name for name in sorted(tensors) if "layers.0" in name and "experts" in name and f".{down}." in name
        )
        for name in gone:
            del tensors[name]

    _write(tmp_path, model, drop)
    with pytest.raises(CheckpointError) as caught:
        _resolve(tmp_path, model)
    text = str(caught.value)
    assert gone[0] in text
    assert "2 missing: model.layers.0.mlp.experts.down_proj, " in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda name: f"_orig_mod.{name}", "_orig_mod."),
        (lambda name: f"module.{name}", "module."),
        # transformers itself reads model.model.x as model.x.
        (lambda name: f"base_model.model.{name}", "base_model."),
        (lambda name: f"language_model.{name}", "language_model."),
        (lambda name: f"_orig_mod.module.{name}", "module., _orig_mod."),
        (lambda name: name.replace("model.", "model.language_model."), "model.language_model."),
        (lambda name: name.replace("model.layers.1.", "model.layers.1._orig_mod."), "_orig_mod."),
        (lambda name: f"any.{name.replace('.mlp.', '._fsdp_wrapped_module.mlp.')}", "any., _fsdp_wrapped_module."),
    ],
)
def test_prefixes_of_wrappers(tmp_path: Path, change: Callable[[str], str], words: str) -> None:
    model = _model("llama", tie_word_embeddings=words in ("module.", "_orig_mod."))

    def rename(tensors: Tensors) -> None:
        for name in list(tensors):
            tensors[change(name)] = tensors.pop(name)
        tensors["vision_tower.layers.0.mlp.up_proj.weight"] = torch.ones(7, 5)

    _write(tmp_path, model, rename)
    sources, lines = _resolve(tmp_path, model)
    _assert_values(sources, model)
    assert lines[0] == f"{tmp_path}: the names of tensors are read without {words}"
    loaded = model_from(tmp_path, torch.float32).state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded[name], tensor), name


def test_a_prefix_with_a_tensor_missing(tmp_path: Path) -> None:
    model = _model("llama")

    def rename(tensors: Tensors) -> None:
        for name in list(tensors):
            tensors[f"module.{name}"] = tensors.pop(name)
        del tensors["module.model.norm.weight"]

    _write(tmp_path, model, rename)
    with pytest.raises(CheckpointError, match=r"this LlamaForCausalLM: 1 missing: model\.norm\.weight$"):
        _resolve(tmp_path, model)


def test_two_models_in_one_checkpoint(tmp_path: Path) -> None:
    model = _model("llama")

    def double(tensors: Tensors) -> None:
        for name in list(tensors):
            tensors[f"ema.{name}"] = tensors[f"student.{name}"] = tensors.pop(name)

    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    double(tensors)
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"holds 2 models of this \w+, with the prefixes ema\., student\.$"):
        _resolve(tmp_path, model)


def test_a_checkpoint_without_the_model_is_reported_as_it_is(tmp_path: Path) -> None:
    config: PreTrainedConfig = tiny_llama_config()
    save_file({"a.b": torch.ones(2)}, tmp_path / "model.safetensors")
    config.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"21 missing: .*; 1 unexpected: a\.b$"):
        _resolve(tmp_path, _model("llama"))
