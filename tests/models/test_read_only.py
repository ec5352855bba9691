"""Checkpoints in a folder that cannot be written: the error names the remedy, and with it all commands work."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path

import pytest
from support.models.tiny import tiny_llama_config, write_checkpoint

from hyperdex_ir.backend import lock
from hyperdex_ir.backend.kept_sources import keep_source, kept_source
from hyperdex_ir.cli.main import main
from hyperdex_ir.errors import StorageError
from hyperdex_ir.support.locations import CONFIG, ModelFolder, find_folder, source_cache
from hyperdex_ir.tools import AutoCompiler


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_the_error_names_the_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    (tmp_path / CONFIG).write_text("{}")

    def refuse(tree: object, path: Path) -> None:
        raise OSError(code, "no", str(path))

    monkeypatch.setattr(lock, "_check_lock", refuse)
    with pytest.raises(StorageError) as caught:
        AutoCompiler().compile(str(tmp_path))
    assert str(caught.value).startswith(f"{tmp_path}/.hyperdex.lock: ")
    assert caught.value.hint == "name another folder to write to: --output-dir DIR, or output_dir= in Python"


@pytest.mark.slow
def test_diff_finds_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    model = write_checkpoint(tiny_llama_config(), tmp_path / "model")
    before = sorted(model.iterdir())
    AutoCompiler().compile(str(model), max_length=8, output_dir=tmp_path / "out")
    assert sorted(model.iterdir()) == before
    monkeypatch.setattr(sys, "argv", ["hyperdex", "diff", str(tmp_path / "out"), "--tokens", "1,2,3"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0
    assert "none is off" in capsys.readouterr().out


def test_only_the_same_checkpoint_counts(tmp_path: Path) -> None:
    for name in ("model", "out/ckpt"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / CONFIG).write_text('{"a": 1}')
    folder = find_folder(tmp_path / "model", tmp_path / "out")
    compiled = ModelFolder(tmp_path / "out", tmp_path / "out/ckpt", None, made_by_tool=False)
    assert kept_source(compiled) is None
    keep_source(folder)
    assert kept_source(compiled) == tmp_path / "model"
    (tmp_path / "model" / CONFIG).write_text('{"a": 2}')
    assert kept_source(compiled) is None
    (tmp_path / "model" / CONFIG).unlink()
    assert kept_source(compiled) is None
    place = source_cache()
    assert place is not None
    place.chmod(0o777)  # others may have written there
    (tmp_path / "model" / CONFIG).write_text('{"a": 1}')
    assert kept_source(compiled) is None


def test_an_adapter_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "some/base"}))
    (tmp_path / "adapter_model.safetensors").touch()
    monkeypatch.setitem(sys.modules, "hyperdex_ir.tools", None)  # what takes long to import is not imported
    monkeypatch.setattr(sys, "argv", ["hyperdex", "plan", str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    assert capsys.readouterr().err.splitlines()[0] == (
        f"error[HDX0102]: {tmp_path}: a LoRA adapter of some/base: merge it first"
    )


def test_a_local_path_never_goes_to_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "model").mkdir()
    (tmp_path / "some" / "model" / "notes.txt").touch()
    (tmp_path / "weights.bin").touch()
    for name, words in (("some/model", "holds no config.json"), ("weights.bin", "not a directory")):
        monkeypatch.setattr(sys, "argv", ["hyperdex", "compile", name])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 1
        assert words in capsys.readouterr().err
