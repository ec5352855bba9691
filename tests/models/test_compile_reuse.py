"""What a compile finds is used, by what is known of the files; what it replaces stays until all of the new is there."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import SOAK
from support.models.tiny import tiny_llama_config, write_checkpoint
from support.processes.hub_server import hub_of_tests
from support.processes.interruptions import Disk, contents, path_of

from hyperdex_ir.backend.check import check_file, listed_files
from hyperdex_ir.errors import CheckpointError, FileFormatError, StorageError
from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.tools import AutoCompiler
from hyperdex_ir.verify.model import open_model

pytestmark = pytest.mark.slow
PROMPT = [1, 2, 3, 250]
LIMIT_SECONDS = 300
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = write_checkpoint(tiny_llama_config(), tmp_path_factory.mktemp("reuse") / "model")
    AutoCompiler().compile(str(model))
    return model


@pytest.fixture
def model(compiled: Path, tmp_path: Path) -> Path:
    """A copy, which has been looked at: its inodes are known."""
    copy = Path(shutil.copytree(compiled, tmp_path / "model"))
    AutoCompiler().compile(str(copy))
    return copy


@pytest.fixture(scope="module")
def shorter(compiled: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Disk]:
    """The model compiled again, for 64 positions, and what that asked of the disk."""
    other = Path(shutil.copytree(compiled, tmp_path_factory.mktemp("shorter") / "model"))
    disk = Disk(other)
    with disk.full_at():
        compile_model(other, max_length=64)
    return other, disk


@contextlib.contextmanager
def bytes_read(root: Path) -> Iterator[dict[str, int]]:
    """How much of each file with weights is read, by name."""
    counts: dict[str, int] = {}
    plain = io.open

    class Counted(io.FileIO):
        def count(self, size: int) -> None:
            name = Path(path_of(self.name)).name
            counts[name] = counts.get(name, 0) + size

        def readinto(self, buffer: Any) -> int:
            size = super().readinto(buffer)
            self.count(size)
            return size

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            self.count(len(data))
            return data

        def readall(self) -> bytes:
            data = super().readall()
            self.count(len(data))
            return data

    def opened(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **options: Any) -> Any:
        is_weights = Path(path_of(file)).suffix in (".safetensors", ".bin") and path_of(file).startswith(str(root))
        if mode != "rb" or not is_weights:
            return plain(file, mode, buffering, *rest, **options)
        return Counted(file, "rb") if buffering == 0 else io.BufferedReader(Counted(file, "rb"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(io, "open", opened)
        yield counts


def compile_model(model: Path | str, **options: Any) -> None:
    AutoCompiler().compile(str(model), **options)


def test_what_has_not_changed_is_not_read(model: Path) -> None:
    before = contents(model)
    with bytes_read(model) as counts:
        compile_model(model)
    assert counts == {}
    (model / "manifest.json").unlink()
    with bytes_read(model) as counts:
        compile_model(model)
    assert counts == {}
    assert contents(model) == before


@pytest.mark.parametrize("name", ["param/param_1lpu_00_05.bin", "ckpt/hyperdex_model.bin"])
def test_what_was_touched_is_read_once_and_nothing_is_done(
    model: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(model)
    os.utime(model / name, (1, 1))
    for expected in ({Path(name).name: (model / name).stat().st_size}, {}):
        with bytes_read(model) as counts:
            compile_model(model)
        assert counts == expected
    assert " : Save the " not in capsys.readouterr().err
    assert contents(model) == before


def test_a_damaged_file_of_the_same_size_is_written_anew(model: Path) -> None:
    before = contents(model)
    path = model / "param/param_1lpu_00_05.bin"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    compile_model(model)
    assert contents(model) == before


def test_a_compile_that_fails_leaves_the_model_that_was_there(model: Path, shorter: tuple[Path, Disk]) -> None:
    """And what it did is not lost: the next goes on from there."""
    logits = CompiledModel.open(model).logits(PROMPT).tobytes()
    other, disk = shorter
    before = {name: data for name, data in contents(model).items() if not name.startswith(".")}
    for tenths in range(10) if SOAK else (9,):
        with Disk(model).full_at(byte=disk.bytes * tenths // 10), pytest.raises(StorageError):
            compile_model(model, max_length=64, force=True)
        assert {name: data for name, data in contents(model).items() if not name.startswith(".")} == before
        assert not any(check_file(model, one) for one in listed_files(model / "manifest.json"))
        assert CompiledModel.open(model).logits(PROMPT).tobytes() == logits
    compile_model(model, max_length=64)
    assert contents(model) == contents(other)


@pytest.mark.parametrize("renames", range(39) if SOAK else [0, 1, 20, 38])
def test_a_compile_that_ends_among_the_renames_is_noticed_and_repaired(
    model: Path, shorter: tuple[Path, Disk], monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    plain, left = os.replace, renames

    def replace(source: Any, target: Any, **folders: int) -> None:
        nonlocal left
        place = path_of(folders.get("dst_dir_fd", target))
        is_last = place.startswith(str(model)) and ".part" not in os.fspath(source)
        if is_last and left == 0:
            raise KeyboardInterrupt
        left -= is_last
        plain(source, target, **folders)

    logits = CompiledModel.open(model).logits(PROMPT).tobytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            compile_model(model, max_length=64)
    if renames == 0:
        assert CompiledModel.open(model).logits(PROMPT).tobytes() == logits
    else:
        with pytest.raises(FileFormatError):
            CompiledModel.open(model)
    compile_model(model, max_length=64)
    assert contents(model) == contents(shorter[0])


#: Each line of stdin is a command, done in a process forked from one that has imported what it may.
LIGHT = """
import contextlib, json, os, sys
import hyperdex_ir.backend.compilation
from hyperdex_ir.cli.main import main
with contextlib.suppress(SystemExit):
    main(["status", os.devnull])  # for what is imported on the way
for line in sys.stdin:
    if (child := os.fork()) == 0:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
given = json.loads(line)
os.dup2(os.open(given["printed"], os.O_WRONLY | os.O_CREAT), 1)
os.environ.update(given["environment"])
opened = set()
def watch(event, arguments):
    if event == "open" and str(arguments[0]).endswith((".safetensors", ".bin")):
        opened.add(str(arguments[0]))
sys.addaudithook(watch)
try:
    main(given["command"])
except SystemExit as end:
    assert not end.code, end.code
print("opened:", len(opened))
print("loaded:", *({"torch", "transformers", "huggingface_hub", "llvmlite"} & sys.modules.keys()))
"""


@pytest.fixture(scope="module")
def light() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", LIGHT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process


@pytest.fixture(scope="module")
def home(compiled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A HYPERDEX_HOME in which the model is compiled as tiny/llama."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(compiled, home / "hub" / "tiny" / "llama" / "ckpt", ignore=lambda folder, names: [
        name for name in names if Path(folder, name).is_dir() or name in ("manifest.json", ".hyperdex_state.json")
    ])  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYPERDEX_HOME", str(home))
        compile_model("tiny/llama")
    return home


@pytest.mark.parametrize("command", ["compile", "status", "check", "run"])
def test_nothing_heavy_is_imported_when_there_is_nothing_to_do(
    compiled: Path, home: Path, tmp_path: Path, light: subprocess.Popen[str], command: str
) -> None:
    """For a folder, and for a Hub id whose files are there. Nor is a file with weights or instructions opened, but by
    `check`, for which it is all there is to do.
    """
    assert light.stdin is not None
    assert light.stdout is not None
    for number, name in enumerate((str(compiled), "tiny/llama")):
        line = [command, name, "--help"] if command == "run" else [command, name]
        printed = tmp_path / f"printed{number}.txt"
        environment = {"HYPERDEX_HOME": str(home), "HF_HUB_OFFLINE": "1"}
        print(
            json.dumps({"command": line, "printed": str(printed), "environment": environment}),
            file=light.stdin,
            flush=True,
        )
        assert light.stdout.readline() == "0\n"
        opened, loaded = printed.read_text().splitlines()[-2:]
        assert loaded == "loaded:"
        assert (opened == "opened: 0") == (command != "check"), opened


def test_what_needs_deleted_weights_says_so(compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "hub" / "owner" / "model"
    own = [path for path in compiled.iterdir() if path.is_file() and "hyperdex" not in path.name]
    files = {path.name: path.read_bytes() for path in own if path.name != "manifest.json"}
    with hub_of_tests(files, tmp_path, monkeypatch):
        compile_model("owner/model", low_memory_usage=True)
    logits = CompiledModel.open(root).logits(PROMPT).tobytes()
    before = contents(root)
    with pytest.raises(CheckpointError, match=r"low_memory_usage=True has deleted the weights.*num_device 2") as fault:
        compile_model(root, num_device=2, local_files_only=True)
    assert "low_memory_usage=False" in (fault.value.hint or "")
    with pytest.raises(CheckpointError, match="the weights were deleted") as fault:
        open_model(str(root))
    assert "compile again with low_memory_usage=False" in (fault.value.hint or "")
    assert contents(root) == before
    assert CompiledModel.open(root).logits(PROMPT).tobytes() == logits
