"""Where a model goes: the three kinds of model ids, and output_dir."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hyperdex_ir.cli.main import main
from hyperdex_ir.errors import ConfigError, ModelNotFoundError, OptionError
from hyperdex_ir.support.locations import MARKER, find_folder, hub_root, is_hub_id


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("HYPERDEX_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def make_checkpoint(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def test_a_hub_id_goes_below_the_home(home: Path):
    folder = find_folder("facebook/opt-1.3b")
    assert folder.root == home / "hub/facebook/opt-1.3b"
    assert folder.source == folder.ckpt == folder.root / "ckpt"
    assert folder.hub_id == "facebook/opt-1.3b"
    assert folder.made_by_tool
    assert not home.exists()


def test_the_home_has_a_default(monkeypatch):
    monkeypatch.delenv("HYPERDEX_HOME")
    assert hub_root() == Path.home() / ".cache/hyperdex/hub"


@pytest.mark.parametrize("inner", ["", "ckpt"])
def test_a_directory_with_a_checkpoint_takes_everything(tmp_path: Path, inner: str):
    make_checkpoint(tmp_path / "model" / inner)
    folder = find_folder(tmp_path / "model")
    assert folder.root == tmp_path / "model"
    assert folder.source == tmp_path / "model" / inner
    assert folder.hub_id is None
    assert not folder.made_by_tool


def test_a_relative_directory_wins_over_a_hub_id(tmp_path: Path):
    make_checkpoint(tmp_path / "facebook/opt-1.3b")
    assert find_folder("facebook/opt-1.3b").source == tmp_path / "facebook/opt-1.3b"


@pytest.mark.parametrize("exists", [False, True])
def test_an_absolute_path_that_is_not_there_is_an_install_location(tmp_path: Path, exists: bool):
    path = tmp_path / "models/facebook/opt-1.3b"
    if exists:
        path.mkdir(parents=True)
    folder = find_folder(path)
    assert (folder.root, folder.source, folder.hub_id) == (path, path / "ckpt", "facebook/opt-1.3b")
    assert folder.made_by_tool


def test_an_install_location_is_known_again(tmp_path: Path):
    path = tmp_path / "facebook/opt-1.3b"
    make_checkpoint(path / "ckpt")
    (path / "ckpt" / MARKER).write_text(json.dumps({"hub_id": "facebook/opt-1.3b", "revision": None}))
    folder = find_folder(path)
    assert folder.hub_id == "facebook/opt-1.3b"
    assert folder.made_by_tool


def test_a_folder_below_the_home_is_the_tools_own(home: Path):
    make_checkpoint(home / "hub/a/b/ckpt")
    assert find_folder(home / "hub/a/b").made_by_tool


@pytest.mark.parametrize("model_id", ["facebook/opt-1.3b", "checkpoint", "new"])
def test_output_dir_redirects_all(tmp_path: Path, model_id: str):
    make_checkpoint(tmp_path / "checkpoint")
    name = {"new": str(tmp_path / "not/there")}.get(model_id, model_id)
    folder = find_folder(name, "out")
    assert folder.root == tmp_path / "out"
    expected = tmp_path / "checkpoint" if model_id == "checkpoint" else tmp_path / "out/ckpt"
    assert folder.source == expected


@pytest.mark.parametrize(
    ("model_id", "words"),
    [
        ("./nothing/here", "no such directory, and not a Hub id"),
        ("a/b/c", "no such directory, and not a Hub id"),
        ("no spaces/allowed", "no such directory, and not a Hub id"),
        ("/x", "its last two components are not a Hub id"),
        ("/models/a b/c", "its last two components are not a Hub id"),
    ],
)
def test_names_that_are_nothing(model_id: str, words: str):
    with pytest.raises(ModelNotFoundError, match=words):
        find_folder(model_id)


def test_an_empty_name():
    with pytest.raises(OptionError, match="the model id is empty"):
        find_folder("")


def test_an_empty_output_dir():
    with pytest.raises(OptionError, match="output_dir is empty"):
        find_folder("facebook/opt-1.3b", "")


def test_an_empty_output_dir_of_the_command(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["compile", str(make_checkpoint(tmp_path / "model")), "--output-dir", ""])
    assert caught.value.code == 1
    assert "error[HDX0302]: output_dir is empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_directory_without_a_checkpoint(tmp_path: Path):
    (tmp_path / "some/dir").mkdir(parents=True)
    (tmp_path / "some/dir/readme").write_text("")
    with pytest.raises(ConfigError, match=r"some/dir: holds no config\.json"):
        find_folder(tmp_path / "some/dir")
    with pytest.raises(ModelNotFoundError, match="not a directory"):
        find_folder(tmp_path / "some/dir/readme")


def test_hub_ids():
    assert is_hub_id("gpt2")
    assert is_hub_id("HuggingFaceTB/SmolLM2-135M-Instruct")
    for text in ("", "/a", "a/", "a/b/c", "..", "a/../b", "a b/c", "-a/b", "a/b--c", "x" * 97):
        assert not is_hub_id(text), text


@pytest.mark.parametrize("options", [("~no-such-user/m",), ("facebook/opt-1.3b", "~no-such-user/m")])
def test_a_home_that_is_not_there(options: tuple[str, ...]):
    with pytest.raises(OptionError, match=r"^~no-such-user/m: no such home directory$"):
        find_folder(*options)


def test_no_home_at_all(monkeypatch):
    monkeypatch.delenv("HYPERDEX_HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as without HOME and without an account
    with pytest.raises(OptionError, match="no such home directory"):
        find_folder("facebook/opt-1.3b")
