"""Checkpoints that hold both of two parameters that config.json ties: tied where they are equal, as in transformers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models.tiny import tiny_llama_config, write_checkpoint
from transformers import AutoModelForCausalLM

from hyperdex_ir.checkpoint.files import Checkpoint
from hyperdex_ir.checkpoint.names import name_rules, resolve_sources
from hyperdex_ir.checkpoint.tensors import read
from hyperdex_ir.checkpoint.tied import stored_apart
from hyperdex_ir.frontend.imported import canonical_names
from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.tools import AutoCompiler

NAMES = "embed_tokens.weight", "lm_head.weight"
EMBEDDING, HEAD = f"model.{NAMES[0]}", NAMES[1]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_checkpoint(tiny_llama_config(tie_word_embeddings=True), tmp_path / "model", "float16")


def _store(model: Path, embedding: torch.Tensor, head: torch.Tensor) -> None:
    file = model / "model.safetensors"
    save_file({**load_file(file), EMBEDDING: embedding, HEAD: head}, file, {"format": "pt"})


def _embedding(model: Path) -> torch.Tensor:
    return load_file(model / "model.safetensors")[EMBEDDING]


@pytest.mark.parametrize("is_first", [False, True])
@pytest.mark.parametrize("other", [torch.float16, torch.float32, torch.float64])
def test_equal_values_of_any_type_are_tied(model: Path, other: torch.dtype, is_first: bool) -> None:
    values = _embedding(model)
    pair = values.clone(), values.to(other)
    _store(model, *(pair[::-1] if is_first else pair))
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float16)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    checkpoint = Checkpoint(model)
    assert stored_apart(checkpoint, NAMES, "f16") is None
    tensor = resolve_sources(name_rules(loaded, canonical_names(loaded)), checkpoint, matrix_type="f16")[
        EMBEDDING
    ].tensor
    assert tensor is not None
    np.testing.assert_array_equal(read(tensor).astype(np.float16), values.numpy())


def test_values_apart_by_less_than_the_rounding_are_tied(model: Path) -> None:
    values = _embedding(model)
    _store(model, values, values.float() * (1 + 2.0**-14))
    assert stored_apart(Checkpoint(model), NAMES, "f16") is None
    assert stored_apart(Checkpoint(model), NAMES, "f32") == (EMBEDDING, HEAD)
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float16)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight


@pytest.mark.slow
def test_different_values_are_not_tied(model: Path, capsys) -> None:
    values = _embedding(model)
    head = values.clone()
    head[-1, -1] += 1
    _store(model, values, head)
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float16)
    assert torch.equal(loaded.lm_head.weight, head)
    assert torch.equal(loaded.model.embed_tokens.weight, values)
    AutoCompiler().compile(str(model), max_length=8)
    line = f"Not tied: config.json ties {EMBEDDING} and {HEAD}, which hold different values in the checkpoint; "
    assert f"[ INFO ] : {line}set tie_word_embeddings to false there\n" in capsys.readouterr().err
    AutoCompiler().compile(str(model), max_length=8, num_device=2)  # from the converted checkpoint
    logits = [CompiledModel.open(model, num_device=number).logits([1, 2, 3]) for number in (1, 2)]
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    AutoCompiler().compile(str(model), max_length=8)
    expected = CompiledModel.open(model).logits([1, 2, 3])
    for found in logits:
        np.testing.assert_array_equal(found, expected)
