"""Phase 1 against a Hub of our own on this machine: which files are fetched, in what order, and what is there then."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
from pathlib import Path

import pytest
import torch
from support.processes import forked
from support.processes.hub_models import FILES, NEEDED, SHARDS, contents, fetch
from support.processes.hub_server import COMMIT, MOVED, TOKEN, Fault, HubState, gated, hub_of_tests, running_hub

from hyperdex_ir.checkpoint.files import Checkpoint, weight_files
from hyperdex_ir.errors import (
    CheckpointError,
    ConfigError,
    DownloadError,
    HyperdexError,
    ModelNotFoundError,
)
from hyperdex_ir.hub.download import HubOptions, fetch_config, fetch_model
from hyperdex_ir.support.locations import MARKER, SAFETENSORS_INDEX, find_folder


def test_only_what_is_needed_is_fetched_and_weights_come_last(hub: HubState, tmp_path: Path):
    ckpt = fetch()
    assert ckpt == tmp_path / "hub/owner/model/ckpt"
    assert contents(ckpt) == NEEDED
    assert hub.requests[0].path == "/api/models/owner/model"
    assert hub.fetched[0] == "config.json"
    assert hub.fetched[-2:] == list(SHARDS)
    assert sorted(hub.fetched) == sorted(NEEDED)
    assert not (tmp_path / "hf").exists()
    marker = json.loads((ckpt / MARKER).read_text())
    assert (marker["hub_id"], marker["commit"], marker["complete"]) == ("owner/model", COMMIT, True)
    hub.requests.clear()
    fetch()
    fetch(local_files_only=True)
    assert hub.requests == []


def test_weight_files_without_a_needed_tensor_are_left_out(hub: HubState, capsys: pytest.CaptureFixture[str]):
    folder = find_folder("owner/model")
    fetch_config(folder, HubOptions())
    fetch_model(folder, HubOptions(), lambda name: name == "b")
    assert "1 of 2 weight files hold nothing of the text model: they are not fetched" in capsys.readouterr().err
    assert SHARDS[0] in hub.fetched
    assert SHARDS[1] not in hub.fetched
    assert weight_files(folder.source) == [folder.source / SHARDS[0]]
    count = len(hub.requests)
    fetch_config(folder, HubOptions())
    fetch_model(folder, HubOptions(), lambda name: name == "b")
    assert len(hub.requests) == count
    hub.move({"README.md": b"another commit"})
    fetch_config(folder, HubOptions(refresh=True))
    fetch_model(folder, HubOptions(refresh=True), lambda name: name == "b")
    assert SHARDS[1] not in hub.fetched


def test_an_index_of_the_users_own_is_not_shortened(hub: HubState, tmp_path: Path):
    folder = find_folder(tmp_path / "owner" / "model")
    folder.source.mkdir(parents=True)
    (folder.source / SAFETENSORS_INDEX).write_bytes(FILES[SAFETENSORS_INDEX])
    fetch_config(folder, HubOptions())
    fetch_model(folder, HubOptions(), lambda name: name == "b")
    assert (folder.source / SAFETENSORS_INDEX).read_bytes() == FILES[SAFETENSORS_INDEX]
    assert SHARDS[1] in hub.fetched


def test_everything_is_of_the_commit_that_was_found_first(hub: HubState):
    """The branch moves while the files are fetched."""
    fetch_config(find_folder("owner/model"), HubOptions())
    hub.move({SHARDS[0]: b"of the next commit", "tokenizer.json": b"[]"})
    fetch_model(find_folder("owner/model"), HubOptions())
    assert contents(find_folder("owner/model").source) == NEEDED
    assert all(COMMIT in one.path for one in hub.requests[1:])


def test_a_branch_that_has_moved_in_the_meantime(hub: HubState, capsys: pytest.CaptureFixture[str]):
    """A download that broke off goes on with the branch as it is now; what is the same is not fetched again."""
    hub.faults[SHARDS[1]] = Fault("status", status=400)
    with pytest.raises(DownloadError):
        fetch()
    hub.faults.clear()
    hub.move({"config.json": b'{"model_type": "opt"}', SHARDS[1]: b"the second of the next commit"})
    hub.requests.clear()
    ckpt = fetch()
    assert contents(ckpt) == {name: hub.files[name] for name in NEEDED}
    assert hub.fetched == ["config.json", SHARDS[1]]
    assert f"owner/model: has moved from commit {COMMIT[:12]} to {MOVED[:12]}" in capsys.readouterr().err


def test_a_complete_model_stays_until_it_is_asked_anew(hub: HubState, capsys: pytest.CaptureFixture[str]):
    ckpt = fetch()
    hub.move({SHARDS[0]: b"of the next commit"})
    hub.requests.clear()
    fetch()
    assert hub.requests == []
    fetch(refresh=True)
    assert hub.fetched == [SHARDS[0]]
    assert contents(ckpt) == {name: hub.files[name] for name in NEEDED}
    hub.faults[""] = Fault("status", status=500)
    fetch(refresh=True)
    assert "500 Internal Server Error (2 attempts); go on with the files that are there" in capsys.readouterr().err


def test_a_file_that_was_deleted_comes_back_of_the_same_commit(hub: HubState):
    ckpt = fetch()
    for name in (SHARDS[0], "tokenizer.json"):
        (ckpt / name).unlink()
    with pytest.raises(DownloadError, match="are not complete"):
        fetch(local_files_only=True)
    hub.move({SHARDS[0]: b"of the next commit"})
    hub.requests.clear()
    assert contents(fetch()) == NEEDED
    assert hub.fetched == ["tokenizer.json", SHARDS[0]]


def test_a_commit_that_is_gone(hub: HubState):
    """The history was rewritten between the two phases."""
    fetch_config(find_folder("owner/model"), HubOptions())
    hub.move({})
    del hub.commits[COMMIT]
    with pytest.raises(DownloadError, match=r"generation_config\.json: the commit is gone from the Hub"):
        fetch_model(find_folder("owner/model"), HubOptions())
    assert contents(fetch()) == NEEDED


def test_an_install_location_and_a_broken_off_download(hub: HubState, tmp_path: Path):
    hub.faults[SHARDS[1]] = Fault("status", status=400)
    path = tmp_path / "models/owner/model"
    with pytest.raises(DownloadError, match=r"^owner/model: "):
        fetch(path)
    assert not (path / "ckpt" / SHARDS[1]).exists()
    hub.faults.clear()
    hub.requests.clear()
    assert contents(fetch(path)) == NEEDED
    assert hub.fetched == [SHARDS[1]]


def test_another_revision_replaces_what_differs(hub: HubState):
    ckpt = fetch()
    hub.requests.clear()
    hub.commits[MOVED] = {**FILES, SHARDS[0]: b"first shard of another revision"}
    fetch(revision=MOVED)
    assert hub.fetched == [SHARDS[0]]
    assert contents(ckpt) == {name: hub.commits[MOVED][name] for name in NEEDED}
    hub.requests.clear()
    fetch(revision=MOVED)
    assert hub.requests == []


def test_files_that_are_there_are_compared_not_fetched(hub: HubState):
    """A folder of an older version has a marker without a commit; someone has put other weights into it."""
    ckpt = fetch()
    (ckpt / MARKER).write_text(json.dumps({"hub_id": "owner/model", "revision": None}))
    (ckpt / SHARDS[0]).unlink()
    (ckpt / SHARDS[1]).write_bytes(b"SECOND shard")
    hub.requests.clear()
    assert contents(fetch()) == NEEDED
    assert sorted(hub.fetched) == sorted(SHARDS)


def test_a_mirror_that_lists_names_only(hub: HubState):
    hub.details = False
    assert contents(fetch()) == NEEDED


@pytest.mark.parametrize(
    ("model_id", "revision", "local", "error", "words"),
    [
        ("owner/none", None, False, ModelNotFoundError, "owner/none: no such directory, and no such model on the Hub"),
        ("owner/model", "v9", False, DownloadError, "owner/model: the Hub has no revision v9"),
        ("owner/model", None, True, DownloadError, "owner/model: not downloaded, and only local files are allowed"),
    ],
)
def test_refusals_leave_no_folder(hub: HubState, tmp_path: Path, model_id, revision, local, error, words):
    with pytest.raises(error) as caught:
        fetch(model_id, revision, local_files_only=local)
    assert str(caught.value) == words
    assert not (tmp_path / "hub").exists()


def torch_file(**tensors: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue()


def test_torch_files_become_safetensors_where_there_are_no_others(hub: HubState):
    weight = torch.arange(12, dtype=torch.float16).reshape(3, 4)
    first = {"a": weight.t(), "tied": weight}
    second = {"b": torch.tensor([1.5, -2.0], dtype=torch.bfloat16)}
    shards = {"pytorch_model-00001-of-00002.bin": first, "pytorch_model-00002-of-00002.bin": second}
    weight_map = {name: file for file, tensors in shards.items() for name in tensors}
    files = {"config.json": b"{}", **{file: torch_file(**tensors) for file, tensors in shards.items()}}
    files["pytorch_model.bin.index.json"] = json.dumps({"weight_map": weight_map}).encode()
    hub.commits[COMMIT] = files
    ckpt = fetch()
    checkpoint = Checkpoint(ckpt)
    assert sorted(checkpoint.tensors) == ["a", "b", "tied"]
    assert checkpoint.read("a").tolist() == weight.t().tolist()
    assert checkpoint.read("tied").tolist() == weight.tolist()
    assert checkpoint.read("b").tolist() == [0x3FC0, 0xC000]
    assert not list(ckpt.glob("*.bin"))
    hub.requests.clear()
    fetch()
    assert hub.requests == []
    hub.move({"pytorch_model-00002-of-00002.bin": torch_file(b=torch.zeros(2, dtype=torch.bfloat16))})
    fetch(refresh=True)
    assert hub.fetched == ["pytorch_model-00002-of-00002.bin"]
    assert Checkpoint(ckpt).read("b").tolist() == [0, 0]


def test_a_torch_file_with_code_in_it_is_refused(hub: HubState, tmp_path: Path):
    hub.commits[COMMIT] = {"config.json": b"{}", "pytorch_model.bin": pickle.dumps({"a": print})}
    with pytest.raises(CheckpointError):
        fetch()
    assert not (tmp_path / "hub/owner/model/ckpt/model.safetensors").exists()


def test_no_config_and_no_weights(hub: HubState, tmp_path: Path):
    for name in ("model.safetensors.index.json", "pytorch_model.bin"):
        del hub.files[name]
    with pytest.raises(DownloadError, match="owner/model: has no weights"):
        fetch()
    del hub.files["config.json"]
    with pytest.raises(ConfigError, match=r"owner/model: has no config\.json"):
        fetch(tmp_path / "other/owner/model")


def test_weights_by_other_names(hub: HubState):
    for name in ("model.safetensors.index.json", "pytorch_model.bin", *SHARDS):
        del hub.files[name]
    hub.files["consolidated.safetensors"] = b"x"
    with pytest.raises(DownloadError, match=r"has no weights .*; there are other weights: consolidated\.safetensors$"):
        fetch()


def test_weights_in_a_folder(hub: HubState):
    hub.files[SAFETENSORS_INDEX] = json.dumps({"weight_map": {"a": "sub/a.safetensors"}}).encode()
    hub.files["sub/a.safetensors"] = b"x"
    with pytest.raises(DownloadError, match=r"names sub/a\.safetensors: only files beside the index") as caught:
        fetch()
    assert caught.value.hint == "hf download owner/model --local-dir DIR, then compile DIR"


def test_a_file_that_only_the_index_knows(hub: HubState):
    del hub.files[SHARDS[1]]
    with pytest.raises(DownloadError, match=f"owner/model: has no file {SHARDS[1]}, which {SAFETENSORS_INDEX} names"):
        fetch()


@pytest.mark.parametrize(
    "name",
    ["../outside.json", "/outside.json", "a/../../outside.json", "..", "a\\..\\b", "", 3, ".", "a\x9b31m", "\u202ea"],
)
def test_a_list_names_only_files_in_its_folder(hub: HubState, tmp_path: Path, name: object):
    hub.extra = [{"rfilename": name, "size": 1}]
    with pytest.raises(HyperdexError, match="outside its folder"):
        fetch()
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize("name", ["../outside.safetensors", "/outside.safetensors", "a/../b.safetensors", "..", 3])
def test_an_index_names_only_files_beside_it(tmp_path: Path, name: object):
    (tmp_path / SAFETENSORS_INDEX).write_text(json.dumps({"weight_map": {"a.weight": name}}))
    with pytest.raises(CheckpointError, match="expected a safetensors file beside the index"):
        weight_files(tmp_path)


def test_an_index_from_the_hub_is_looked_at_too(hub: HubState, tmp_path: Path):
    hub.files[SAFETENSORS_INDEX] = json.dumps({"weight_map": {"a": "../../../../outside.safetensors"}}).encode()
    with pytest.raises(CheckpointError, match="expected a safetensors file beside the index"):
        fetch()
    assert not list(tmp_path.rglob("outside*"))


def test_the_disk_is_looked_at_before_the_weights(hub: HubState, monkeypatch: pytest.MonkeyPatch):
    from shutil import disk_usage

    monkeypatch.setattr("shutil.disk_usage", lambda path: disk_usage(path)._replace(free=20))
    with pytest.raises(HyperdexError, match=r"the weights still to fetch have 23 bytes, 20 are free"):
        fetch()
    assert not set(SHARDS) & set(hub.fetched)


# ------------------------------------------------------------------------------------ the environment, as a user has it
def command(home: Path, endpoint: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `hyperdex`; huggingface_hub reads its environment when it is imported."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    own = {"HYPERDEX_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HOME": str(home / "hf")}
    return forked.hyperdex(*arguments, env={**kept, **own, **environment})


@pytest.mark.slow
def test_an_unsupported_model_costs_no_download(tmp_path: Path):
    files = {**FILES, "config.json": b'{"architectures": ["T5ForConditionalGeneration"], "model_type": "t5"}'}
    store = tmp_path / "hf/token"
    store.parent.mkdir()
    store.write_text(TOKEN)
    with running_hub(files) as (state, endpoint):
        state.gate = gated
        done = command(tmp_path, endpoint, "compile", "owner/model")
        assert done.returncode == 1
        assert "error[HDX0103]: " in done.stderr
        assert state.fetched == ["config.json"]
        state.requests.clear()
        done = command(tmp_path, endpoint, "compile", "owner/model", "--local-files-only", "--revision", "v1")
        assert "error[HDX0105]: owner/model: not downloaded, and only local files are allowed" in done.stderr
        assert state.requests == []
    assert list(store.parent.iterdir()) == [store]


def test_a_tokenizer_that_cannot_be_read_costs_no_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from support.models.tiny import tiny_opt_config

    from hyperdex_ir.backend import text
    from hyperdex_ir.tools import AutoCompiler

    config = tiny_opt_config(architectures=["OPTForCausalLM"]).to_json_string().encode()
    files = {name: body for name, body in FILES.items() if name != "tokenizer.json"}
    files |= {"config.json": config, "tokenizer.model": b"pieces"}
    monkeypatch.setattr(text, "_is_installed", lambda package: False)
    line = r"its only tokenizer is tokenizer\.model, which is read with sentencepiece and protobuf: not installed"
    with hub_of_tests(files, tmp_path, monkeypatch) as hub, pytest.raises(ConfigError, match=line):
        AutoCompiler().compile("owner/model")
    assert hub.fetched == ["config.json"]


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{"HF_HUB_OFFLINE": "1"}, {}])
def test_a_hub_that_is_not_there(tmp_path: Path, environment: dict[str, str]):
    done = command(tmp_path, "http://127.0.0.1:9", "compile", "owner/model", HYPERDEX_HUB_ATTEMPTS="1", **environment)
    assert done.returncode == 1
    line = next(one for one in done.stderr.splitlines() if one.startswith("error"))
    assert line.startswith("error[HDX0105]: owner/model: no such directory, and not fetched from the Hub: ")
    assert ("HF_HUB_OFFLINE" if environment else "no connection to http://127.0.0.1:9") in line
    assert "Traceback" not in done.stderr
