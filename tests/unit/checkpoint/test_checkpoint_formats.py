"""Checkpoints in torch's format, experts stored one by one, and quantized weights, each as transformers reads them."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models.resident import mapped_bytes, needs_proc
from support.models.tiny import tiny_llama_config, write_checkpoint
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations.finegrained_fp8 import Fp8Dequantize
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from hyperdex_ir.checkpoint import torch_weights
from hyperdex_ir.checkpoint.dequantize import open_checkpoint
from hyperdex_ir.checkpoint.files import Checkpoint
from hyperdex_ir.checkpoint.names import name_rules, resolve_sources
from hyperdex_ir.checkpoint.tensors import ByColumns, Transposed, read
from hyperdex_ir.errors import CheckpointError, ConfigError, UnsupportedModelError
from hyperdex_ir.frontend.config import check_config
from hyperdex_ir.frontend.imported import canonical_names
from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.tools import AutoCompiler


def bits(tensor: torch.Tensor) -> np.ndarray:
    """The elements as Checkpoint gives them."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


# ------------------------------------------------------------------------------------------------- torch's own format
def as_torch_files(directory: Path, shards: int, legacy: bool = False) -> dict[str, torch.Tensor]:
    """Rewrites a checkpoint's safetensors as files in torch's format; gives the tensors."""
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    names = sorted(tensors)
    if shards == 1:
        torch.save(tensors, directory / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)
        return tensors
    weight_map = {}
    for shard in range(shards):
        file = f"pytorch_model-{shard + 1:05}-of-{shards:05}.bin"
        torch.save({name: tensors[name] for name in names[shard::shards]}, directory / file)
        weight_map |= dict.fromkeys(names[shard::shards], file)
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return tensors


@pytest.mark.slow
@pytest.mark.parametrize(("shards", "legacy"), [(1, False), (1, True), (3, False)])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_torch_files_compile_to_the_same_model(tmp_path: Path, dtype: str, shards: int, legacy: bool) -> None:
    write_checkpoint(tiny_llama_config(), tmp_path / "a", dtype)
    write_checkpoint(tiny_llama_config(), tmp_path / "b", dtype)
    tensors = as_torch_files(tmp_path / "b", shards, legacy)
    checkpoint = Checkpoint(tmp_path / "b")
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(checkpoint.read(name), bits(tensor))
        np.testing.assert_array_equal(checkpoint.rows(name, 3, 7), bits(tensor[3:7]))
        if tensor.dim() == 2:
            matrix = checkpoint.tensors[name]
            assert isinstance(matrix, ByColumns)
            np.testing.assert_array_equal(matrix.columns(3, 7), bits(tensor[:, 3:7]))
    compiled = [AutoCompiler().compile(str(tmp_path / name), max_length=9) for name in ("a", "b")]
    first, second = (files.model for files in compiled)
    assert first is not None
    assert second is not None
    assert first.read_bytes() == second.read_bytes()
    assert not list((tmp_path / "b").glob("*.safetensors"))


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("is_turned", [False, True])
def test_reading_torch_files_takes_memory_for_some_rows_only(tmp_path: Path, is_turned: bool) -> None:
    rows, limit = 64, 8 << 20
    values = torch.arange(1 << 23, dtype=torch.int32).reshape(1 << 10, -1)  # 32 MiB
    torch.save({"a": values.T if is_turned else values}, tmp_path / "pytorch_model.bin")
    tensor = Checkpoint(tmp_path).tensors["a"]
    before, most = mapped_bytes(), 0
    for start in range(0, tensor.shape[0], rows):
        expected = (values.T if is_turned else values)[start : start + rows].numpy()
        np.testing.assert_array_equal(tensor.rows(start, start + rows), expected)
        most = max(most, mapped_bytes() - before)
    assert most < limit
    output = torch_weights.rewrite(tmp_path / "pytorch_model.bin", tmp_path)
    assert mapped_bytes() - before < limit
    np.testing.assert_array_equal(load_file(output)["a"].numpy(), (values.T if is_turned else values).numpy())


class Runs:
    def __reduce__(self) -> Any:
        return eval, ("1 / 0",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"a": Runs()}, 2), "pytorch_model.bin: holds __builtin__.eval, which no checkpoint of tensors"),
        (pickle.dumps({"a": Runs()}, 5), "pytorch_model.bin: is not made of tensors only"),
        (b"nothing of the kind", "pytorch_model.bin: "),
        (b"", "pytorch_model.bin: "),
    ],
    ids=["protocol 2", "protocol 5", "no pickle", "empty"],
)
def test_a_pickle_that_wants_to_run_code(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_torch_file_that_wants_to_run_code(tmp_path: Path) -> None:
    torch.save({"a": Runs()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: holds [\w.]*eval, which no checkpoint"):
        Checkpoint(tmp_path)


# --------------------------------------------------------------------------------------------- experts one by one
MOE = {
    "hidden_size": 24, "intermediate_size": 18, "moe_intermediate_size": 10, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 30, "head_dim": 12,
}  # fmt: skip


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        ("mixtral", {"num_local_experts": 11}),
        ("qwen2_moe", {"num_experts": 11, "shared_expert_intermediate_size": 6}),
        ("qwen3_moe", {"num_experts": 5}),
        ("deepseek_v3", {"n_routed_experts": 6, "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2,
                         "first_k_dense_replace": 1}),
    ],
)  # fmt: skip
def test_merged_experts_equal_transformers(tmp_path: Path, model_type: str, fields: dict[str, Any]) -> None:
    config = AutoConfig.for_model(model_type, **MOE, **fields)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(tmp_path)
    assert any("experts.10." in name or "experts.4." in name for name in load_file(tmp_path / "model.safetensors"))
    expected = AutoModelForCausalLM.from_pretrained(tmp_path).state_dict()
    sources = resolve_sources(name_rules(model, canonical_names(model)), Checkpoint(tmp_path))
    assert sources.keys() == expected.keys()
    for key, source in sources.items():
        assert source.tensor is not None
        np.testing.assert_array_equal(read(source.tensor), expected[key].numpy(), key)
        for row in range(len(expected[key])):
            np.testing.assert_array_equal(source.tensor.rows(row, row + 1), expected[key].numpy()[row : row + 1], key)


def test_experts_that_are_missing_or_differ(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("mixtral", **MOE), dtype=torch.float32)
    model.save_pretrained(tmp_path)
    rules, file = name_rules(model, canonical_names(model)), tmp_path / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if "experts.3." in name)
    save_file({other: tensor for other, tensor in tensors.items() if other != name}, file)
    with pytest.raises(CheckpointError, match=f"1 missing: {re.escape(name)}$"):
        resolve_sources(rules, Checkpoint(tmp_path))
    save_file(tensors | {name: torch.ones(3, 5)}, file)
    with pytest.raises(CheckpointError, match="differ in shape or type"):
        resolve_sources(rules, Checkpoint(tmp_path))


# ------------------------------------------------------------------------------------------------- quantized weights
def write_quantized(directory: Path, tensors: dict[str, torch.Tensor], **quantization: Any) -> Checkpoint:
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps({"quantization_config": quantization}))
    return open_checkpoint(directory)


def test_mxfp4_equals_transformers(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randint(0, 256, (3, 10, 2, 16), generator=generator, dtype=torch.uint8)
    scales = torch.randint(100, 150, (3, 10, 2), generator=generator, dtype=torch.uint8)
    plain = torch.randn(4, 2).bfloat16()
    checkpoint = write_quantized(
        tmp_path, {"x.down_proj_blocks": blocks, "x.down_proj_scales": scales, "y": plain}, quant_method="mxfp4"
    )
    assert sorted(checkpoint.tensors) == ["x.down_proj", "y"]
    expected = convert_moe_packed_tensors(blocks, scales)
    assert checkpoint.tensors["x.down_proj"].shape == tuple(expected.shape) == (3, 64, 10)
    np.testing.assert_array_equal(checkpoint.read("x.down_proj"), bits(expected))
    np.testing.assert_array_equal(checkpoint.rows("x.down_proj", 1, 2), bits(expected[1:2]))
    np.testing.assert_array_equal(checkpoint.read("y"), bits(plain))


@pytest.mark.parametrize("scale_type", [torch.float32, torch.bfloat16])
def test_fp8_equals_transformers(tmp_path: Path, scale_type: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(24, 20, generator=generator).mul(90).to(torch.float8_e4m3fn)
    weight[:3] = torch.arange(60).reshape(3, 20).to(torch.uint8).view(torch.float8_e4m3fn)
    scale = torch.rand(3, 4, generator=generator).to(scale_type)
    checkpoint = write_quantized(
        tmp_path, {"w": weight, "w_scale_inv": scale}, quant_method="fp8", weight_block_size=[8, 5]
    )
    assert list(checkpoint.tensors) == ["w"]
    expected = Fp8Dequantize(None)._dequantize_one(weight, scale, torch.bfloat16)
    np.testing.assert_array_equal(checkpoint.read("w"), bits(expected))
    for start, stop in ((0, 1), (7, 9), (5, 23)):
        np.testing.assert_array_equal(checkpoint.rows("w", start, stop), bits(expected[start:stop]))


def test_fp8_with_blocks_that_are_not_full(tmp_path: Path) -> None:
    """As DeepSeek-V3 stores 576 rows in blocks of 128; transformers 5.23 refuses those."""
    weight = torch.randn(13, 11).to(torch.float8_e4m3fn)
    scale = torch.rand(2, 3)
    checkpoint = write_quantized(
        tmp_path, {"w": weight, "w_scale_inv": scale}, quant_method="fp8", weight_block_size=[8, 5]
    )
    each = scale.repeat_interleave(8, 0).repeat_interleave(5, 1)[:13, :11]
    np.testing.assert_array_equal(checkpoint.read("w"), bits((weight.float() * each).bfloat16()))


@pytest.mark.parametrize(
    ("tensors", "quantization", "message"),
    [
        ({"a_blocks": (2, 3, 1, 16)}, {"quant_method": "mxfp4"}, "a_blocks .* has no a_scales that fits it"),
        (
            {"a_blocks": (2, 3, 1, 16), "a_scales": (2, 3, 2)},
            {"quant_method": "mxfp4"},
            "a_blocks .* has no a_scales that fits it",
        ),
    ],
)
def test_incomplete_mxfp4(tmp_path: Path, tensors: dict[str, Any], quantization: dict[str, Any], message: str) -> None:
    made = {name: torch.zeros(shape, dtype=torch.uint8) for name, shape in tensors.items()}
    with pytest.raises(CheckpointError, match=message):
        write_quantized(tmp_path, made, **quantization)


def test_incomplete_fp8(tmp_path: Path) -> None:
    weight = torch.zeros(4, 4).to(torch.float8_e4m3fn)
    block = {"quant_method": "fp8", "weight_block_size": [2, 2]}
    for others in ({}, {"w_scale_inv": torch.zeros(1, 2)}):
        with pytest.raises(CheckpointError, match=r"w \[4, 4\] has no w_scale_inv of \[2, 2\]"):
            write_quantized(tmp_path, {"w": weight, **others}, **block)


@pytest.mark.parametrize(
    ("quantization", "error", "message"),
    [
        ({"quant_method": "gptq", "bits": 4}, UnsupportedModelError, "weights quantized by gptq are not supported"),
        ({"quant_method": "awq"}, UnsupportedModelError, "weights quantized by awq are not supported"),
        ({"load_in_4bit": True}, ConfigError, "no quant_method"),
        ([1], ConfigError, "no quant_method"),
        ({"quant_method": "fp8"}, UnsupportedModelError, "fp8 without weight_block_size"),
        ({"quant_method": "fp8", "fmt": "e5m2"}, UnsupportedModelError, "fmt e5m2 is not supported"),
        ({"quant_method": "fp8", "weight_block_size": [0, 128]}, ConfigError, r"weight_block_size is \[0, 128\]"),
        ({"quant_method": "fp8", "weight_block_size": 128}, ConfigError, "weight_block_size is 128"),
    ],
)
def test_phase_0_names_the_method(quantization: Any, error: type[Exception], message: str) -> None:
    config = tiny_llama_config().to_dict() | {"quantization_config": quantization}
    with pytest.raises(error, match=message):
        check_config(config, "config.json")


@pytest.mark.parametrize("memory", [1, 50, 10_000])
def test_a_matrix_the_other_way_round(memory: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("hyperdex_ir.checkpoint.tensors._TURNED_BYTES", memory)
    matrix = np.arange(7 * 13, dtype=np.float32).reshape(7, 13)
    save_file({"w": torch.from_numpy(matrix), "number": torch.tensor(5.0)}, tmp_path / "model.safetensors")
    checkpoint = Checkpoint(tmp_path)
    turned = Transposed(checkpoint.tensors["w"])
    assert (turned.shape, turned.names) == ((13, 7), ("w",))
    np.testing.assert_array_equal(np.concatenate([turned.rows(0, 5), turned.rows(5, 13)]), matrix.T)
    assert read(checkpoint.tensors["number"]).tolist() == [5]


@pytest.mark.slow
def test_a_snapshot_of_a_cache_is_read_through_its_links(tmp_path: Path) -> None:
    """As huggingface_hub keeps a model: a folder of links into another."""
    plain = write_checkpoint(tiny_llama_config(), tmp_path / "plain")
    snapshot, blobs = tmp_path / "models--o--n/snapshots/0a", tmp_path / "models--o--n/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(plain.iterdir())):
        (blobs / f"{number:040x}").write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(f"../../blobs/{number:040x}")
    kept = {path: path.read_bytes() for path in blobs.iterdir()}
    for folder in (plain, snapshot):
        AutoCompiler().compile(str(folder), max_length=16)
    expected, found = (CompiledModel.open(folder).logits([1, 2, 3]) for folder in (plain, snapshot))
    assert found.tobytes() == expected.tobytes()
    assert {path: path.read_bytes() for path in blobs.iterdir()} == kept
    assert (snapshot / "model.safetensors").is_symlink()
