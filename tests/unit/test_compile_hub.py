"""Phase 1 against a Hub of our own on this machine: which files are fetched, in what order, and what goes wrong."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from hyperdex_ir.errors import ConfigError
from hyperdex_ir.frontend.checkpoint import Checkpoint
from hyperdex_ir.hub import WEIGHTS_INDEX, weight_files

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
FILES = {
    "config.json": b'{"architectures": ["OPTForCausalLM"]}',
    "tokenizer.json": b"{}",
    "generation_config.json": b"{}",
    "README.md": b"not needed",
    "pytorch_model.bin": b"not needed either",
    "onnx/model.onnx": b"nor this",
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {"a": SHARDS[1], "b": SHARDS[0], "c": SHARDS[1]}}
    ).encode(),
    SHARDS[0]: b"first shard",
    SHARDS[1]: b"second shard",
}


class FakeHub(BaseHTTPRequestHandler):
    """The few answers of the Hub that a download takes. `owner/model` exists; `owner/gated` is gated."""

    files: dict[str, bytes]
    fetched: list[str]
    refused: str | None

    def do_HEAD(self) -> None:
        self._answer(send_body=False)

    def do_GET(self) -> None:
        self._answer(send_body=True)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, send_body: bool) -> None:
        path = self.path.split("?")[0]
        if path.startswith("/owner/gated/"):
            return self._send(403, b"", {"X-Error-Code": "GatedRepo"}, send_body)
        if path == "/api/models/owner/model" or path.startswith("/api/models/owner/model/revision/"):
            siblings = [{"rfilename": name} for name in self.files]
            body = json.dumps({"id": "owner/model", "sha": COMMIT, "siblings": siblings}).encode()
            return self._send(200, body, {}, send_body)
        prefix = "/owner/model/resolve/"
        if not path.startswith(prefix):
            return self._send(404, b"", {"X-Error-Code": "RepoNotFound"}, send_body)
        revision, name = path.removeprefix(prefix).split("/", 1)
        if revision not in ("main", COMMIT):
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"}, send_body)
        if name not in self.files:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, send_body)
        if send_body:
            self.fetched.append(name)
        if name == self.refused:
            return self._send(400, b"", {}, send_body)
        tag = hashlib.sha1(self.files[name]).hexdigest()
        return self._send(200, self.files[name], {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT}, send_body)

    def _send(self, status: int, body: bytes, headers: dict[str, str], send_body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if send_body:
            self.wfile.write(body)


@pytest.fixture
def hub() -> Iterator[tuple[type[FakeHub], str]]:
    handler = type("Handler", (FakeHub,), {"files": dict(FILES), "fetched": [], "refused": None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield handler, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


SCRIPT = """
import sys
from hyperdex_ir.errors import HyperdexError
from hyperdex_ir.hub import HubOptions, fetch_config, fetch_model
from hyperdex_ir.locations import find_folder
model_id, revision, local = sys.argv[1], sys.argv[2] or None, sys.argv[3] == "local"
options = HubOptions(None, revision, local)
try:
    fetch_config(find_folder(model_id), options)
    fetch_model(find_folder(model_id), options)
except HyperdexError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def fetch(home: Path, endpoint: str, model_id: str, revision: str = "", local: str = "", **environment: str):
    """Runs both fetches in a process of its own, because huggingface_hub reads its environment when imported."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    own = {"HYPERDEX_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HOME": str(home / "hf"), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(model_id), revision, local],
        env={**kept, **own, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_only_what_is_needed_is_fetched_and_weights_come_last(hub, tmp_path: Path):
    handler, endpoint = hub
    done = fetch(tmp_path, endpoint, "owner/model")
    assert done.returncode == 0, done.stderr
    ckpt = tmp_path / "hub/owner/model/ckpt"
    expected = {name: body for name, body in FILES.items() if name.endswith((".json", ".safetensors"))}
    assert {name: (ckpt / name).read_bytes() for name in expected} == expected
    assert not any((ckpt / name).exists() for name in ("README.md", "pytorch_model.bin", "onnx"))
    assert handler.fetched[0] == "config.json"
    assert handler.fetched[-2:] == list(SHARDS)
    handler.fetched.clear()
    assert fetch(tmp_path, "http://127.0.0.1:9", "owner/model").returncode == 0
    assert handler.fetched == []


def test_an_install_location_and_a_broken_off_download(hub, tmp_path: Path):
    handler, endpoint = hub
    handler.refused = SHARDS[1]
    path = tmp_path / "models/owner/model"
    broken = fetch(tmp_path, endpoint, str(path))
    assert broken.returncode == 1
    assert broken.stderr.startswith("DownloadError: owner/model: ")
    assert len(broken.stderr.splitlines()) == 1
    assert not (path / "ckpt" / SHARDS[1]).exists()
    handler.refused = None
    handler.fetched.clear()
    assert fetch(tmp_path, endpoint, str(path)).returncode == 0
    assert handler.fetched == [SHARDS[1]]
    assert (path / "ckpt" / SHARDS[1]).read_bytes() == FILES[SHARDS[1]]


def test_another_revision_replaces_the_weights(hub, tmp_path: Path):
    handler, endpoint = hub
    assert fetch(tmp_path, endpoint, "owner/model").returncode == 0
    handler.fetched.clear()
    handler.files[SHARDS[0]] = b"first shard of another revision"
    assert fetch(tmp_path, endpoint, "owner/model", COMMIT).returncode == 0
    assert (tmp_path / "hub/owner/model/ckpt" / SHARDS[0]).read_bytes() == handler.files[SHARDS[0]]
    handler.fetched.clear()
    assert fetch(tmp_path, "http://127.0.0.1:9", "owner/model", COMMIT).returncode == 0


@pytest.mark.parametrize(
    ("model_id", "revision", "local", "words"),
    [
        ("owner/none", "", "", "ModelNotFoundError: owner/none: no such directory, and no such model on the Hub"),
        ("owner/gated", "", "", "DownloadError: owner/gated: the Hub gives access on request only"),
        ("owner/model", "v9", "", "DownloadError: owner/model: the Hub has no revision v9"),
        ("owner/model", "", "local", "DownloadError: owner/model: not downloaded, and only local files are allowed"),
    ],
)
def test_refusals_are_one_line_and_leave_no_folder(hub, tmp_path: Path, model_id, revision, local, words):
    done = fetch(tmp_path, hub[1], model_id, revision, local)
    assert done.returncode == 1
    assert done.stderr.strip() == words
    assert not (tmp_path / "hub").exists()


def torch_file(**tensors: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue()


def test_torch_files_become_safetensors_where_there_are_no_others(hub, tmp_path: Path):
    handler, endpoint = hub
    del handler.files["model.safetensors.index.json"]
    weight = torch.arange(12, dtype=torch.float16).reshape(3, 4)
    first = {"a": weight.t(), "tied": weight}
    second = {"b": torch.tensor([1.5, -2.0], dtype=torch.bfloat16)}
    shards = {"pytorch_model-00001-of-00002.bin": first, "pytorch_model-00002-of-00002.bin": second}
    weight_map = {name: file for file, tensors in shards.items() for name in tensors}
    handler.files = {"config.json": b"{}", **{file: torch_file(**tensors) for file, tensors in shards.items()}}
    handler.files["pytorch_model.bin.index.json"] = json.dumps({"weight_map": weight_map}).encode()
    assert fetch(tmp_path, endpoint, "owner/model").returncode == 0
    ckpt = tmp_path / "hub/owner/model/ckpt"
    checkpoint = Checkpoint(ckpt)
    assert sorted(checkpoint.tensors) == ["a", "b", "tied"]
    assert checkpoint.read("a").tolist() == weight.t().tolist()
    assert checkpoint.read("tied").tolist() == weight.tolist()
    assert checkpoint.read("b").tolist() == [0x3FC0, 0xC000]
    assert not list(ckpt.glob("*.bin"))
    handler.fetched.clear()
    assert fetch(tmp_path, endpoint, "owner/model").returncode == 0
    assert handler.fetched == []


def test_a_torch_file_with_code_in_it_is_refused(hub, tmp_path: Path):
    handler, endpoint = hub
    handler.files = {"config.json": b"{}", "pytorch_model.bin": pickle.dumps({"a": print})}
    done = fetch(tmp_path, endpoint, "owner/model")
    assert done.returncode == 1
    assert "CheckpointError: " in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "hub/owner/model/ckpt/model.safetensors").exists()


def test_no_config_and_no_weights(hub, tmp_path: Path):
    handler, endpoint = hub
    for name in ("model.safetensors.index.json", "pytorch_model.bin"):
        del handler.files[name]
    done = fetch(tmp_path, endpoint, "owner/model")
    assert "DownloadError: owner/model: has no weights" in done.stderr
    del handler.files["config.json"]
    done = fetch(tmp_path / "other", endpoint, "owner/model")
    assert done.stderr.strip() == "ConfigError: owner/model: has no config.json"


def test_a_hub_that_is_not_there(tmp_path: Path):
    done = fetch(tmp_path, "http://127.0.0.1:9", "owner/model", HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert done.stderr.startswith("DownloadError: owner/model: no such directory, and not fetched from the Hub: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["../outside.safetensors", "/outside.safetensors", "a/b.safetensors", "..", 3])
def test_an_index_names_only_files_beside_it(tmp_path: Path, name: object):
    (tmp_path / WEIGHTS_INDEX).write_text(json.dumps({"weight_map": {"a.weight": name}}))
    with pytest.raises(ConfigError, match="expected the name of a file beside it"):
        weight_files(tmp_path)
