"""`hyperdex check`, `status` and `clean` on the folder of a tiny model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.commands import fails, succeeds
from support.models.tiny import tiny_llama_config, write_checkpoint

from hyperdex_ir.backend.lock import LOCK_FILE
from hyperdex_ir.cli.main import main
from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.tools import AutoCompiler
from hyperdex_ir.verify.model import open_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = write_checkpoint(tiny_llama_config(), tmp_path_factory.mktemp("compiled") / "model")
    for count in (1, 2):
        AutoCompiler().compile(str(model), num_device=count)
    return model


@pytest.fixture
def model(compiled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(compiled, tmp_path / "model"))


def names(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_check_finds_nothing_in_what_was_just_compiled(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads(succeeds(capsys, "check", str(model), "--json"))
    assert facts["faults"] == {}
    assert (
        facts["files"] == 2 + 4 + 1 + 2 * 3 + 32 + 64
    )  # converted, small files, tokenizer; map, program, origins; images


@pytest.mark.parametrize(
    "name", ["param/param_2lpu_01_1f.bin", "inst/inst_1lpu.bin", "inst/inst_2lpu.json", "ckpt/hyperdex_model.bin"]
)
def test_check_notices_one_flipped_bit(model: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = model / name
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 4
    path.write_bytes(contents)
    out, err = fails(capsys, "check", str(model))
    assert out.startswith(f"{name}: ")
    assert err[0].startswith(f"error[HDX0501]: {path}: ")
    assert err[1] == f"hint: hyperdex compile {model} --force"


@pytest.mark.parametrize(
    ("size", "words"),
    [(None, "no such file"), (8, "8 bytes, 7,120 were written"), (5000, "5,000 bytes, 7,120 were written")],
)
def test_check_notices_missing_and_short_files(
    model: Path, size: int | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = model / "param" / "param_1lpu_00_00.bin"
    contents = path.read_bytes()
    path.unlink()
    if size is not None:
        path.write_bytes(contents[:size])
    assert words in fails(capsys, "check", str(model))[1][0]


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "", ".", "a\0b", "./big", "././big", "a//big", "big/", "a\x9b31m", "a\u202eb"]
)
def test_check_stays_in_the_folder(model: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = json.loads((model / "manifest.json").read_text())
    manifest["files"][name] = {"bytes": 1, "sha256": "0"}
    (model / "manifest.json").write_text(json.dumps(manifest))
    assert "not below the folder" in fails(capsys, "check", str(model))[1][0]


def test_check_of_what_is_not_compiled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_checkpoint(tiny_llama_config(), tmp_path / "model")
    assert fails(capsys, "check", str(model))[1][0].startswith(f"error[HDX0502]: {model}: not compiled")


def test_status_has_the_sizes(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (facts,) = json.loads(succeeds(capsys, "status", str(model), "--json"))
    assert facts["checkpoint"]["bytes"] == (model / "model.safetensors").stat().st_size
    assert list(facts["devices"]) == ["1", "2"]
    parts = [path for folder in ("param", "config", "inst") for path in (model / folder).glob("*1lpu*")]
    assert facts["devices"]["1"]["bytes"] == sum(path.stat().st_size for path in parts)
    assert facts["devices"]["2"]["options"]["num_device"] == 2
    assert facts["stale"] == {"files": 0, "bytes": 0}


def _to_torch(folder: Path) -> Path:
    """Writes the weights of a checkpoint in torch's format, in place of safetensors."""
    path = folder / "pytorch_model.bin"
    torch.save(load_file(folder / "model.safetensors"), path)
    (folder / "model.safetensors").unlink()
    return path


def test_status_and_plan_count_weights_in_the_format_of_torch(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _to_torch(model)
    (facts,) = json.loads(succeeds(capsys, "status", str(model), "--json"))
    assert facts["checkpoint"]["bytes"] == path.stat().st_size
    planned = json.loads(succeeds(capsys, "plan", str(model), "--json"))
    assert planned["host"]["checkpoint_bytes"] == path.stat().st_size


def test_status_of_models_in_their_own_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights by any name count; a folder of models stands for all of them."""
    files = {
        "a/config.json": 2,
        "a/consolidated.safetensors": 11,
        "b/config.json": 2,
        "b/original/consolidated.00.pth": 13,
        "c/ckpt/config.json": 2,
        "c/ckpt/pytorch_model.bin": 17,
        "c/ckpt/hyperdex_model.bin": 100,
        "d/model.gguf": 19,
        "e/config.json": 2,
        "e/model-00001-of-00002.safetensors": 23,
        "f/ckpt/config.json": 2,
        "f/ckpt/hyperdex_model.bin": 100,
    }
    for name, size in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"{}".ljust(size))
    facts = json.loads(succeeds(capsys, "status", str(tmp_path), "--json"))
    found = {Path(one["folder"]).name: one["checkpoint"]["bytes"] for one in facts}
    assert found == {"a": 11, "b": 13, "c": 17, "e": 23, "f": 0}
    facts = json.loads(succeeds(capsys, "status", *(str(tmp_path / name) for name in "da"), "--json"))
    assert [one["checkpoint"]["bytes"] for one in facts] == [19, 11]


def test_verify_takes_weights_in_the_format_of_torch(model: Path) -> None:
    """They are the ones that are left when the converted file is gone."""
    before = open_model(str(model)).parameters("model.norm.weight")
    _to_torch(model)
    (model / "ckpt" / "hyperdex_model.bin").unlink()
    assert open_model(str(model)).parameters("model.norm.weight").tobytes() == before.tobytes()


def test_status_of_all_models(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HYPERDEX_HOME", str(tmp_path))
    assert succeeds(capsys, "status") == ""
    hub = tmp_path / "hub" / "an-org" / "a-model"
    shutil.copytree(model, hub / "ckpt")
    assert succeeds(capsys, "status").splitlines()[0] == str(hub)


def test_one_broken_folder_does_not_hide_the_others(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HYPERDEX_HOME", str(tmp_path))
    hub = tmp_path / "hub/an-org"
    for name in ("a-model", "b-model", "c-model"):
        shutil.copytree(model, hub / name / "ckpt")
    index = hub / "b-model/ckpt/model.safetensors.index.json"
    index.write_text("{")
    index.with_name("model.safetensors").unlink()
    out, err = fails(capsys, "status")
    assert [line for line in out.splitlines() if line[0] != " "] == [str(hub / "a-model"), str(hub / "c-model")]
    assert [line.startswith((f"error[HDX0201]: {index}: ", "hint: ")) for line in err] == [True, True]
    out, err = fails(capsys, "status", "--json")
    assert [facts["folder"] for facts in json.loads(out)] == [str(hub / "a-model"), str(hub / "c-model")]
    stale = [hub / name / "ckpt/.hyperdex_model.bin.77.part" for name in ("a-model", "b-model", "c-model")]
    for path in stale:
        path.touch()
    (hub / "b-model/.hyperdex.lock").mkdir()
    out, err = fails(capsys, "clean")
    assert [line.split("  ")[0] for line in out.splitlines()] == [str(stale[0]), str(stale[2])]
    assert err[0].startswith(f"error[HDX0503]: {hub}/b-model/.hyperdex.lock: not a file with one name")
    assert [path.exists() for path in stale] == [False, True, False]


def test_status_of_a_broken_manifest(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model / "manifest.json").write_text("{")
    (facts,) = json.loads(succeeds(capsys, "status", str(model), "--json"))
    assert "not valid JSON" in facts["fault"]


def test_clean_removes_what_nothing_lists_and_nothing_else(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = names(model)
    stale = {"param/param_3lpu_00_00.bin", "inst/.inst_1lpu.bin.77.part", "config/config_3lpu_hbm.json"}
    for name in stale:
        (model / name).write_bytes(b"123")
    dry = succeeds(capsys, "clean", str(model), "--dry-run")
    assert {Path(line.split("  ")[0]).relative_to(model).as_posix() for line in dry.splitlines()} == stale
    assert names(model) == before | stale
    assert succeeds(capsys, "clean", str(model)) == dry
    assert names(model) == before
    assert CompiledModel.open(model).logits([1, 2]).shape[0] == 2


def test_clean_of_everything_compiled_leaves_the_checkpoint(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original = {
        path.name: path.read_bytes() for path in model.iterdir() if path.name in ("config.json", "model.safetensors")
    }
    succeeds(capsys, "clean", str(model), "--compiled")
    left = names(model)
    assert not any(name.startswith(("param/", "inst/", "config/", "manifest", "ckpt/")) for name in left)
    assert LOCK_FILE not in left
    assert {name: (model / name).read_bytes() for name in original} == original
    AutoCompiler().compile(str(model))
    succeeds(capsys, "check", str(model))


@pytest.mark.parametrize("link", ["an-org/a-model", "an-org"])
def test_a_clean_of_all_models_follows_no_link_out_of_the_hub(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], link: str
) -> None:
    """Nobody has named the model that it leads to; who names it has it cleaned."""
    monkeypatch.setenv("HYPERDEX_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home/hub").symlink_to(tmp_path / "disk")  # the user's own
    (tmp_path / "work/another").mkdir(parents=True)
    work = Path(shutil.move(model, tmp_path / "work/a-model"))
    shutil.copytree(work, tmp_path / "disk/org/own")
    place = tmp_path / "disk" / link
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(work if link.endswith("a-model") else work.parent)
    before = names(work)
    out = succeeds(capsys, "clean", "--compiled")
    assert names(work) == before
    assert {line.split("  ")[0].startswith(str(tmp_path / "home/hub/org/own/")) for line in out.splitlines()} == {True}
    assert not list((tmp_path / "disk/org/own/param").glob("*"))
    assert str(tmp_path / "home/hub/an-org/a-model") in succeeds(capsys, "status")
    assert "param/" in succeeds(capsys, "clean", "--compiled", str(tmp_path / "home/hub/an-org/a-model"))
    assert not list((work / "param").glob("*"))


def test_a_model_that_a_clean_of_all_leaves_alone_is_said(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HYPERDEX_HOME", str(tmp_path / "home"))
    (tmp_path / "home/hub/org").mkdir(parents=True)
    (tmp_path / "home/hub/org/model").symlink_to(model)
    with pytest.raises(SystemExit):
        main(["clean"])
    link = tmp_path / "home/hub/org/model"
    assert f"{link}: leads to {model}: left alone; name it to clean it" in capsys.readouterr().err
