"""Safetensors headers, and where transformers' rules find each parameter."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models.tiny import tiny_llama_config, tiny_opt_config, write_checkpoint
from transformers import AutoModelForCausalLM

from hyperdex_ir.backend.checkpoint import matrix_type_for, small_files
from hyperdex_ir.backend.sources import SourceWatch, is_unchanged
from hyperdex_ir.checkpoint.files import Checkpoint, read_header, weight_files
from hyperdex_ir.checkpoint.gguf_header import architecture_of
from hyperdex_ir.checkpoint.names import NameRules, SourceTensor, name_rules, resolve_sources
from hyperdex_ir.checkpoint.tensors import read
from hyperdex_ir.errors import CheckpointError, ConfigError
from hyperdex_ir.frontend.config import read_config
from hyperdex_ir.frontend.imported import canonical_names
from hyperdex_ir.support.locations import find_folder


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


@pytest.mark.parametrize(
    ("files", "words", "hint"),
    [
        (["weights.bin"], "weights.bin", "if weights.bin is the whole model, rename it to pytorch_model.bin"),
        (["model.fp16.safetensors"], "model.fp16.safetensors", "rename it to model.safetensors"),
        (["consolidated.safetensors"], "consolidated.safetensors", "take the checkpoint that is published for"),
        (["original/consolidated.00.pth", "params.json"], "original/consolidated.00.pth", "convert them to the format"),
        (["model.pt", "README.md"], "model.pt", "convert them to the format"),
        (
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
            "model-00001-of-00002.safetensors, model-00002-of-00002.safetensors",
            "the index of the files is missing: download model.safetensors.index.json",
        ),
        (["hf/model.safetensors"], "hf/model.safetensors", "the folder hf in it holds weights: give that folder"),
        (["ckpt/hyperdex_model.bin", "param/param_1lpu_00_00.bin", "config.json"], "", ""),
    ],
)
def test_weights_by_other_names(tmp_path: Path, files: list[str], words: str, hint: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(tmp_path)
    end = f"or its index; there are other weights: {words}" if words else "or its index"
    assert str(caught.value).endswith(end)
    assert hint in caught.value.hint


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.safetensors.index.json"])
def test_a_pointer_of_git_lfs(tmp_path: Path, name: str) -> None:
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 538090408\n"
    (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match=f"{name}: is a pointer of Git LFS, not the file itself$") as caught:
        Checkpoint(tmp_path)
    assert "git lfs pull" in caught.value.hint


def test_a_pointer_in_the_place_of_a_small_file(tmp_path: Path) -> None:
    write_checkpoint(tiny_llama_config(), tmp_path)
    (tmp_path / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with pytest.raises(ConfigError, match=r"tokenizer\.json: is a pointer of Git LFS"):
        small_files(find_folder(tmp_path))
    (tmp_path / "m.gguf").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with pytest.raises(CheckpointError, match=r"m\.gguf: is a pointer of Git LFS"):
        architecture_of(tmp_path / "m.gguf")


def test_the_index_decides_and_may_name_folders(tmp_path: Path) -> None:
    """A copy of a tensor in another file than the index names is not read; transformers loads the same values."""
    write_checkpoint(tiny_llama_config(), tmp_path / "whole")
    tensors = load_file(tmp_path / "whole" / "model.safetensors")
    names, folder = sorted(tensors), tmp_path / "model"
    files = {"a/model.safetensors": names[::2], "b/model.safetensors": names[1::2]}
    for file, held in files.items():
        (folder / file).parent.mkdir(parents=True)
        save_file({name: tensors[name] for name in held}, folder / file, {"format": "pt"})
    placed = {name: file for file, held in files.items() for name in held}
    write_index = (folder / "model.safetensors.index.json").write_text
    write_index(json.dumps({"metadata": {}, "weight_map": placed}))
    (folder / "config.json").write_bytes((tmp_path / "whole" / "config.json").read_bytes())
    loaded = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    copies = {name: tensors[name] + 1 for name in names[:4]}
    for file, held in files.items():
        save_file({**copies, **{name: tensors[name] for name in held}}, folder / file, {"format": "pt"})
    checkpoint = Checkpoint(folder)
    assert sorted(checkpoint.tensors) == names
    for name in names:
        np.testing.assert_array_equal(checkpoint.read(name), loaded[name].numpy())
    watch = SourceWatch(folder, weight_files(folder))
    watch.watch(checkpoint)
    for tensor in checkpoint.tensors.values():
        read(tensor)
    record = watch.describe()
    assert sorted(record) == sorted(files)
    os.utime(folder / "a/model.safetensors")
    assert is_unchanged(folder, record, weight_files(folder))
    save_file({name: tensors[name] + 1 for name in files["b/model.safetensors"]}, folder / "b/model.safetensors")
    assert not is_unchanged(folder, record, weight_files(folder))


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
        ({"weight_map": {"a": "../b/a.safetensors"}}, "expected a safetensors file beside the index, or below"),
        ({"weight_map": {"a": "b.safetensors"}}, "b.safetensors: no such file"),
        ({"weight_map": {"x": "a.safetensors"}}, "a.safetensors: no tensor x"),
        ({"weight_map": {"a": "a.safetensors", "c": "c.safetensors"}}, "tensor b is also in a.safetensors"),
    ],
)
def test_broken_indices(tmp_path: Path, index: Any, message: str) -> None:
    save_file({"a": torch.ones(2), "b": torch.ones(2)}, tmp_path / "a.safetensors")
    save_file({"b": torch.ones(2), "c": torch.ones(2)}, tmp_path / "c.safetensors")
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


@pytest.mark.parametrize(
    ("key", "called", "expected", "line"),
    [
        ("dtype", "bfloat16", "bf16", "the matrices of the checkpoint are F32, and config.json's dtype is bfloat16"),
        (
            "torch_dtype",
            "bfloat16",
            "bf16",
            "the matrices of the checkpoint are F32, and config.json's dtype is bfloat16",
        ),
        ("dtype", "float32", "f16", "the matrices of the checkpoint are F32, which becomes f16"),
        ("dtype", None, "f16", "the matrices of the checkpoint are F32, which becomes f16"),
    ],
)
def test_float32_follows_config_json(tmp_path: Path, key: str, called: str | None, expected: str, line: str) -> None:
    write_checkpoint(tiny_llama_config(), tmp_path, "float32")
    config = json.loads((tmp_path / "config.json").read_text())
    del config["dtype"]
    (tmp_path / "config.json").write_text(json.dumps({**config, key: called}))
    lines: list[str] = []
    assert matrix_type_for(Checkpoint(tmp_path), read_config(tmp_path), lines.append) == expected
    assert lines == [f"The matrix type is {expected}: {line}"]


@pytest.mark.parametrize(
    ("wide", "called", "expected", "line"),
    [
        (["model.embed_tokens.weight", "lm_head.weight"], "float32", "bf16", "of its matrices, 14 BF16, 2 F32"),
        (["self_attn", "mlp"], "float32", "f16", "of its matrices, 2 BF16, 14 F32, which becomes f16"),
        (
            ["self_attn", "mlp"],
            "bfloat16",
            "bf16",
            "of its matrices, 2 BF16, 14 F32, and config.json's dtype is bfloat16",
        ),
        (["layernorm"], "float16", "bf16", "the matrices of the checkpoint are BF16"),
    ],
)
def test_the_majority_of_the_matrices(tmp_path: Path, wide: list[str], called: str, expected: str, line: str) -> None:
    write_checkpoint(tiny_llama_config(), tmp_path, "bfloat16")
    edit(
        tmp_path,
        lambda tensors: tensors.update(
            {name: one.float() for name, one in tensors.items() if any(part in name for part in wide)}
        ),
    )
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "dtype": called}))
    lines: list[str] = []
    assert matrix_type_for(Checkpoint(tmp_path), read_config(tmp_path), lines.append) == expected
    assert lines == [f"The matrix type is {expected}: {line}"]


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
