"""A model compiled for a user's own target: the bits of every other target, and no need of its file afterwards."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from support.models.tiny import tiny_llama_config, write_checkpoint

from hyperdex_ir.cli.main import main
from hyperdex_ir.runtime.executors import EXECUTORS
from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.targets import load_target, spell_target
from hyperdex_ir.tools import AutoCompiler

pytestmark = pytest.mark.slow

IDS = [(7 * number + 3) % 256 for number in range(27)]


def write_target(path: Path) -> Path:
    """The smallest machine: one MAC tree, fed by two channels."""
    numbers = {**asdict(load_target("u55c")), "channels": 2, "trees": 1, "hbm_bytes": 1 << 24, "lmu_bytes": 1 << 18}
    path.write_text("".join(f"[{key}]\nvalue = {value}\n" for key, value in numbers.items() if key != "name"))
    return path


def run(arguments: list[str]) -> int | str | None:
    """Runs a command; returns its exit code."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tiny_llama_config(num_hidden_layers=1), tmp_path_factory.mktemp("own_targets") / "model")


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Path:
    """Compiled for the tiny target, whose file is gone."""
    target = write_target(checkpoint.parent / "tiny.toml")
    AutoCompiler().compile(checkpoint, max_length=40, type_device=str(target), output_dir=checkpoint.parent / "tiny")
    target.unlink()
    return checkpoint.parent / "tiny"


@pytest.mark.parametrize("count", [1, 2])
def test_the_bits_of_another_target(checkpoint: Path, model: Path, tmp_path: Path, count: int) -> None:
    AutoCompiler().compile(checkpoint, num_device=count, max_length=40, output_dir=tmp_path)
    expected = CompiledModel.open(tmp_path, count).logits(IDS)
    if count > 1:
        target = write_target(tmp_path / "tiny.toml")
        AutoCompiler().compile(
            checkpoint, num_device=count, max_length=40, type_device=str(target), output_dir=tmp_path / "tiny"
        )
        model = tmp_path / "tiny"
    assert len(list((model / "param").iterdir())) == 2 * count
    for engine in EXECUTORS:
        opened = CompiledModel.open(model, count, engine=engine)
        assert opened.target == "tiny"
        np.testing.assert_array_equal(opened.logits(IDS).view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["run", "MODEL", "--prompt", "ab", "--max-new-tokens", "2"], ""),
        (["inspect", "MODEL"], "tiny, 1 device"),
        (["inspect", "MODEL", "--json"], '"target": "tiny"'),
        (["verify", "MODEL", "--tokens", "3,4,5"], "compiled program"),
        (["ir", "MODEL", "--after", "import"], 'lpu.target = "tiny{channels = 2, trees = 1, '),
        (["status", "MODEL"], "tiny, f16, 40 positions"),
        (["check", "MODEL"], "files"),
        (["plan", "MODEL"], "u55c"),
    ],
)
def test_commands_without_the_file(
    model: Path, command: list[str], shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([str(model) if word == "MODEL" else word for word in command]) == 0
    assert shown in capsys.readouterr().out


def test_what_the_manifest_records(model: Path) -> None:
    recorded = json.loads((model / "manifest.json").read_text())["devices"]["1"]["target"]
    mapped = json.loads((model / "config" / "config_1lpu_hbm.json").read_text())["target"]
    assert asdict(load_target(recorded)) == mapped
    assert spell_target(load_target(recorded)) == recorded


def test_a_plan_for_it(checkpoint: Path, tmp_path: Path) -> None:
    planned = AutoCompiler().plan(checkpoint, max_length=40, type_device=str(write_target(tmp_path / "tiny.toml")))
    assert planned["model"]["target"] == "tiny"
    assert planned["device"]["hbm_bytes"] == 1 << 24


def test_a_dump_says_which_target_it_is_for(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A compile goes on from a dump by the target's numbers, and refuses one that was made for others."""
    target = write_target(tmp_path / "tiny.toml")
    asked = {"max_length": 40, "dtype": "f16"}
    dump = tmp_path / "lpu.mlir"
    dump.write_text(AutoCompiler().compile_to("lpu", checkpoint, type_device=str(target), **asked))
    command = ["compile", str(checkpoint), "--max-length", "40", "--dtype", "f16", "--compile-from", str(dump)]
    own = ["--output-dir", str(tmp_path / "model")]
    assert run([*command, *own]) == 1
    hint = capsys.readouterr().err.splitlines()[-1]
    spelled = spell_target(load_target(hint.split("'")[1]))
    assert hint == f"hint: add --type-device '{spelled}'"
    target.unlink()
    assert run([*command, *own, "--type-device", spelled]) == 0
    assert CompiledModel.open(tmp_path / "model").target == "tiny"
