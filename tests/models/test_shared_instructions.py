"""Models of one architecture and options share their instructions: one compile lowers, the others take its bytes."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.models.compiles import STATE
from support.models.tiny import EOS, tiny_llama_config, write_checkpoint
from support.processes import forked
from support.processes.interruptions import contents

from hyperdex_ir.backend.arguments import CompileArguments
from hyperdex_ir.backend.instructions import Encoded
from hyperdex_ir.backend.options import make_options
from hyperdex_ir.backend.shared_instructions import encode_shared
from hyperdex_ir.backend.tracing import Traced, trace
from hyperdex_ir.frontend.config import read_config
from hyperdex_ir.passes.pipeline import parse_pipeline, pipeline_spec
from hyperdex_ir.runtime.model import CompiledModel
from hyperdex_ir.support.disk_cache import DiskCache
from hyperdex_ir.support.locations import find_folder, instruction_cache
from hyperdex_ir.support.xdsl import module_path, path_location
from hyperdex_ir.tools import AutoCompiler

pytestmark = pytest.mark.slow

REUSED = "[ INFO ] : Reuse the instructions of a model of the same architecture and options"
OTHERS = {"_name_or_path": "someone/a-fine-tune", "eos_token_id": [EOS, 5], "pad_token_id": 7, "use_cache": False}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A Llama and a fine-tune of it: other weights, another name, other token ids."""
    root = tmp_path_factory.mktemp("shared")
    folders = [write_checkpoint(tiny_llama_config(), root / f"model{seed}", seed=seed) for seed in (0, 1)]
    config = json.loads((folders[1] / "config.json").read_text())
    assert {name for name, value in OTHERS.items() if config.get(name) != value} == set(OTHERS)
    (folders[1] / "config.json").write_text(json.dumps(config | OTHERS))
    return folders


@pytest.fixture
def models(checkpoints: list[Path], tmp_path: Path) -> list[Path]:
    return [Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in checkpoints]


@pytest.fixture
def lowered(monkeypatch: pytest.MonkeyPatch) -> list[Traced]:
    """The models that have been lowered."""
    found, plain = list[Traced](), Traced.lower

    def lower(self: Traced) -> Any:
        found.append(self)
        return plain(self)

    monkeypatch.setattr(Traced, "lower", lower)
    return found


@pytest.fixture(scope="module")
def traced(checkpoints: list[Path]) -> Traced:
    """To be copied: lowering changes the module."""
    return trace_model(checkpoints[0])


def trace_model(checkpoint: Path, **choices: Any) -> Traced:
    """A model before lowering, without its weights."""
    asked: dict[str, Any] = {"num_device": 1, "max_length": 32, "dtype": "f16", "type_device": "u55c"} | choices
    options = make_options(CompileArguments(**asked))
    passes = parse_pipeline(options.pipeline or "default")
    return trace(find_folder(checkpoint), read_config(checkpoint), options, passes, None)


def encoded(traced: Traced, *, vocab_size: int = 272, num_device: int = 1, anew: bool = False) -> Encoded:
    copy = replace(traced, module=traced.module.clone())
    return encode_shared(copy, vocab_size, num_device, anew=anew)


def entries() -> list[Path]:
    return sorted(instruction_cache().iterdir())


# ------------------------------------------------------------------------------------------------------------ sharing
def test_a_fine_tune_takes_the_instructions_that_are_there(
    models: list[Path], lowered: list[Traced], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And its folder is, byte for byte, what it would be without the other model; no file of it is shared."""
    AutoCompiler().compile(str(models[0]))
    assert len(lowered) == 1
    assert REUSED not in capsys.readouterr().err
    compiled = AutoCompiler().compile(str(models[1]))
    assert len(lowered) == 1
    log = capsys.readouterr().err.splitlines()
    assert REUSED in log
    assert not any("Optimize the model instruction" in line for line in log)
    places = {path.stat().st_ino for path in entries()}
    for path in (compiled.instructions, compiled.origins):
        assert (models[0] / path.relative_to(models[1])).read_bytes() == path.read_bytes()
        assert path.stat().st_nlink == 1
        assert not path.is_symlink()
        assert path.stat().st_ino not in places
    logits = CompiledModel.open(models[1]).logits([1, 2, 3, 250])
    assert logits.tobytes() != CompiledModel.open(models[0]).logits([1, 2, 3, 250]).tobytes()
    alone = AutoCompiler().compile(str(models[1]), output_dir=tmp_path / "alone", force=True)
    assert len(lowered) == 2
    assert CompiledModel.open(alone.root).logits([1, 2, 3, 250]).tobytes() == logits.tobytes()
    expected = {name: data for name, data in contents(alone.root).items() if "/" in name}
    found = contents(models[1])
    assert {name: found[name] for name in expected} == expected
    assert found["manifest.json"] == (alone.root / "manifest.json").read_bytes()


def test_what_is_watched_or_asked_for_anew_is_lowered(
    models: list[Path], lowered: list[Traced], tmp_path: Path
) -> None:
    """A dump shows passes that have run; of an `isa` module there is nothing left to lower."""
    AutoCompiler().compile(str(models[0]))
    expected = contents(models[0])
    AutoCompiler().compile(str(models[1]), force=True)
    assert len(lowered) == 2
    AutoCompiler().compile(str(models[0]), dump_ir=tmp_path / "ir")
    assert len(lowered) == 3
    assert len(list((tmp_path / "ir").iterdir())) == 1 + len(parse_pipeline("default"))
    (dump,) = (tmp_path / "ir").glob("*_lower-lpu-to-isa.mlir")
    before = [(path.name, path.stat().st_ino) for path in entries()]
    AutoCompiler().compile(str(models[0]), compile_from=dump)
    assert [(path.name, path.stat().st_ino) for path in entries()] == before
    assert {name: data for name, data in contents(models[0]).items() if name != STATE} == {
        name: data for name, data in expected.items() if name != STATE}  # fmt: skip


def test_processes_at_once(models: list[Path], tmp_path: Path) -> None:
    """With other hash seeds: the key of both is the same, and so are the bytes."""
    command = [*forked.HYPERDEX, "compile", "--max-length", "32"]
    home = {**os.environ, "HYPERDEX_HOME": str(tmp_path / "home")}
    running = [
        forked.popen([*command, str(model)], env=home | {"PYTHONHASHSEED": seed}, stderr=subprocess.PIPE)
        for model, seed in zip(models, ("1", "2"), strict=True)
    ]
    for process in running:
        _, log = process.communicate()
        assert process.returncode == 0, log
    assert [path.suffix for path in (tmp_path / "home" / "instructions").iterdir()] == [".bin"]
    for name in ("inst/inst_1lpu.bin", "inst/inst_1lpu.json"):
        assert (models[0] / name).read_bytes() == (models[1] / name).read_bytes()


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"max_length": 33}, {}),
        ({"dtype": "bf16"}, {}),
        ({"type_device": "asic"}, {}),
        ({"num_device": 2}, {}),
        ({"pipeline": "o0"}, {}),
        ({"pipeline": pipeline_spec(parse_pipeline("default")).replace("isa-schedule,", "")}, {}),
        ({}, {"num_hidden_layers": 3}),
        ({}, {"intermediate_size": 97}),
        ({}, {"rms_norm_eps": 1.000001e-5}),
        ({}, {"vocab_size": 273}),
    ],
    ids=str,
)
def test_what_decides_is_in_the_key(
    options: dict[str, Any],
    fields: dict[str, Any],
    traced: Traced,
    checkpoints: list[Path],
    lowered: list[Traced],
    tmp_path: Path,
) -> None:
    encoded(traced)
    config = json.loads((checkpoints[0] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | fields))
    other = trace_model(tmp_path, **options)
    facts = {"num_device": options.get("num_device", 1), "vocab_size": fields.get("vocab_size", 272)}
    first = encoded(other, **facts)
    assert (len(lowered), len(entries())) == (2, 2)
    assert encoded(other, **facts) == first
    assert len(lowered) == 2
    assert encoded(other, **facts, anew=True) == first


@pytest.mark.parametrize("name", ["versions", "code_digest", "extension_digest", "load_target"])
def test_another_compiler_or_target_lowers_anew(
    traced: Traced, lowered: list[Traced], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from hyperdex_ir.backend import shared_instructions
    from hyperdex_ir.targets import load_target

    other = replace(load_target("u55c"), vector_latency_cycles=1) if name == "load_target" else "another"
    encoded(traced)
    monkeypatch.setattr(shared_instructions, name, lambda *_: other)
    encoded(traced)
    assert (len(lowered), len(entries())) == (2, 2)


def test_a_path_of_a_module_is_in_the_key(traced: Traced, lowered: list[Traced]) -> None:
    """Origins are made of locations, which xDSL does not print by itself."""
    first = encoded(traced)
    other = replace(traced, module=traced.module.clone())
    for op in other.module.walk():
        if module_path(op).endswith("o_proj"):
            op.location = path_location("elsewhere")
    second = encoded(other)
    assert len(lowered) == 2
    assert second.code == first.code
    assert "elsewhere" in second.origins
    assert "elsewhere" not in first.origins


# ----------------------------------------------------------------------------------------------------- entries at fault
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "a bit of the head": lambda data: data[:20] + bytes([data[20] ^ 1]) + data[21:],
    "a bit of the instructions": lambda data: data[:80] + bytes([data[80] ^ 1]) + data[81:],
    "a bit of the origins": lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
    "the end": lambda data: data[:-1],
    "all but the head": lambda data: data[:40],
    "everything": lambda data: b"",
    "more": lambda data: data + b"\x00",
    "a foreign file": lambda data: b"HDXI" * 300,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_made_anew(traced: Traced, lowered: list[Traced], damage: str) -> None:
    first = encoded(traced)
    (path,) = entries()
    whole = path.read_bytes()
    path.write_bytes(DAMAGE[damage](whole))
    assert path.read_bytes() != whole
    assert encoded(traced) == first
    assert (len(lowered), path.read_bytes()) == (2, whole)
    assert encoded(traced) == first
    assert len(lowered) == 2


def test_the_entry_of_another_key_is_not_used(traced: Traced, lowered: list[Traced]) -> None:
    first = encoded(traced)
    (path,) = entries()
    whole = path.read_bytes()
    encoded(traced, vocab_size=273)
    (other,) = (one for one in entries() if one != path)
    shutil.copyfile(other, path)
    assert encoded(traced) == first
    assert (len(lowered), path.read_bytes()) == (3, whole)


def test_a_folder_that_cannot_be_used_is_no_error(
    traced: Traced, lowered: list[Traced], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = encoded(traced)
    (path,) = entries()
    path.unlink()
    path.mkdir()
    assert encoded(traced) == first
    (tmp_path / "instructions").write_text("a file where the folder should be")
    monkeypatch.setenv("HYPERDEX_HOME", str(tmp_path))
    assert encoded(traced) == first
    monkeypatch.setenv("HYPERDEX_HOME", "/proc/none")
    assert encoded(traced) == first
    monkeypatch.delenv("HYPERDEX_HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as without HOME and without an account
    assert encoded(traced) == first
    assert len(lowered) == 5


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_refuses_is_no_error(
    traced: Traced, lowered: list[Traced], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Whether it refuses to make the file, or to give it its name; nothing half-written stays."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setenv("HYPERDEX_HOME", str(tmp_path))
    for name in ("open", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, refuse)
            encoded(traced)
    assert (len(lowered), entries()) == (2, [])


def test_an_interrupt_is_not_held_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    cache = DiskCache(tmp_path, b"magic", "name", 2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            cache.write("name", "key", b"data")
    assert list(tmp_path.iterdir()) == []
