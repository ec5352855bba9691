"""Quantized checkpoints compile to the bytes of those that transformers' own dequantization gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models.architectures import CASES, write_case
from transformers.integrations.finegrained_fp8 import Fp8Dequantize
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.tools import AutoCompiler

Tensors = dict[str, torch.Tensor]
BLOCK = (16, 12)


def _mxfp4(tensors: Tensors, generator: torch.Generator) -> tuple[Tensors, Tensors]:
    """(quantized, plain) tensors of a gpt-oss: the matrices of its experts."""
    quantized, plain = dict(tensors), dict(tensors)
    for name in [name for name in tensors if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        experts, inputs, outputs = quantized.pop(name).shape
        blocks = torch.randint(0, 256, (experts, outputs, inputs // 32, 16), generator=generator, dtype=torch.uint8)
        scales = torch.randint(122, 126, blocks.shape[:3], generator=generator, dtype=torch.uint8)
        quantized |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        plain[name] = convert_moe_packed_tensors(blocks, scales)
    return quantized, plain


def _fp8(tensors: Tensors, generator: torch.Generator) -> tuple[Tensors, Tensors]:
    """(quantized, plain) tensors of a DeepSeek-V3: all matrices of whole blocks but embedding, head and routers."""
    quantized, plain = dict(tensors), dict(tensors)
    for name, tensor in tensors.items():
        whole = tensor.dim() == 2 and not (tensor.shape[0] % BLOCK[0] or tensor.shape[1] % BLOCK[1])
        if not whole or "embed" in name or "lm_head" in name or "mlp.gate.weight" in name:
            continue
        scale = 0.5 + torch.rand(tensor.shape[0] // BLOCK[0], tensor.shape[1] // BLOCK[1], generator=generator)
        quantized[name] = tensor.to(torch.float8_e4m3fn)
        quantized[f"{name}_scale_inv"] = scale
        plain[name] = Fp8Dequantize(None)._dequantize_one(quantized[name], scale, torch.bfloat16)
    assert sum(name.endswith("_scale_inv") for name in quantized) > 8
    return quantized, plain


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fields", "quantize", "quantization"),
    [
        ("gpt_oss", {"hidden_size": 96, "intermediate_size": 64}, _mxfp4, {"quant_method": "mxfp4"}),
        (
            "deepseek_v3",
            {"hidden_size": 108, "intermediate_size": 144, "moe_intermediate_size": 48},
            _fp8,
            {"quant_method": "fp8", "weight_block_size": list(BLOCK)},
        ),
    ],
)
def test_compiles_to_what_it_stands_for(
    name: str,
    fields: dict[str, Any],
    quantize: Callable[[Tensors, torch.Generator], tuple[Tensors, Tensors]],
    quantization: dict[str, Any],
    tmp_path: Path,
) -> None:
    case = replace(CASES[name], fields=CASES[name].fields | fields, dtype="bfloat16")
    folders = [write_case(case, tmp_path / kind, 0) for kind in ("quantized", "plain")]
    made = quantize(load_file(folders[0] / "model.safetensors"), torch.Generator().manual_seed(0))
    for folder, tensors in zip(folders, made, strict=True):
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folders[0] / "config.json").read_text()) | {"quantization_config": quantization}
    (folders[0] / "config.json").write_text(json.dumps(config))
    models = []
    for folder in folders:
        files = AutoCompiler().compile(str(folder), max_length=24)
        assert files.model is not None
        assert files.matrix_type == "bf16"
        models.append(files.model.read_bytes())
    assert models[0] == models[1]
    logits = CompiledModel.open(folders[0]).logits([1, 2, 3])
    assert logits.std() > 0.5
