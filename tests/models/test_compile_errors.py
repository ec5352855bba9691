"""What a user meets when a compile cannot be done: one line, a non-zero exit code, and nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.models.tiny import tiny_llama_config, write_checkpoint
from support.processes import forked

from hyperdex_ir.backend.state import STAGING
from hyperdex_ir.cli.main import main
from hyperdex_ir.tools import AutoCompiler

pytestmark = pytest.mark.slow
_OTHER_DISK = Path("/dev/shm")

#: The command line in a process of its own, whose writes can be slowed down.
SLOW_MAIN = """
import sys, time
from hyperdex_ir.backend.payload import PayloadWriter
from hyperdex_ir.cli.main import main
write = PayloadWriter.write
def slow(self, data):
    time.sleep(0.02)
    write(self, data)
PayloadWriter.write = slow
sys.argv[0] = "hyperdex"
main()
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tiny_llama_config(), tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def model(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint, to be damaged."""
    return Path(shutil.copytree(checkpoint, tmp_path / "model"))


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")
    }


def fails(model: Path | str, monkeypatch, capsys, *options: str) -> str:
    """Compiles, which must fail; returns the message. The folder, if there is one, is as before."""
    before = contents(Path(model)) if Path(model).is_dir() else None
    monkeypatch.setattr(sys, "argv", ["hyperdex", "compile", str(model), *options])
    with pytest.raises(SystemExit) as caught:
        main()
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if not line.startswith("[ INFO ] : ")]
    assert caught.value.code == 1
    assert captured.out == ""
    assert lines[0].startswith("error[HDX")
    excerpt = lines[1:3] if "pipeline, line " in lines[0] else []
    assert all(line.startswith("  ") for line in excerpt)
    others = lines[1 + len(excerpt) :]
    assert len(others) <= 1
    assert all(line.startswith("hint: ") for line in others)
    if before is not None:
        assert contents(Path(model)) == before
    return lines[0]


def change_tensors(model: Path, change) -> None:
    tensors = load_file(model / "model.safetensors")
    change(tensors)
    save_file(tensors, model / "model.safetensors", {"format": "pt"})


def change_config(model: Path, **fields: object) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | fields))


def test_no_such_directory(tmp_path: Path, monkeypatch, capsys):
    message = fails("./nothing/of/the/kind", monkeypatch, capsys)
    assert message == "error[HDX0101]: ./nothing/of/the/kind: no such directory, and not a Hub id"


def test_no_config(model: Path, monkeypatch, capsys):
    (model / "config.json").unlink()
    assert "holds no config.json, neither directly nor in ckpt/" in fails(model, monkeypatch, capsys)


@pytest.mark.parametrize("text", ["{", '{"a": }', "[1]", "\udce4"])
def test_broken_json(model: Path, monkeypatch, capsys, text: str):
    (model / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    message = fails(model, monkeypatch, capsys)
    assert message.startswith("error[HDX0102]")
    assert "config.json" in message


def test_an_unsupported_architecture_names_the_nearest(model: Path, monkeypatch, capsys):
    change_config(model, architectures=["LlamasForCausalLM"], model_type="llamas")
    message = fails(model, monkeypatch, capsys)
    assert "architecture LlamasForCausalLM is not supported" in message
    assert "the nearest supported are LlamaForCausalLM, " in message


def test_another_head_names_the_class_that_is_wanted(model: Path, monkeypatch, capsys):
    change_config(model, architectures=["LlamaForSequenceClassification"])
    message = fails(model, monkeypatch, capsys)
    assert "LlamaForSequenceClassification is not the class that is compiled for model_type llama" in message
    assert "LlamaForCausalLM is wanted" in message


def test_a_missing_tensor(model: Path, monkeypatch, capsys):
    change_tensors(model, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    assert "1 missing: model.layers.1.mlp.up_proj.weight" in fails(model, monkeypatch, capsys)


def test_a_mis_shaped_tensor(model: Path, monkeypatch, capsys):
    def cut(tensors):
        tensors["model.norm.weight"] = tensors["model.norm.weight"][:63].copy()

    change_tensors(model, cut)
    assert "1 misshaped: model.norm.weight is [63], expected [64]" in fails(model, monkeypatch, capsys)


def test_a_matrix_too_many(model: Path, monkeypatch, capsys):
    name = "model.layers.2.mlp.up_proj.weight"
    change_tensors(model, lambda tensors: tensors.update({name: np.zeros((96, 64), np.float16)}))
    assert f"1 unexpected: {name}" in fails(model, monkeypatch, capsys)


def test_a_tensor_too_many_and_a_prefix(checkpoint: Path, model: Path, capsys):
    def change(tensors):
        for name in list(tensors):
            tensors[f"module.{name}"] = tensors.pop(name)
        tensors["masked_bias"] = np.zeros(3, np.float16)

    change_tensors(model, change)
    files = AutoCompiler().compile(str(model), max_length=8)
    log = capsys.readouterr().err
    assert f"[ INFO ] : {model}: the names of tensors are read without module.\n" in log
    assert f"[ INFO ] : {model}: ignored, as the model has no place for them: masked_bias\n" in log
    plain = AutoCompiler().compile(str(checkpoint), max_length=8, output_dir=model.with_name("plain"))
    assert files.model is not None
    assert plain.model is not None
    assert files.model.read_bytes() == plain.model.read_bytes()


def test_truncated_safetensors(model: Path, monkeypatch, capsys):
    os.truncate(model / "model.safetensors", (model / "model.safetensors").stat().st_size - 100)
    message = fails(model, monkeypatch, capsys)
    assert message.startswith("error[HDX0201]")
    assert "truncated" in message


@pytest.mark.parametrize(
    ("value", "words"), [(70000.0, "the value 70000 at [5, 7] is outside the range of f16"), (np.nan, "is nan")]
)
def test_a_value_that_cannot_be_stored(model: Path, monkeypatch, capsys, value: float, words: str):
    def spoil(tensors):
        wide = tensors["model.layers.0.mlp.down_proj.weight"].astype(np.float32)
        wide[5, 7] = value
        tensors["model.layers.0.mlp.down_proj.weight"] = wide

    change_tensors(model, spoil)
    message = fails(model, monkeypatch, capsys)
    assert "model.layers.0.mlp.down_proj.weight: " in message
    assert words in message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--num-device", "5"], "num_device is 5: must be from 1 to 4, the number of the model's query heads"),
        (["--num_device", "0"], "num_device is 0: must be from 1 to 4, the number of the model's query heads"),
        (["--max-length", "0"], "max_length is 0: must be a positive whole number"),
        (["--max-ram", "4G"], "max_ram is '4G': must be a size such as 1536MiB"),
        (["--max-ram", "0"], "max_ram is '0': must be a size such as 1536MiB"),
        (["--max-ram", "64MiB"], "max_ram is 64 MiB, the compile needs"),
        (["--dtype", "int3"], "no dtype 'int3'; there are auto, f16, float16, bf16, bfloat16"),
        (["--type-device", "u250"], "no target 'u250'; there are asic, u55c"),
        (["--pipeline", "no-such-pass"], "no pass 'no-such-pass'"),
        (["--pipeline", "lpu-token-major"], "the pipeline has no lower-lpu-to-isa"),
        (["--max-length", "100000000"], "the model needs"),
        (["--max-length", "1" + "0" * 30], "0: must be at most 2147483647"),
        (["--output-dir", "~no-such-user/m"], "~no-such-user/m: no such home directory"),
        (["--dump-ir", "~no-such-user/m"], "~no-such-user/m: no such home directory"),
        (["--output-dir", "/dev/null"], "output_dir /dev/null: not a directory"),
        (["--dump-ir", "/dev/null"], "dump_ir /dev/null: not a directory"),
    ],
)
def test_options_that_cannot_be_used(model: Path, monkeypatch, capsys, options: list[str], words: str):
    assert words in fails(model, monkeypatch, capsys, *options)


def test_a_file_system_that_refuses(model: Path):
    """The operating system itself cuts off a file at 64 KiB."""
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n" + SLOW_MAIN
    before = contents(model)
    done = forked.run(["-c", limited, "compile", str(model)])
    lines = [line for line in done.stderr.splitlines() if not line.startswith("[ INFO ] : ")]
    assert done.returncode == 1
    assert lines == [f"error[HDX0503]: {model}/{STAGING}/ckpt/hyperdex_model.bin: file too large"]
    assert contents(model) == before


def test_ctrl_c(model: Path):
    process = forked.popen(["-c", SLOW_MAIN, "compile", str(model)], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list(model.glob(f"{STAGING}/param/.*.part")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    lines = [line for line in errors.splitlines() if line and not line.startswith("[ INFO ] : ")]
    assert process.returncode == 130
    assert lines == ["hyperdex: interrupted"]
    left = contents(model)
    assert not [name for name in left if ".part" in name or "manifest" in name]
    assert not [name for name in left if {"param", "config", "inst"}.intersection(Path(name).parts)]
    assert f"{STAGING}/ckpt/hyperdex_model.bin" in left


@pytest.mark.skipif(not _OTHER_DISK.is_dir(), reason="no file system in memory at /dev/shm")
@pytest.mark.parametrize("name", ["ckpt", "param"])
def test_a_folder_may_be_a_link_to_another_disk(checkpoint: Path, tmp_path: Path, name: str) -> None:
    if _OTHER_DISK.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system: temporary files are in /dev/shm")
    here, linked = (Path(shutil.copytree(checkpoint, tmp_path / kind / "ckpt")).parent for kind in ("here", "linked"))
    with tempfile.TemporaryDirectory(dir=_OTHER_DISK) as other:
        if (linked / name).is_dir():
            shutil.move(linked / name, other)
        (Path(other) / name).mkdir(exist_ok=True)
        (linked / name).symlink_to(Path(other) / name)
        for folder in (here, linked):
            AutoCompiler().compile(str(folder))
        same = {path.name: path.read_bytes() for path in here.glob("*/*.*") if path.is_file()}
        assert {path.name: path.read_bytes() for path in linked.glob("*/*.*") if path.is_file()} == same
        assert not (linked / STAGING).exists()
        AutoCompiler().compile(str(linked), max_length=32)
        assert not list(Path(other).glob("*/.*"))
