"""Phase 1 against a Hub of our own on this machine: files that the user has put into the folder of a model."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support.processes.hub_models import FILES, NEEDED, SHARDS, contents, fetch
from support.processes.hub_server import COMMIT, Fault, HubState

from hyperdex_ir.backend.staging import settle
from hyperdex_ir.checkpoint.files import weight_files
from hyperdex_ir.errors import (
    DownloadError,
    StorageError,
)
from hyperdex_ir.hub.download import HubOptions, fetch_config, is_fetched
from hyperdex_ir.support.locations import MARKER, find_folder

OWN = {"config.json": b"{}", "model.safetensors": b"the only weights", SHARDS[0]: b"other weights"}


@pytest.mark.parametrize("marker", [None, {"hub_id": "owner/model", "revision": None}])
def test_files_of_the_users_own_are_moved_and_not_removed(
    hub: HubState, tmp_path: Path, marker: dict[str, Any] | None, capsys: pytest.CaptureFixture[str]
):
    """When the files of a commit are asked for, whatever the marker says."""
    ckpt = tmp_path / "hub/owner/model/ckpt"
    ckpt.mkdir(parents=True)
    for name, content in OWN.items():
        (ckpt / name).write_bytes(content)
    (ckpt.parent / "replaced").mkdir()
    (ckpt.parent / "replaced/config.json").write_bytes(b"of an earlier time")
    if marker is not None:
        (ckpt / MARKER).write_text(json.dumps(marker))
    assert contents(fetch(refresh=True)) == NEEDED
    moved = {path.name: path.read_bytes() for path in (ckpt.parent / "replaced").iterdir()}
    first = moved.pop("config.json")
    assert first == b"of an earlier time"
    assert {name.removesuffix(".1"): content for name, content in moved.items()} == OWN
    assert capsys.readouterr().err.count("not downloaded by this tool: moved to") == len(OWN)


def test_only_what_was_downloaded_counts_as_that(hub: HubState):
    ckpt = fetch()
    folder = find_folder("owner/model")
    assert all(is_fetched(folder, name) for name in NEEDED)
    before = (ckpt / SHARDS[0]).read_bytes()
    (ckpt / "other").write_bytes(before)
    (ckpt / "other").rename(ckpt / SHARDS[0])
    assert not is_fetched(folder, SHARDS[0])
    assert not is_fetched(folder, "../ckpt/nothing.safetensors")


def test_a_marker_of_someone_elses_names_no_file_of_the_users(hub: HubState, tmp_path: Path):
    """It lists the files with sizes and times, but not with the inodes that they have here."""
    ckpt = fetch()
    copy = Path(shutil.copytree(ckpt, tmp_path / "copy/ckpt"))
    folder = find_folder(copy.parent)
    assert folder.hub_id == "owner/model"
    assert not any(is_fetched(folder, name) for name in NEEDED)


@pytest.mark.parametrize("complete", [True, False])
def test_a_forged_marker_does_not_have_the_users_weights_removed(hub: HubState, tmp_path: Path, complete: bool):
    """It lists, of another commit, the public length and hash of weights that the user has moved there."""
    root, own = tmp_path / "evil", b"the only weights"
    listed = {"bytes": len(own), "digest": hashlib.sha256(own).hexdigest()}
    forged = {"hub_id": "owner/model", "revision": None, "complete": complete, "commit": "f" * 40}
    (root / "ckpt").mkdir(parents=True)
    (root / "ckpt/config.json").write_bytes(FILES["config.json"])
    (root / "ckpt/model.safetensors").write_bytes(own)
    (root / "ckpt" / MARKER).write_text(json.dumps({**forged, "files": {"model.safetensors": listed}}))
    fetch_config(find_folder(root), HubOptions(refresh=complete))
    assert (root / "replaced/model.safetensors").read_bytes() == own


def test_a_forged_marker_does_not_have_the_users_index_replaced(hub: HubState, tmp_path: Path):
    """It says that the index is of torch's weights, of which one is made."""
    root, shard = tmp_path / "evil", "pytorch_model-00001-of-00001.bin"
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(2)}, buffer)
    index = json.dumps({"weight_map": {"a": shard}}).encode()
    files = {"config.json": FILES["config.json"], shard: buffer.getvalue(), "pytorch_model.bin.index.json": index}
    hub.commits[COMMIT] = files
    listed = {
        name: {"bytes": len(one), "digest": hashlib.sha1(b"blob %d\0" % len(one) + one).hexdigest()}
        for name, one in files.items()
    }
    forged = {"hub_id": "owner/model", "revision": None, "complete": False, "commit": COMMIT, "files": listed}
    (root / "ckpt").mkdir(parents=True)
    own = json.dumps({"weight_map": {"a": "mine.safetensors"}})
    (root / "ckpt/model.safetensors.index.json").write_text(own)
    (root / "ckpt" / MARKER).write_text(json.dumps(forged))
    fetch(root)
    assert (root / "replaced/model.safetensors.index.json").read_text() == own
    assert weight_files(root / "ckpt") == [root / "ckpt/model-00001-of-00001.safetensors"]


def test_hidden_parts_of_the_users_own_stay(hub: HubState):
    """Only what has the name of an unfinished download goes when the branch has moved."""
    ckpt = fetch()
    own = [".my notes.part", ".thesis.tex.1.part", ".video.mp4.0123456789abcdef.part"]
    for name in (*own, f".{SHARDS[0]}.0123456789abcdef.part"):
        (ckpt / name).write_bytes(b"half")
    hub.move({SHARDS[0]: b"of the next commit"})
    fetch(refresh=True)
    assert sorted(path.name for path in ckpt.glob(".*.part")) == sorted(own)


@pytest.mark.parametrize("target", ["mine", "nothing"])
def test_a_part_that_is_a_link(hub: HubState, tmp_path: Path, target: str):
    (tmp_path / "mine").write_bytes(b"mine")
    fetch_config(find_folder("owner/model"), HubOptions())
    ckpt = find_folder("owner/model").source
    digest = hashlib.sha256(FILES[SHARDS[0]]).hexdigest()
    (ckpt / f".{SHARDS[0]}.{digest[:16]}.part").symlink_to(tmp_path / target)
    with pytest.raises(StorageError, match=f"a link to {tmp_path / target}, which is not followed"):
        fetch()
    assert (tmp_path / "mine").read_bytes() == b"mine"
    assert not (tmp_path / "nothing").exists()


def test_the_folder_of_a_fetch_that_fails_goes_with_what_it_has_left_only(hub: HubState, tmp_path: Path):
    hub.faults["config.json"] = Fault("status", status=400)
    (tmp_path / "hub").mkdir()
    with pytest.raises(DownloadError):
        fetch()
    assert list((tmp_path / "hub").iterdir()) == []


def test_staged_copies_do_not_replace_what_was_downloaded(hub: HubState):
    """A config.json beside `ckpt/` does not make that the place of copies."""
    ckpt = fetch()
    root, before = ckpt.parent, contents(ckpt)
    (root / "config.json").write_bytes(FILES["config.json"])
    (root / ".hyperdex_next/ckpt").mkdir(parents=True)
    for name in ("tokenizer.json", "chat_template.jinja"):
        (root / ".hyperdex_next/ckpt" / name).write_text("theirs")
    (root / ".hyperdex_next/manifest.json").write_text("{}")
    staged = {"2": {"files": {"ckpt/tokenizer.json": {}, "ckpt/chat_template.jinja": {}}}}
    (root / ".hyperdex_next/.hyperdex_state.json").write_text(json.dumps({"format": 4, "phases": staged}))
    settle(find_folder(root))
    assert contents(ckpt) == before
