"""Models in the cache of huggingface_hub, read where they lie when the network is forbidden."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants
from safetensors.numpy import save_file

from hyperdex_ir.backend.checkpoint import small_files
from hyperdex_ir.hub.download import HubOptions
from hyperdex_ir.hub.snapshots import or_snapshot
from hyperdex_ir.support.locations import find_folder, hub_root

COMMIT = "0a" * 20
OFFLINE = HubOptions(local_files_only=True)


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cached model as the library keeps it: a folder of links into another."""
    monkeypatch.setenv("HYPERDEX_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    model = tmp_path / "cache/models--some--model"
    folder = model / "snapshots" / COMMIT
    for place in (folder, model / "blobs", model / "refs"):
        place.mkdir(parents=True)
    (model / "refs/main").write_text(COMMIT)
    (model / "blobs/c").write_text('{"model_type": "llama"}')
    save_file({}, model / "blobs/w")
    for name, blob in (("config.json", "c"), ("model.safetensors", "w")):
        (folder / name).symlink_to(f"../../blobs/{blob}")
    return folder


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_a_whole_snapshot_is_used_in_place(snapshot: Path, revision: str | None, capsys) -> None:
    options = HubOptions(local_files_only=True, revision=revision)
    folder = or_snapshot(find_folder("some/model"), options)
    assert (folder.root, folder.source, folder.hub_id) == (hub_root() / "some/model", snapshot, None)
    assert not folder.made_by_tool
    assert small_files(folder) == {"config.json": snapshot.parents[1] / "blobs/c"}
    line = f"some/model: the network is forbidden: the files in {snapshot} are used where they lie"
    assert capsys.readouterr().err == f"[ INFO ] : {line}\n"


@pytest.mark.parametrize("is_set", [False, True])
def test_the_environment_forbids_the_network(snapshot: Path, monkeypatch: pytest.MonkeyPatch, is_set: bool) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", str(int(is_set)))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", is_set)
    folder = or_snapshot(find_folder("some/model"), HubOptions())
    assert (folder.source == snapshot) == is_set


@pytest.mark.parametrize("fault", ["no weights", "no config", "a broken link", "no reference", "a path", "revision"])
def test_anything_else_is_not_used(snapshot: Path, fault: str) -> None:
    revision = None
    match fault:
        case "no weights":
            (snapshot / "model.safetensors").unlink()
        case "no config":
            (snapshot / "config.json").unlink()
        case "a broken link":
            (snapshot.parents[1] / "blobs/w").unlink()
        case "no reference":
            (snapshot.parents[1] / "refs/main").unlink()
        case "a path":
            (snapshot.parents[1] / "refs/main").write_text(f"../snapshots/{COMMIT}")
        case "revision":
            revision = "../refs/main"
    folder = find_folder("some/model")
    assert or_snapshot(folder, HubOptions(local_files_only=True, revision=revision)) == folder


def test_a_local_checkpoint_stays(snapshot: Path) -> None:
    folder = find_folder(snapshot)
    assert or_snapshot(folder, OFFLINE) is folder
