"""Quantized weights that config.json does not mention, and a mention of a quantization that the weights do not have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models.tiny import tiny_llama_config, write_checkpoint
from transformers import AutoModelForCausalLM

from hyperdex_ir.backend.checkpoint import matrix_type_for
from hyperdex_ir.checkpoint.dequantize import open_checkpoint
from hyperdex_ir.checkpoint.names import NameRules, name_rules, resolve_sources
from hyperdex_ir.checkpoint.pretrained import model_from
from hyperdex_ir.errors import CheckpointError, UnsupportedModelError
from hyperdex_ir.frontend.config import read_config
from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.tools import AutoCompiler

NAME = "model.layers.0.mlp.up_proj"
GPTQ = {"quant_method": "gptq", "bits": 4}


def _write(folder: Path, change: dict[str, torch.Tensor | None], **config: Any) -> None:
    write_checkpoint(tiny_llama_config(), folder)
    file = folder / "model.safetensors"
    tensors = {**load_file(file), **change}
    save_file({name: one for name, one in tensors.items() if one is not None}, file, {"format": "pt"})
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(written | config))


def _rules() -> NameRules:
    with torch.device("meta"):
        return name_rules(AutoModelForCausalLM.from_config(tiny_llama_config()), {})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {f"{NAME}.weight": torch.ones(96, 64, dtype=torch.int8), f"{NAME}.SCB": torch.ones(96)},
            f"{NAME}.weight is stored as I8, expected F16, BF16, F32, F64: 8-bit weights of bitsandbytes",
        ),
        (
            {f"{NAME}.weight": torch.ones(96, 64).to(torch.float8_e4m3fn)},
            f"{NAME}.weight is stored as F8_E4M3, expected F16, BF16, F32, F64: 8-bit floats (F8_E4M3)",
        ),
        (
            {"model.embed_tokens.weight": torch.ones(272, 64).to(torch.float8_e5m2)},
            "model.embed_tokens.weight is stored as F8_E5M2, expected F16, BF16, F32, F64: 8-bit floats (F8_E5M2)",
        ),
    ],
    ids=["bitsandbytes", "fp8", "fp8 embedding"],
)
def test_quantized_weights_without_a_config(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    _write(tmp_path, change)
    find = matrix_type_for if "embed" in words else lambda checkpoint, _: resolve_sources(_rules(), checkpoint)
    with pytest.raises(CheckpointError) as caught:
        find(open_checkpoint(tmp_path), read_config(tmp_path))
    assert words in str(caught.value)
    assert caught.value.hint == "take the checkpoint as it was before it was quantized"


def test_packed_weights_without_a_config(tmp_path: Path) -> None:
    _write(tmp_path, {f"{NAME}.weight": None, f"{NAME}.qweight": torch.ones(8, 96, dtype=torch.int32)})
    with pytest.raises(CheckpointError, match=rf"1 missing: {NAME}\.weight; 1 unexpected: {NAME}\.qweight$") as caught:
        resolve_sources(_rules(), open_checkpoint(tmp_path))
    assert caught.value.hint.startswith("these are packed weights, as of GPTQ, AWQ")


@pytest.mark.parametrize("is_there", [False, True])
def test_weights_that_are_not_dense_or_not_there(tmp_path: Path, is_there: bool) -> None:
    _write(tmp_path, {f"{NAME}.qweight": torch.ones(8, 96, dtype=torch.int32)}, quantization_config=GPTQ)
    if not is_there:
        (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UnsupportedModelError, match="weights quantized by gptq are not supported"):
        read_config(tmp_path)


@pytest.mark.parametrize("given", [GPTQ, {"quant_method": "fp8"}, {"load_in_8bit": True}])
def test_a_config_over_dense_weights_is_left_over(tmp_path: Path, given: dict[str, Any]) -> None:
    _write(tmp_path, {}, quantization_config=given)
    assert read_config(tmp_path).layers == 2
    tensors = load_file(tmp_path / "model.safetensors")
    assert sorted(open_checkpoint(tmp_path).tensors) == sorted(tensors)
    loaded = model_from(tmp_path, torch.float16).state_dict()
    assert all(torch.equal(loaded[name], one) for name, one in tensors.items())


@pytest.mark.slow
def test_dense_weights_compile(tmp_path: Path, capsys) -> None:
    _write(tmp_path / "plain", {})
    _write(tmp_path / "left", {}, quantization_config=GPTQ)
    for name in ("plain", "left"):
        AutoCompiler().compile(str(tmp_path / name), max_length=8)
    line = "Read dense: the weights are not quantized, although config.json has a quantization_config"
    assert capsys.readouterr().err.count(f"[ INFO ] : {line}\n") == 1
    first, second = (CompiledModel.open(tmp_path / name).logits([1, 2]) for name in ("plain", "left"))
    assert first.tobytes() == second.tobytes()
