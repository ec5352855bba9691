"""Folders whose `ckpt/` or `param/` is a link: the user's own go on working, others lead nowhere."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import gguf
import pytest
from support.models.gguf_models import write_gguf
from support.models.tiny import tiny_llama_config, write_checkpoint
from support.processes.hub_server import hub_of_tests

from hyperdex_ir.backend.clean import clean_folder
from hyperdex_ir.backend.links import check_links
from hyperdex_ir.backend.lock import LOCK_FILE
from hyperdex_ir.backend.state import STATE_FILE
from hyperdex_ir.checkpoint.gguf import write_small_files
from hyperdex_ir.errors import StorageError
from hyperdex_ir.hub import download as hub
from hyperdex_ir.runtime.model_folders import compiled_folder
from hyperdex_ir.support.folder_access import NewFile, place_of
from hyperdex_ir.support.locations import GGUF_MARKER, MARKER, find_folder
from hyperdex_ir.tools import AutoCompiler

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tiny_llama_config(), tmp_path_factory.mktemp("linked") / "checkpoint")


@pytest.fixture(params=["gguf", "hub", "local"])
def model(
    request: pytest.FixtureRequest, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, Path]]:
    """The name of a model, and its folder, whose `ckpt` is a link to `disk`."""
    root, disk = tmp_path / "root", tmp_path / "disk"
    if request.param == "hub":
        root = tmp_path / "hub/owner/model"
    root.mkdir(parents=True)
    (root / "ckpt").symlink_to(disk)
    if request.param == "local":
        shutil.copytree(checkpoint, disk)
        yield str(root), root
        return
    disk.mkdir()
    if request.param == "gguf":
        write_gguf(root / "tiny.gguf", "llama", gguf.GGMLQuantizationType.F16)
        yield str(root), root
        return
    files = {path.name: path.read_bytes() for path in sorted(checkpoint.iterdir())}
    with hub_of_tests(files, tmp_path, monkeypatch):
        yield "owner/model", root


def test_a_link_goes_on_being_the_models_own(model: tuple[str, Path], tmp_path: Path) -> None:
    """Compiled, compiled again with other options, cleaned, and its state lost."""
    name, root = model
    AutoCompiler().compile(name)
    AutoCompiler().compile(name)
    AutoCompiler().compile(name, max_length=8)
    assert clean_folder(compiled_folder(name), compiled=False, dry_run=False) == []
    names = sorted(path.name for path in (tmp_path / "disk").iterdir())
    (root / STATE_FILE).unlink()
    with pytest.raises(StorageError, match=r"which holds \S+: no compile of this folder has written that") as refused:
        AutoCompiler().compile(name)
    if (tmp_path / "disk" / GGUF_MARKER).exists():
        assert refused.value.hint == "remove the link; or, to keep it, empty the folder that it leads to"
        for path in (tmp_path / "disk").iterdir():
            path.unlink()
    else:
        own = ["hyperdex_config.json", "hyperdex_model.bin", "hyperdex_tokenizer_config.json"]
        assert refused.value.hint == f"remove the link; or, to keep it, delete {', '.join(own)} there"
        for one in own:
            (tmp_path / "disk" / one).unlink()
    AutoCompiler().compile(name)
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == names


def test_images_on_another_disk_whose_state_is_lost(checkpoint: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(checkpoint, tmp_path / "model"))
    (tmp_path / "disk").mkdir()
    (model / "param").symlink_to(tmp_path / "disk")
    AutoCompiler().compile(str(model))
    (model / STATE_FILE).unlink()
    with pytest.raises(StorageError, match=r"holds param_1lpu_00_00\.bin") as refused:
        AutoCompiler().compile(str(model))
    assert refused.value.hint.endswith("empty the folder that it leads to")
    for path in (tmp_path / "disk").iterdir():
        path.unlink()
    AutoCompiler().compile(str(model))


def _killed_at(moment: int) -> Callable[[NewFile], None]:
    """`NewFile.rename`, during one of whose calls the process ends."""
    rename, calls = NewFile.rename, count()

    def renamed(file: NewFile) -> None:
        rename(file)
        if next(calls) == moment:
            raise KeyboardInterrupt

    return renamed


def test_a_making_from_gguf_that_broke_off_behind_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, disk = tmp_path / "root", tmp_path / "disk"
    root.mkdir()
    disk.mkdir()
    (root / "ckpt").symlink_to(disk)
    write_gguf(root / "tiny.gguf", "llama", gguf.GGMLQuantizationType.F16)
    for moment in count():
        for path in disk.iterdir():
            path.unlink()
        with monkeypatch.context() as patch:
            patch.setattr(NewFile, "rename", _killed_at(moment))
            patch.setattr(NewFile, "discard", lambda file: None)
            try:
                write_small_files(root / "tiny.gguf", root / "ckpt", root)
                break
            except KeyboardInterrupt:
                check_links(find_folder(root))
    check_links(find_folder(root))
    (disk / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match=r"holds notes\.txt"):
        check_links(find_folder(root))
    (disk / "notes.txt").unlink()
    (disk / GGUF_MARKER).write_text("{")
    with pytest.raises(StorageError, match="no compile of this folder has written that"):
        check_links(find_folder(root))


def test_a_folder_below_the_hub_root_that_is_a_link(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the checkpoint directly inside, which this tool has not downloaded."""
    monkeypatch.setenv("HYPERDEX_HOME", str(tmp_path / "home"))
    disk, root = Path(shutil.copytree(checkpoint, tmp_path / "disk")), tmp_path / "home/hub/owner/model"
    root.parent.mkdir(parents=True)
    root.symlink_to(disk)
    AutoCompiler().compile(str(root), low_memory_usage=True)
    assert f"Nothing is deleted in {root}: nothing says that this tool has downloaded" in capsys.readouterr().err
    assert (disk / "model.safetensors").exists()


# ------------------------------------------------------------------------------------------------- of other models
@pytest.fixture
def stranger(tmp_path: Path) -> tuple[Path, Path]:
    """A folder whose `ckpt` is a link to that of another model, and the latter, downloaded by this tool."""
    victim = tmp_path / "victim/ckpt"
    victim.mkdir(parents=True)
    for name in ("model.safetensors", "config.json", "hyperdex_model.bin"):
        (victim / name).write_text("{}")
    fetched = {"model.safetensors": place_of((victim / "model.safetensors").stat())}
    (victim / MARKER).write_text(json.dumps({"hub_id": "a/b", "fetched": fetched}))
    (tmp_path / "stranger").mkdir()
    (tmp_path / "stranger/ckpt").symlink_to(victim)
    return tmp_path / "stranger", victim


@pytest.mark.parametrize("output", [None, "out"])
def test_what_is_fetched_and_removed_in_is_looked_at_wherever_the_output_goes(
    stranger: tuple[Path, Path], tmp_path: Path, output: str | None
) -> None:
    folder = find_folder(stranger[0], tmp_path / output if output else None)
    assert hub.is_fetched(folder, "model.safetensors")
    with pytest.raises(StorageError, match=r"stranger/ckpt: a link to .*victim/ckpt, which holds hyperdex_model\.bin"):
        check_links(folder)


@pytest.mark.parametrize("owned", [STATE_FILE, LOCK_FILE, "hub"])
@pytest.mark.parametrize("output", [None, "out"])
def test_the_download_of_another_model(
    stranger: tuple[Path, Path], tmp_path: Path, owned: str, output: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not finished, nothing is compiled: no file of it is the compiler's."""
    path, victim = stranger
    (victim / "hyperdex_model.bin").unlink()
    part = victim / ".model.safetensors.0123456789abcdef.part"
    part.write_text("half")
    monkeypatch.setenv("HYPERDEX_HOME", str(tmp_path / "home"))
    if owned == "hub":
        victim = Path(shutil.move(victim, tmp_path / "home/hub/owner/model/ckpt"))
        (path / "ckpt").unlink()
        (path / "ckpt").symlink_to(victim)
    else:
        (victim.parent / owned).touch()
    before = sorted(os.listdir(victim))
    folder = find_folder(path, tmp_path / output if output else None)
    with pytest.raises(StorageError, match="it leads into the folder of another model"):
        check_links(folder)
    if output is None:
        with pytest.raises(StorageError, match="it leads into the folder of another model"):
            clean_folder(folder, compiled=False, dry_run=False)
    assert sorted(os.listdir(victim)) == before
