"""Safetensors headers, and where transformers' rules find each parameter."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models.tiny import tiny_llama_config, tiny_opt_config, write_checkpoint
from transformers import AutoModelForCausalLM

from hyperdex_ir.backend.checkpoint import matrix_type_for
from hyperdex_ir.checkpoint.files import Checkpoint, read_header
from hyperdex_ir.checkpoint.names import NameRules, SourceTensor, name_rules, resolve_sources
from hyperdex_ir.checkpoint.tensors import read
from hyperdex_ir.errors import CheckpointError
from hyperdex_ir.frontend.config import read_config
from hyperdex_ir.frontend.imported import canonical_names


def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """The bytes of a file with this header, which may lie about its length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(start: int, stop: int, shape: list[int] | None = None, dtype: str = "F16") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(stop - start) // 2] if shape is None else shape, "data_offsets": [start, stop]}


def test_reads_what_safetensors_writes(tmp_path: Path) -> None:
    tensors = {
        "half": torch.randn(5, 3).half(),
        "brain": torch.randn(4, 2).bfloat16(),
        "full": torch.randn(7),
        "scalar": torch.tensor(3.0),
        "none": torch.zeros(0, 4),
    }
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    checkpoint = Checkpoint(tmp_path)
    assert sorted(checkpoint.tensors) == sorted(tensors)
    for name in ("half", "full", "scalar", "none"):
        np.testing.assert_array_equal(checkpoint.read(name), tensors[name].numpy())
    bits = tensors["brain"].view(torch.uint16).numpy()
    np.testing.assert_array_equal(checkpoint.read("brain"), bits)
    np.testing.assert_array_equal(checkpoint.rows("brain", 1, 3), bits[1:3])
    np.testing.assert_array_equal(checkpoint.rows("half", 4, 5), tensors["half"].numpy()[4:5])
    assert checkpoint.rows("half", 2, 2).shape == (0, 3)
    with pytest.raises(IndexError):
        checkpoint.rows("half", 3, 6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes, too short"),
        (b"\x00" * 7, "7 bytes, too short"),
        (struct.pack("<Q", 2**63) + b"{}", "header of 9223372036854775808 bytes, file of 10: truncated"),
        (safetensors({}, length=3), "header of 3 bytes, file of 10: truncated"),
        (safetensors(b"{broken"), "header is not valid JSON"),
        (safetensors(b"\xff{}"), "header is not valid JSON"),
        (safetensors(b"[" * 50_000), "header is not valid JSON"),
        (safetensors(b"[]"), "not a JSON object"),
        (safetensors(b'{"a": 1, "a": 2}'), "header is not valid JSON: a stands twice in one object"),
        (safetensors({"a": 3}), "tensor a: not described by an object"),
        (safetensors({"a": tensor(0, 4, dtype="F12")}, b"\0" * 4), "tensor a: dtype 'F12' is not known"),
        (safetensors({"a": tensor(0, 4, dtype=["F16"])}, b"\0" * 4), "tensor a: dtype"),  # type: ignore[arg-type]
        (safetensors({"a": tensor(0, 4, [-2])}, b"\0" * 4), "tensor a: shape [-2], expected a list of sizes"),
        (safetensors({"a": tensor(0, 4, [2.0])}, b"\0" * 4), "tensor a: shape [2.0]"),  # type: ignore[list-item]
        (safetensors({"a": tensor(0, 4, ["a"] * 99)}, b"\0" * 4), "tensor a: shape ['a', 'a', "),  # type: ignore[list-item]
        (safetensors({"a": tensor(0, 4, [2**62] * 9)}, b"\0" * 4), "tensor a: 9 dimensions, the most is 8"),
        (safetensors({"a": tensor(0, 4, [1] * 40_000)}, b"\0" * 4), "tensor a: 40000 dimensions, the most is 8"),
        (safetensors({"a": tensor(0, 4) | {"data_offsets": [0] * 99}}, b"\0" * 4), "a: data_offsets [0, 0, "),
        (safetensors({"a": tensor(0, 4, dtype="F" * 999)}, b"\0" * 4), "tensor a: dtype 'FFFFF"),
        (safetensors({"a": {"dtype": "F16", "shape": [2]}}, b"\0" * 4), "data_offsets None, expected two byte numbers"),
        (safetensors({"a": tensor(4, 0, [2])}, b"\0" * 4), "bytes 4 to 0, but [2] of F16 takes 4 bytes"),
        (safetensors({"a": tensor(0, 4, [3])}, b"\0" * 4), "bytes 0 to 4, but [3] of F16 takes 6 bytes"),
        (safetensors({"a": tensor(0, 4, [2**40, 2**40])}, b"\0" * 4), "takes"),
        (safetensors({"a": tensor(0, 8)}, b"\0" * 6), "truncated: tensor a ends at byte"),
        (safetensors({"a": tensor(0, 4), "b": tensor(2, 6)}, b"\0" * 6), "tensors a and b overlap"),
        (safetensors({"a": tensor(0, 4), "b": tensor(6, 8)}, b"\0" * 8), "belong to no tensor"),
        (safetensors({"a": tensor(2, 4)}, b"\0" * 4), "belong to no tensor"),
        (safetensors({"a": tensor(0, 4)}, b"\0" * 9), "belong to no tensor"),
    ],
)
def test_hostile_headers(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 300


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(3, 4), "b": torch.ones(2)}, path)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError):
            read_header(path)


def test_a_file_that_shrinks_after_its_header_was_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(3, 4)}, path)
    checkpoint = Checkpoint(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="truncated: tensor a"):
        checkpoint.read("a")
    path.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.read("a")


def test_no_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"neither model.safetensors nor model.safetensors.index.json"):
        Checkpoint(tmp_path)
    (tmp_path / "weights.bin").touch()
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(tmp_path)
    assert caught.value.hint.startswith("weights.bin: files in torch's format are read by the name pytorch_model.bin")


def test_shards(tmp_path: Path) -> None:
    write_checkpoint(tiny_llama_config(), tmp_path, max_shard_size="60KB")
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 2
    expected = {name: value for file in files for name, value in load_file(file).items()}
    checkpoint = Checkpoint(tmp_path)
    assert sorted(checkpoint.tensors) == sorted(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(checkpoint.read(name), value.numpy())


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "no weight_map"),
        ({"weight_map": []}, "no weight_map"),
        ({"weight_map": {"a": "../a.safetensors"}}, "expected a safetensors file beside the index"),
        ({"weight_map": {"a": 3}}, "expected a safetensors file beside the index"),
        ({"weight_map": {"a": "b.safetensors"}}, "b.safetensors: no such file"),
        ({"weight_map": {"b": "a.safetensors"}}, "a.safetensors: no tensor b"),
        ({"weight_map": {"a": "a.safetensors", "c": "c.safetensors"}}, "tensor a is also in a.safetensors"),
    ],
)
def test_broken_indices(tmp_path: Path, index: Any, message: str) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    save_file({"a": torch.ones(2), "c": torch.ones(2)}, tmp_path / "c.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "expected"), [("float16", "f16"), ("bfloat16", "bf16"), ("float32", "f16"), ("float64", "f16")]
)
def test_matrix_type(tmp_path: Path, dtype: str, expected: str) -> None:
    write_checkpoint(tiny_opt_config(), tmp_path, dtype)
    assert matrix_type_for(Checkpoint(tmp_path), read_config(tmp_path)) == expected


def test_matrix_type_of_no_embedding(tmp_path: Path) -> None:
    write_checkpoint(tiny_llama_config(), tmp_path)
    edit(tmp_path, lambda tensors: tensors.pop("model.embed_tokens.weight"))
    with pytest.raises(CheckpointError, match="no token embedding"):
        matrix_type_for(Checkpoint(tmp_path), read_config(tmp_path))


def edit(directory: Path, change: Any) -> None:
    """Rewrites the checkpoint's tensors."""
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})


def rules_of(directory: Path) -> NameRules:
    from transformers import AutoConfig

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory))
    return name_rules(model, canonical_names(model))


def report_of(directory: Path) -> dict[str, list[str]]:
    """What transformers itself finds wrong."""
    _, report = AutoModelForCausalLM.from_pretrained(
        directory, output_loading_info=True, ignore_mismatched_sizes=True, dtype=torch.float32
    )
    return {
        "missing": sorted(report["missing_keys"]),
        "misshaped": sorted(name for name, *_ in report["mismatched_keys"]),
        "unexpected": sorted(report["unexpected_keys"]),
    }


def rename(prefix: str, new: str) -> Any:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            if name.startswith(prefix):
                tensors[new + name.removeprefix(prefix)] = tensors.pop(name)

    return change


@pytest.mark.parametrize("prefix", ["model.decoder.", "decoder."])
def test_opt_prefixes(tmp_path: Path, prefix: str) -> None:
    write_checkpoint(tiny_opt_config(), tmp_path)
    edit(tmp_path, rename("model.decoder.", prefix))
    assert report_of(tmp_path) == {"missing": [], "misshaped": [], "unexpected": []}
    sources = resolve_sources(rules_of(tmp_path), Checkpoint(tmp_path))
    key = "model.decoder.layers.1.self_attn.q_proj.weight"
    assert sources[key] == SourceTensor(key, (64, 64), (f"{prefix}layers.1.self_attn.q_proj.weight",))
    assert sources["model.decoder.embed_tokens.weight"].checkpoint_keys == (f"{prefix}embed_tokens.weight",)
    assert "lm_head.weight" not in sources


def test_base_model_checkpoint_of_tied_llama(tmp_path: Path) -> None:
    write_checkpoint(tiny_llama_config(tie_word_embeddings=True), tmp_path)
    edit(tmp_path, rename("model.", ""))
    assert report_of(tmp_path) == {"missing": [], "misshaped": [], "unexpected": []}
    sources = resolve_sources(rules_of(tmp_path), Checkpoint(tmp_path))
    assert sources["model.norm.weight"].checkpoint_keys == ("norm.weight",)
    assert len(sources) == 20


def test_only_the_head_of_tied_parameters_is_stored(tmp_path: Path) -> None:
    write_checkpoint(tiny_llama_config(tie_word_embeddings=True), tmp_path)
    edit(tmp_path, rename("model.embed_tokens", "lm_head"))
    assert report_of(tmp_path) == {"missing": [], "misshaped": [], "unexpected": []}
    sources = resolve_sources(rules_of(tmp_path), Checkpoint(tmp_path))
    assert sources["model.embed_tokens.weight"].checkpoint_keys == ("lm_head.weight",)
    assert matrix_type_for(Checkpoint(tmp_path), read_config(tmp_path)) == "f16"


def test_tied_parameters_stored_twice(tmp_path: Path) -> None:
    write_checkpoint(tiny_opt_config(), tmp_path)
    embedding = "model.decoder.embed_tokens.weight"
    edit(tmp_path, lambda tensors: tensors.update({"lm_head.weight": tensors[embedding].clone()}))
    sources = resolve_sources(rules_of(tmp_path), Checkpoint(tmp_path))
    assert sources[embedding].checkpoint_keys == (embedding,)
    edit(tmp_path, lambda tensors: tensors.update({"lm_head.weight": tensors[embedding] + 1}))
    tensor = resolve_sources(rules_of(tmp_path), Checkpoint(tmp_path))[embedding].tensor
    assert tensor is not None
    with pytest.raises(CheckpointError, match="hold different values") as caught:
        read(tensor)
    assert "tie_word_embeddings" in caught.value.hint


def test_buffers_of_old_checkpoints_are_ignored(tmp_path: Path) -> None:
    write_checkpoint(tiny_llama_config(), tmp_path)
    old = "model.layers.0.self_attn.rotary_emb.inv_freq"
    edit(tmp_path, lambda tensors: tensors.update({old: torch.ones(8)}))
    assert report_of(tmp_path)["unexpected"] == []
    assert len(resolve_sources(rules_of(tmp_path), Checkpoint(tmp_path))) == 21


def test_what_transformers_reports_is_an_error(tmp_path: Path) -> None:
    write_checkpoint(tiny_llama_config(), tmp_path)

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["lm_head.weight"], tensors["model.layers.1.mlp.up_proj.weight"]
        tensors["model.norm.weight"] = torch.ones(63)
        tensors["model.layers.0.self_attn.o_proj.weight"] = torch.ones(64, 32)
        tensors["model.layers.7.mlp.up_proj.weight"] = torch.ones(3)
        tensors["something.else"] = torch.ones(3)

    edit(tmp_path, spoil)
    assert report_of(tmp_path) == {
        "missing": ["lm_head.weight", "model.layers.1.mlp.up_proj.weight"],
        "misshaped": ["model.layers.0.self_attn.o_proj.weight", "model.norm.weight"],
        "unexpected": ["model.layers.7.mlp.up_proj.weight", "something.else"],
    }
    with pytest.raises(CheckpointError) as caught:
        resolve_sources(rules_of(tmp_path), Checkpoint(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path}: not the tensors of this LlamaForCausalLM: "
        "2 missing: model.layers.1.mlp.up_proj.weight, lm_head.weight; "
        "2 misshaped: model.layers.0.self_attn.o_proj.weight is [64, 32], expected [64, 64], "
        "model.norm.weight is [63], expected [64]; "
        "2 unexpected: model.layers.7.mlp.up_proj.weight, something.else"
    )


def test_integers_are_no_weights(tmp_path: Path) -> None:
    write_checkpoint(tiny_llama_config(), tmp_path)
    edit(tmp_path, lambda tensors: tensors.update({"lm_head.weight": torch.ones(272, 64, dtype=torch.int8)}))
    with pytest.raises(CheckpointError, match="is stored as I8, expected F16, BF16, F32, F64"):
        resolve_sources(rules_of(tmp_path), Checkpoint(tmp_path))
