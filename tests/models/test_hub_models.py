"""Whole commands against a Hub on this machine: a compile, a plan, and the access token, which nothing may keep."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.models.tiny import tiny_llama_config, write_checkpoint
from support.processes.hub_server import COMMIT, TOKEN, Fault, HubState, gated, hub_of_tests, running_hub

from hyperdex_ir.cli.main import main
from hyperdex_ir.errors import PassError
from hyperdex_ir.passes.lpu_fuse_norm import LpuFuseNormPass
from hyperdex_ir.support.locations import MARKER
from hyperdex_ir.tools import AutoCompiler

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In four shards."""
    return write_checkpoint(
        tiny_llama_config(), tmp_path_factory.mktemp("hub") / "model", "bfloat16", max_shard_size="60KB"
    )


@pytest.fixture(scope="module")
def files(checkpoint: Path) -> dict[str, bytes]:
    """What the Hub has; more than is needed."""
    own = {path.name: path.read_bytes() for path in sorted(checkpoint.iterdir())}
    assert sum(name.endswith(".safetensors") for name in own) > 2
    return own | {"README.md": b"# a model", "pytorch_model.bin": bytes(100_000)}


@pytest.fixture
def hub(files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubState]:
    with hub_of_tests(files, tmp_path, monkeypatch) as state:
        yield state


def shown_tokens() -> list[str]:
    """Command lines of this machine that the token is in."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:  # it has ended
            continue
        if TOKEN.encode() in line:
            found.append(line.decode())
    return found


def check_nowhere(folder: Path, *texts: str) -> None:
    """The token is in no file of a folder, in no name of one, and in no text."""
    paths = sorted(folder.rglob("*"))
    assert any(path.is_file() for path in paths)
    for path in paths:
        assert TOKEN not in str(path)
        if path.is_file():
            assert TOKEN.encode() not in path.read_bytes(), path
    assert not any(TOKEN in text for text in texts)
    assert shown_tokens() == []


def test_a_compile_with_a_token_on_its_command_line(files: dict[str, bytes], checkpoint: Path, tmp_path: Path) -> None:
    """Nothing keeps the token, and of the weights there is one copy, in ckpt/."""
    shown: list[list[str]] = []

    def gate(token: str | None) -> tuple[int, dict[str, str]] | None:
        shown.append(shown_tokens())
        return gated(token)

    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    environment |= {"HYPERDEX_HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf"), "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    script = Path(sys.executable).with_name("hyperdex")
    with running_hub(files) as (state, endpoint):
        state.gate = gate
        done = subprocess.run(
            [script, "compile", "owner/model", "--token", TOKEN, "--dump-ir", tmp_path / "ir", "--revision", "main"],
            env={**environment, "HF_ENDPOINT": endpoint, "HF_DEBUG": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        fetched = state.fetched
    assert done.returncode == 0, done.stderr
    assert len(shown) >= len(fetched)
    assert shown == [[]] * len(shown)
    check_nowhere(tmp_path, done.stdout, done.stderr)
    needed = {name: body for name, body in files.items() if name not in ("README.md", "pytorch_model.bin")}
    assert sorted(fetched) == sorted(needed)
    ckpt = tmp_path / "hub/owner/model/ckpt"
    present = {path.name: path.read_bytes() for path in ckpt.iterdir()}
    written = [MARKER, "hyperdex_config.json", "hyperdex_model.bin", "hyperdex_tokenizer_config.json"]
    assert {name: body for name, body in present.items() if name not in written} == needed
    assert sorted(present) == sorted([*needed, *written])
    assert not (tmp_path / "hf").exists()
    weights = {body for name, body in needed.items() if name.endswith(".safetensors")}
    everywhere = [path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() in weights]
    assert {path.parent for path in everywhere} == {ckpt}
    for line in (
        f"[ INFO ] : Download model at {ckpt}",
        f"[ INFO ] : config.json: {len(files['config.json'])} bytes",
    ):
        assert line in done.stderr.splitlines()
    plain = AutoCompiler().compile(str(checkpoint), output_dir=tmp_path / "plain")
    assert plain.parameters[0].read_bytes() == (ckpt.parent / "param" / plain.parameters[0].name).read_bytes()


@pytest.mark.parametrize("path", ["echo", "elsewhere", "listing", "drop"])
def test_a_failure_does_not_repeat_the_token(
    hub: HubState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], path: str
) -> None:
    """A server may send it back: in its words, in an address, in the place of a list."""
    echo = {"X-Error-Code": "GatedRepo", "X-Error-Message": f"Bearer {TOKEN} is not in the authorized list"}
    hub.faults |= {
        "echo": {"config.json": Fault("status", status=403, headers=echo)},
        "elsewhere": {"config.json": Fault("status", status=302, headers={"Location": f"http://[{TOKEN}"})},
        "listing": {"": Fault("status", status=302, headers={"Location": f"ftp://x/?token={TOKEN}"})},
        "drop": {"config.json": Fault("drop", at=9)},
    }[path]
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HYPERDEX_HUB_ATTEMPTS", "1")
    (tmp_path / "kept").write_text("")
    for command in ("compile", "plan"):
        with pytest.raises(SystemExit) as ended:
            main([command, "owner/model"])
        assert ended.value.code == 1
        printed = capfd.readouterr()
        assert "error[HDX010" in printed.err
        assert "internal error" not in printed.err
        check_nowhere(tmp_path, *printed)


def test_a_reproducer_does_not_keep_the_token(
    hub: HubState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.gate = gated

    def broken(*_: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(LpuFuseNormPass, "apply", broken)
    with pytest.raises(PassError) as caught:
        AutoCompiler().compile("owner/model", token=TOKEN)
    repro = tmp_path / "hub/owner/model/repro"
    assert (repro / "command.txt").is_file()
    assert not (tmp_path / "hub/owner/model/manifest.json").exists()
    check_nowhere(tmp_path, str(caught.value), caught.value.hint, *caught.value.notes, *capfd.readouterr())


# ------------------------------------------------------------------------------------------------------------- plan
def test_a_plan_fetches_headers_only(
    hub: HubState, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """And is that of the same checkpoint on this machine, with the matrix type of its weights."""
    hub.gate = gated
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(SystemExit) as ended:
        main(["plan", "owner/model", "--json"])
    assert ended.value.code == 0
    printed = capfd.readouterr()
    planned = json.loads(printed.out)
    local = AutoCompiler().plan(str(checkpoint))
    assert planned["model"].pop("name") == "owner/model"
    assert local["model"].pop("name") == str(checkpoint)
    assert planned == local
    assert planned["model"]["matrix_type"] == "bf16"
    shards = [name for name in hub.files if name.endswith(".safetensors")]
    needed = ["config.json", "model.safetensors.index.json", *shards]
    assert sorted(set(hub.fetched)) == sorted(needed)
    assert all(one.range for one in hub.requests if one.name in shards)
    assert not (tmp_path / "hub").exists()
    (tmp_path / "kept").write_text("")
    check_nowhere(tmp_path, *printed)


def test_a_plan_asks_for_few_bytes(hub: HubState) -> None:
    """A header that is longer than the first request takes a second one, which ends with it."""
    name = next(name for name in hub.files if name.endswith(".safetensors"))
    body, end = hub.files[name], 8 + int.from_bytes(hub.files[name][:8], "little")
    header = body[8:end].ljust(150_000)
    hub.commits[COMMIT] = hub.files | {name: len(header).to_bytes(8, "little") + header + body[end:]}
    AutoCompiler().plan("owner/model")
    ranges = [one.range for one in hub.requests if one.name == name and "/resolve/" in one.path]
    assert ranges == ["bytes=0-100000", "bytes=8-150007"]


def header(text: bytes) -> bytes:
    """A file of weights that ends with its header."""
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"abc", "not safetensors: file is too small"),
        (b"\xff" * 64, "not safetensors: safetensors header is too big"),
        ((64).to_bytes(8, "little") + b"{" * 64, "model-00001-of-"),
        (header(b"[]"), "not safetensors"),
        (header(b'{"a": 1}'), "not safetensors"),
        (header(b'{"a": {"dtype": "F16", "shape": [8], "data_offsets": [0, 160]}}'), "has tensors beyond its end"),
        (header(b'{"a": {"dtype": "F16", "shape": [8], "data_offsets": ["0", null]}}'), "has tensors beyond its end"),
        (header(b'{"a": {"dtype": "F16", "shape": [8], "data_offsets": []}}'), "model-00001-of-"),
        (header(b'{"a": {"dtype": 3, "shape": "x", "data_offsets": [0, 1]}}'), "model-00001-of-"),
    ],
)
def test_a_plan_of_weights_that_are_none(
    hub: HubState, capfd: pytest.CaptureFixture[str], body: bytes, words: str
) -> None:
    name = min(name for name in hub.files if name.endswith(".safetensors"))
    hub.commits[COMMIT] = hub.files | {name: body}
    with pytest.raises(SystemExit) as ended:
        main(["plan", "owner/model"])
    assert ended.value.code == 1
    printed = capfd.readouterr().err
    assert "error[HDX0201]: " in printed
    assert words in printed


@pytest.mark.parametrize("kind", ["drop", "stall", "status", "loop"])
def test_a_plan_meets_the_same_faults(
    hub: HubState, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    monkeypatch.setenv("HYPERDEX_HUB_ATTEMPTS", "2")
    name = next(name for name in hub.files if name.endswith(".safetensors"))
    hub.faults[name] = Fault(kind, at=10)
    with pytest.raises(SystemExit) as ended:
        main(["plan", "owner/model"])
    assert ended.value.code == 1
    lines = capfd.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith(f"error[HDX0105]: owner/model: {name}: ")]
