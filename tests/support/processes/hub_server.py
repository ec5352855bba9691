"""A Hub on this machine: what a download needs of the protocol, with a fault for each path that can be switched on.

`owner/model` has two commits on the branch main, one after the other; large files are redirected to the address of a
storage, which is another host to a client. Requests are logged, so that tests see what was fetched.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MOVED = "89abcdef0123456789abcdef0123456789abcdef"
TOKEN = "hf_KjDm4Xq7vRsLtWzYbNcPeAhGuFoIy1295"
LARGE = (".safetensors", ".bin")
STORAGE = "/storage/"


@dataclass(frozen=True)
class Request:
    """One request as the server saw it: method, path without its query, whether it came with a token, and the range."""

    method: str
    path: str
    token: str | None
    range: str | None

    @property
    def name(self) -> str:
        """The file asked for, empty for the list of files."""
        return "" if self.path.startswith("/api/") else self.path.rpartition("/")[2]


@dataclass(frozen=True)
class Fault:
    """What goes wrong when a file (or "" for the list of files) is asked for.

    kind: drop, stall, short, long, damage, status, loop. at: after so many bytes of the file. times: how often, -1
    always. body, headers: of a status.
    """

    kind: str
    at: int = 0
    times: int = -1
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)


class HubState:
    """What the server serves, and what it has seen."""

    def __init__(self, files: dict[str, bytes]):
        self.commits = {COMMIT: dict(files)}
        self.main = COMMIT
        self.faults: dict[str, Fault] = {}
        self.requests: list[Request] = []
        self.extra: list[dict[str, Any]] = []  # siblings that no file belongs to
        self.details = True  # whether the list of files has lengths and hashes
        self.gate: Callable[[str | None], tuple[int, dict[str, str]] | None] = lambda token: None
        self.swapped: dict[str, bytes] = {}  # content that came in the place of a file's after it was listed
        self.claimed: str | None = None  # the commit that answers say they are of
        self.closing = threading.Event()

    @property
    def files(self) -> dict[str, bytes]:
        """The files of the branch main."""
        return self.commits[self.main]

    @property
    def fetched(self) -> list[str]:
        """The names of the files whose bytes were asked for, in order."""
        return [one.name for one in self.requests if "/resolve/" in one.path and one.method == "GET"]

    def move(self, files: dict[str, bytes]) -> None:
        """The branch main goes on to another commit, with these files changed or new."""
        self.commits[MOVED] = {**self.files, **files}
        self.main = MOVED

    def take_fault(self, name: str, method: str) -> Fault | None:
        """The fault of a file, counted down; an answer without a body has none of those of a body."""
        fault = self.faults.get(name)
        if fault is None or fault.times == 0 or (method == "HEAD" and fault.kind not in ("status", "loop")):
            return None
        self.faults[name] = replace(fault, times=fault.times - 1)
        return fault


def blob_hash(body: bytes) -> str:
    """How git names a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


def is_large(name: str) -> bool:
    """Whether a file lies in the storage."""
    return name.endswith(LARGE)


def digest_of(name: str, body: bytes) -> str:
    """The hash that the Hub gives of a file."""
    return hashlib.sha256(body).hexdigest() if is_large(name) else blob_hash(body)


class Handler(BaseHTTPRequestHandler):
    """Answers as the Hub does, and under /storage/ as the storage behind it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    state: HubState

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        pass

    # ------------------------------------------------------------------------------------------------ what is asked
    def _answer(self) -> None:
        path = unquote(self.path.partition("?")[0])
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.state.requests.append(Request(self.command, path, token, self.headers.get("Range")))
        if path.startswith(STORAGE):
            commit, _, name = path.removeprefix(STORAGE).partition("/")
            return self._send_file(name, self.state.swapped.get(name, self.state.commits[commit][name]), {})
        listing = re.fullmatch(r"/api/models/owner/model(?:/revision/(.+))?", path)
        file = re.fullmatch(r"/owner/model/resolve/([^/]+)/(.+)", path)
        if listing:
            return self._send_listing(self._commit(listing[1]))
        if file is None:
            return self._send(404, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        return self._resolve(self._commit(file[1]), file[2], token)

    def _commit(self, revision: str | None) -> str | None:
        revision = self.state.main if revision in (None, "main") else revision
        return revision if revision in self.state.commits else None

    def _send_listing(self, commit: str | None) -> None:
        if commit is None:
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        siblings = [self._sibling(name, body) for name, body in self.state.commits[commit].items()]
        facts = {"id": "owner/model", "sha": commit, "siblings": [*siblings, *self.state.extra]}
        return self._send_file("", self.state.swapped.get("", json.dumps(facts).encode()), {})

    def _sibling(self, name: str, body: bytes) -> dict[str, Any]:
        if not self.state.details:
            return {"rfilename": name}
        entry = {"rfilename": name, "size": len(body), "blobId": blob_hash(body)}
        if is_large(name):
            entry["lfs"] = {"size": len(body), "sha256": hashlib.sha256(body).hexdigest(), "pointerSize": 130}
        return entry

    def _resolve(self, commit: str | None, name: str, token: str | None) -> None:
        refused = self.state.gate(token)
        if refused is not None:
            return self._send(refused[0], b"", refused[1])
        if commit is None:
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        body = self.state.swapped.get(name, self.state.commits[commit].get(name))
        if body is None:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        tag, commit_said = f'"{digest_of(name, body)}"', self.state.claimed or commit
        if not is_large(name):
            return self._send_file(name, body, {"ETag": tag, "X-Repo-Commit": commit_said})
        headers = {"X-Linked-Etag": tag, "X-Linked-Size": str(len(body)), "X-Repo-Commit": commit_said}
        place = f"http://localhost:{self.server.server_address[1]}{STORAGE}{commit}/{name}?signature=secret"
        return self._send(302, b"", {**headers, "Location": place})

    # ------------------------------------------------------------------------------------------------- what is sent
    def _send_file(self, name: str, body: bytes, headers: dict[str, str]) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        start, stop = (int(asked[1]), int(asked[2] or len(body) - 1) + 1) if asked else (0, len(body))
        fault = self.state.take_fault(name, self.command)
        if fault is not None and fault.kind == "damage":
            body = bytes(value ^ (place == fault.at) for place, value in enumerate(body))
        if fault is not None and fault.kind == "short":
            body = body[: fault.at]
        if fault is not None and fault.kind == "long":
            body += b"more than there is"
            stop = len(body)
        if fault is not None and self._spoil(fault, body[start:stop], fault.at - start, headers):
            return None
        if asked and start >= len(body):
            return self._send(416, b"", {"Content-Range": f"bytes */{len(body)}"})
        if asked:
            stop = min(stop, len(body))
            headers = {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(body)}"}
        return self._send(206 if asked else 200, body[start:stop], headers)

    def _spoil(self, fault: Fault, body: bytes = b"", at: int = 0, headers: dict[str, str] | None = None) -> bool:
        """Sends what the fault wants; whether that was all."""
        if fault.kind == "status":
            self._send(fault.status, b"", fault.headers)
        elif fault.kind == "loop":
            self._send(302, b"", {"Location": self.path})
        elif fault.kind in ("drop", "stall"):
            self._break_off(body, max(at, 0), headers or {}, stall=fault.kind == "stall")
        else:
            return False
        return True

    def _break_off(self, body: bytes, at: int, headers: dict[str, str], *, stall: bool) -> None:
        if self.headers.get("Range"):
            start = int(self.headers["Range"][6:].partition("-")[0])
            headers = {**headers, "Content-Range": f"bytes {start}-{start + len(body) - 1}/{start + len(body)}"}
        self.send_response(206 if self.headers.get("Range") else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:at])
        self.wfile.flush()
        if stall:
            self.state.closing.wait(20)
        else:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@contextmanager
def hub_of_tests(files: dict[str, bytes], home: Path, patch: pytest.MonkeyPatch) -> Iterator[HubState]:
    """The Hub that this process then asks, without a token, without long waits, with models under `home`."""
    from huggingface_hub import constants

    from hyperdex_ir.hub import requests as hub_requests

    with running_hub(files) as (state, endpoint):
        use_endpoint(endpoint, patch)
        patch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 5)
        patch.setattr(constants, "HF_TOKEN_PATH", str(home / "hf/token"))
        patch.setattr(hub_requests, "FIRST_WAIT", 0.001)
        patch.setenv("HYPERDEX_HOME", str(home))
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            patch.delenv(name, raising=False)
        yield state


def use_endpoint(endpoint: str, patch: pytest.MonkeyPatch) -> None:
    """As HF_ENDPOINT, which huggingface_hub reads when it is imported."""
    from huggingface_hub import constants

    patch.setattr(constants, "ENDPOINT", endpoint)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")


class Server(ThreadingHTTPServer):
    """Silent about clients that go away."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@contextmanager
def running_hub(files: dict[str, bytes]) -> Iterator[tuple[HubState, str]]:
    """A server on a free port: what it serves, and its address."""
    state = HubState(files)
    server = Server(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"state": state}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        state.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def gated(token: str | None) -> tuple[int, dict[str, str]] | None:
    """A gate that opens for TOKEN only; the Hub's own words."""
    if token == TOKEN:
        return None
    code = {"X-Error-Code": "GatedRepo"}
    if token is None:
        return 401, code | {"X-Error-Message": "Access to model owner/model is restricted. Please log in."}
    return 403, code | {"X-Error-Message": "Access to model is restricted and you are not in the authorized list."}
