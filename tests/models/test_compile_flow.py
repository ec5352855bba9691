"""Whole compiles of tiny models: what is written, what is reused, and that nothing depends on where or when."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from support.models.compiles import STATE, compile_model, phases_done
from support.models.tiny import tiny_llama_config, tiny_opt_config, write_checkpoint
from support.processes import forked
from support.processes.hub_server import hub_of_tests
from support.processes.interruptions import contents

from hyperdex_ir.backend import length, phases
from hyperdex_ir.backend.images import write_images
from hyperdex_ir.backend.low_memory import delete_weights
from hyperdex_ir.backend.manifest import write_manifest
from hyperdex_ir.backend.state import State
from hyperdex_ir.errors import CapacityError, StorageError
from hyperdex_ir.isa.codec import decode_program
from hyperdex_ir.memory.layout import FunctionLayout, KvCache, ModelLayout, Parameter
from hyperdex_ir.memory.map import plan_memory
from hyperdex_ir.memory.serialize import load_json, read_layout, read_map
from hyperdex_ir.passes.pipeline import parse_pipeline
from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.support.files import HEADER_BYTES, Kind, read_binary
from hyperdex_ir.support.folder_access import FolderTree, place_of
from hyperdex_ir.support.locations import ModelFolder
from hyperdex_ir.targets import load_target

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tiny_llama_config(), tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def model(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "model"))


def test_what_a_compile_writes(model: Path, capsys):
    compiled = compile_model(model)
    log = capsys.readouterr()
    assert log.out == ""
    assert [line for line in log.err.splitlines() if "** Phase-" in line] == [
        "[ INFO ] : ** Phase-0 : Check supported model **",
        "[ INFO ] : ** Phase-1 : Download model from HuggingFace Hub **",
        "[ INFO ] : ** Phase-2 : Convert the checkpoint format to hyperdex-ir style **",
        "[ INFO ] : ** Phase-3 : Generate Optimized Model Mapping **",
        "[ INFO ] : ** Phase-4 : Generate Optimized Model Instruction **",
    ]
    assert all(line.startswith("[ INFO ] : ") for line in log.err.splitlines())
    assert "max_length is 128: the model's own limit" in log.err
    assert compiled.root == model
    assert (compiled.max_length, compiled.matrix_type) == (128, "f16")
    assert compiled.instructions == model / "inst/inst_1lpu.bin"
    assert compiled.memory_map == model / "config/config_1lpu_hbm.json"
    assert [path.name for path in compiled.parameters] == [f"param_1lpu_00_{c:02x}.bin" for c in range(32)]
    assert len({path.stat().st_size for path in compiled.parameters}) == 1
    program = decode_program(read_binary(compiled.instructions, Kind.INSTRUCTIONS))
    facts = load_json(compiled.origins)
    assert [item["index"] for item in facts["origins"]] == list(range(len(program.instructions)))
    assert "model.layers.*.self_attn.o_proj" in {item["path"] for item in facts["origins"]}
    assert {key: facts[key] for key in ("max_length", "vocab_size", "matrix_type", "target")} == {
        "max_length": 128, "vocab_size": 272, "matrix_type": "f16", "target": "u55c"}  # fmt: skip
    assert min(facts[key] for key in ("chunk", "head_rows", "lmu_words")) >= 1
    layout = read_layout(compiled.model_config)
    assert read_map(compiled.memory_map) == plan_memory(layout, load_target("u55c"), 128)
    assert (model / "ckpt/tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()


def test_merged_matrices_are_stored_row_after_row(model: Path, tmp_path: Path):
    """And the unfused pipeline, which stores them one by one, gives the same logits."""
    apart = Path(shutil.copytree(model, tmp_path / "apart"))
    compiled = compile_model(model)
    compile_model(apart, pipeline="o0")
    tensors = {entry["name"]: entry for entry in load_json(compiled.model_config)["tensors"]}
    prefix = "model.layers.1.self_attn"
    keys = [f"{prefix}.{name}_proj.weight" for name in "vkq"]
    entry = tensors["+".join(keys)]
    assert (entry["keys"], entry["shape"], entry["dtype"]) == (keys, [128, 64], "f16")
    stored = read_binary(model / "ckpt/hyperdex_model.bin", Kind.MODEL)[entry["offset"] :][: 128 * 64 * 2]
    with safe_open(model / "model.safetensors", "np") as file:
        expected = np.concatenate([file.get_tensor(key) for key in keys])
    assert stored == expected.tobytes()
    assert "model.layers.0.mlp.gate_proj.weight+model.layers.0.mlp.up_proj.weight" in tensors
    logits = [CompiledModel.open(path).forward([1, 2, 3, 250], 0, first_row=0) for path in (model, apart)]
    assert logits[0].tobytes() == logits[1].tobytes()


def test_the_manifest_lists_every_file(model: Path):
    compile_model(model)
    manifest = load_json(model / "manifest.json")
    written = {path for path in contents(model) if "/" in path}
    files = manifest["files"] | manifest["devices"]["1"]["files"]
    assert set(files) == written
    for name, entry in files.items():
        content = (model / name).read_bytes()
        payload = {"crc32": zlib.crc32(content[HEADER_BYTES:])} if name.endswith(".bin") else {}
        assert entry == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), **payload}
    assert manifest["devices"]["1"]["target"] == "u55c"
    assert manifest["devices"]["1"]["options"]["max_length"] == 128
    for name in ("manifest.json", *sorted(written)):
        assert str(model.parent).encode() not in (model / name).read_bytes(), name


def test_equal_inputs_give_equal_bytes(model: Path, tmp_path: Path, forget_instructions):
    """In other folders, with other hash seeds, with other modification times."""
    found = []
    for seed in ("1", "2"):
        copy = Path(shutil.copytree(model, tmp_path / f"copy{seed}" / "model"))
        os.utime(copy / "model.safetensors", (int(seed), int(seed)))
        forget_instructions()
        done = forked.hyperdex("compile", str(copy), env={**os.environ, "PYTHONHASHSEED": seed})
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str(copy)
        found.append(contents(copy))
    assert found[0] == found[1]


def test_instructions_do_not_depend_on_weights(model: Path, tmp_path: Path, forget_instructions):
    other = write_checkpoint(tiny_llama_config(), tmp_path / "other", seed=1)
    first = compile_model(model)
    forget_instructions()
    second = compile_model(other)
    for name in ("instructions", "origins", "memory_map"):
        assert getattr(first, name).read_bytes() == getattr(second, name).read_bytes()
    assert first.parameters[0].read_bytes() != second.parameters[0].read_bytes()


def test_opt_in_bfloat16(tmp_path: Path):
    model = write_checkpoint(tiny_opt_config(), tmp_path / "opt", dtype="bfloat16")
    compiled = compile_model(model, max_length=16)
    assert compiled.matrix_type == "bf16"
    assert load_json(compiled.origins)["max_length"] == 16
    assert compile_model(model, max_length=16, dtype="f16").matrix_type == "f16"


def test_finished_phases_are_not_done_again(model: Path, capsys):
    compile_model(model)
    assert phases_done(capsys) == ["2", "3", "4"]
    before = contents(model)
    compile_model(model)
    assert phases_done(capsys) == []
    assert contents(model) == before
    compile_model(model, force=True)
    assert phases_done(capsys) == ["2", "3", "4"]
    assert contents(model) == before


def test_only_what_is_missing_is_done(model: Path, capsys, forget_instructions):
    compiled = compile_model(model)
    before = contents(model)
    for path, expected in (
        (compiled.manifest, []),
        (compiled.instructions, ["4"]),
        (compiled.parameters[7], ["3"]),
        (compiled.model_config, ["2"]),
        (model / STATE, ["2", "3", "4"]),
    ):
        path.unlink()
        forget_instructions()
        capsys.readouterr()
        compile_model(model)
        assert phases_done(capsys) == expected, path.name
        assert contents(model) == before


def test_changed_weights_are_noticed_unless_told_not_to_look(model: Path, capsys):
    compile_model(model)
    capsys.readouterr()
    weights = model / "model.safetensors"
    other = write_checkpoint(tiny_llama_config(), model.parent / "other", seed=1) / weights.name
    assert other.stat().st_size == weights.stat().st_size
    shutil.copyfile(other, weights)
    compile_model(model, fast_compile=True)
    assert phases_done(capsys) == []
    compile_model(model)
    assert phases_done(capsys) == ["2", "3"]
    compile_model(other.parent)
    assert read_binary(model / "param/param_1lpu_00_00.bin", Kind.PARAMETERS) == read_binary(
        other.parent / "param/param_1lpu_00_00.bin", Kind.PARAMETERS
    )


@pytest.mark.parametrize("max_length", [1, 64])
def test_another_target_needs_no_checkpoint(model: Path, capsys, max_length: int):
    compile_model(model, max_length=max_length)
    (model / "model.safetensors").unlink()
    capsys.readouterr()
    compiled = compile_model(model, max_length=max_length, type_device="asic")
    assert phases_done(capsys) == ["3", "4"]
    assert len(compiled.parameters) == len(list((model / "param").iterdir())) == 64
    compiled = compile_model(model, max_length=max_length, type_device="u55c")
    assert len(compiled.parameters) == len(list((model / "param").iterdir())) == 32
    assert load_json(compiled.manifest)["devices"]["1"]["target"] == "u55c"


def test_a_compile_that_broke_off_goes_on(model: Path, capsys, monkeypatch):
    def refuse(*_, **__):
        raise StorageError("no space left on the device")

    monkeypatch.setattr(phases, "write_images", refuse)
    with pytest.raises(StorageError):
        compile_model(model)
    assert not (model / "manifest.json").exists()
    assert not (model / "param").exists()
    part = model / ".hyperdex_next/ckpt/.hyperdex_model.bin.999999999.part"
    part.write_bytes(b"left by a compile that was killed")
    monkeypatch.setattr(phases, "write_images", write_images)
    capsys.readouterr()
    compile_model(model)
    assert phases_done(capsys) == ["3", "4"]
    assert not part.exists()


def test_the_ir_is_dumped(model: Path, tmp_path: Path, capsys):
    compile_model(model)
    capsys.readouterr()
    compile_model(model, dump_ir=tmp_path / "ir")
    assert phases_done(capsys) == ["4"]
    texts = contents(tmp_path / "ir")
    names = ["import", *(one.name for one in parse_pipeline("default"))]
    assert list(texts) == [f"{number:02d}_{name}.mlir" for number, name in enumerate(names)]
    assert b"lpu.reshape" in texts["00_import.mlir"]
    assert b"lpu.layer" in texts["12_lpu-outline-layers.mlir"]
    assert b"isa.repeat" in texts["14_lower-lpu-to-isa.mlir"]


def test_low_memory_usage_deletes_in_the_tools_own_folder_only(model: Path, tmp_path: Path, monkeypatch, capsys):
    compiled = compile_model(model, low_memory_usage=True)
    assert (model / "model.safetensors").is_file()
    assert compiled.model is not None
    assert "Nothing is deleted" in capsys.readouterr().err
    files = {path.name: path.read_bytes() for path in sorted(model.iterdir()) if path.is_file() and path.name != STATE}
    with hub_of_tests(files, tmp_path / "home", monkeypatch):
        compiled = compile_model("owner/model", low_memory_usage=True)
        own = compiled.root / "ckpt"
        assert compiled.root == tmp_path / "home/hub/owner/model"
        assert compiled.model is None
        assert not list(own.glob("*.safetensors"))
        assert not list(own.glob("*.bin"))
        assert (own / "tokenizer.json").is_file()
        manifest = load_json(compiled.manifest)
        assert all((own.parent / name).is_file() for name in manifest["files"] | manifest["devices"]["1"]["files"])
        capsys.readouterr()
        assert compile_model("owner/model", low_memory_usage=True) == compiled
        assert phases_done(capsys) == []


@pytest.mark.parametrize("name", ["tiny/llama", "path"])
def test_low_memory_usage_leaves_weights_that_were_put_there_by_hand(
    model: Path, tmp_path: Path, monkeypatch, capsys, name: str
):
    """Also where they are of the commit that the tool has downloaded: they may be the only ones of their kind."""
    monkeypatch.setenv("HYPERDEX_HOME", str(tmp_path))
    own = Path(shutil.copytree(model, tmp_path / "hub/tiny/llama/ckpt"))
    before = contents(own)
    compiled = compile_model(own.parent if name == "path" else name, low_memory_usage=True)
    assert compiled.model is not None
    assert contents(own).items() >= before.items()
    assert "Nothing is deleted" in capsys.readouterr().err


def test_weights_that_the_user_puts_there_during_a_compile_stay(model: Path, tmp_path: Path, monkeypatch, capsys):
    """Until the last file of the model is deleted, each is looked at again just before."""
    files = {path.name: path.read_bytes() for path in sorted(model.iterdir()) if path.is_file() and path.name != STATE}
    with hub_of_tests(files, tmp_path / "home", monkeypatch):
        weights = tmp_path / "home/hub/owner/model/ckpt/model.safetensors"

        def written(*arguments):
            weights.rename(tmp_path / "downloaded")
            shutil.copyfile(tmp_path / "downloaded", weights)
            write_manifest(*arguments)

        monkeypatch.setattr("hyperdex_ir.backend.phases.write_manifest", written)
        compile_model("owner/model", low_memory_usage=True)
        assert weights.is_file()
        assert "Nothing is deleted" in capsys.readouterr().err


def test_a_shard_that_the_user_puts_there_while_others_are_deleted_stays(tmp_path: Path, monkeypatch, capsys):
    ckpt = tmp_path / "model/ckpt"
    ckpt.mkdir(parents=True)
    names = ["model-1.safetensors", "model-2.safetensors"]
    for name in names:
        (ckpt / name).write_text("downloaded")
    (ckpt / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict(enumerate(names))}))
    marker = {"hub_id": "owner/model", "fetched": {name: place_of((ckpt / name).stat()) for name in names}}
    (ckpt / "hyperdex_download.json").write_text(json.dumps(marker))
    remove = FolderTree.remove

    def removed(tree: FolderTree, name: str) -> None:
        remove(tree, name)
        (ckpt / names[1]).rename(tmp_path / "downloaded")
        (ckpt / names[1]).write_text("the only one")

    monkeypatch.setattr(FolderTree, "remove", removed)
    state = State(ckpt.parent, {"2": {"files": {}}})
    delete_weights(ModelFolder(ckpt.parent, ckpt, "owner/model", made_by_tool=True), state)
    assert not (ckpt / names[0]).exists()
    assert (ckpt / names[1]).read_text() == "the only one"
    assert (
        f"{ckpt / names[1]}: not deleted: it is no longer the file that was downloaded or made"
        in capsys.readouterr().err
    )


def test_output_dir_leaves_the_checkpoint_alone(model: Path, tmp_path: Path):
    before = contents(model)
    compiled = compile_model(model, output_dir=tmp_path / "out")
    assert contents(model) == before
    assert compiled.root == tmp_path / "out"
    assert json.loads((tmp_path / "out/ckpt/config.json").read_text())["architectures"] == ["LlamaForCausalLM"]


LAYOUT = ModelLayout(
    "f16",
    1000,
    FunctionLayout("main", (Parameter("table", "f32", (4096, 2, 64), ("table",)),), ()),
    (FunctionLayout("layer", (Parameter("w.*", "f16", (64, 64), ("w.*",)),), (KvCache(8, 64, 64),)),),
    (0,) * 8,
)


def test_the_largest_length_that_fits():
    from dataclasses import replace

    target = load_target("u55c")
    assert length.largest_length(LAYOUT, {"table"}, 4096, target) == 4096
    small = replace(target, hbm_bytes=16 << 20)
    found = length.largest_length(LAYOUT, {"table"}, 4096, small)
    assert 1 < found < 4096
    plan_memory(length.layout_at(LAYOUT, {"table"}, 4096, found), small, found)
    with pytest.raises(CapacityError):
        plan_memory(length.layout_at(LAYOUT, {"table"}, 4096, found + 1), small, found + 1)
    assert length.layout_at(LAYOUT, {"table"}, 4096, 7).main.parameters[0].shape == (7, 2, 64)
    with pytest.raises(CapacityError, match="u55c has 65,536 bytes of HBM; the model needs"):
        length.largest_length(LAYOUT, {"table"}, 4096, replace(target, hbm_bytes=1 << 16))
