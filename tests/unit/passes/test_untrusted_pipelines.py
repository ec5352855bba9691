"""Pipelines and tables in files of a model: what they name is run only when it can do nothing but compile."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.commands import fails
from support.models.tiny import tiny_llama_config, write_checkpoint
from support.passes.broken_passes import write_distribution, write_package
from support.processes import forked

from hyperdex_ir.errors import OptionError
from hyperdex_ir.passes import get_all_passes
from hyperdex_ir.passes.pipeline import known_passes, parse_pipeline, pipeline_names
from hyperdex_ir.passes.pipeline_text import pass_options
from hyperdex_ir.support.locations import MARKER, read_marker
from hyperdex_ir.tools import AutoCompiler

SCRIPT = "import pathlib, sys; pathlib.Path(sys.argv[1]).touch(); sys.stdout.write(sys.stdin.read())"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = write_checkpoint(tiny_llama_config(num_hidden_layers=1), tmp_path_factory.mktemp("compiled") / "model")
    AutoCompiler().compile(str(model), max_length=16, dump_ir=model / "ir")
    return model


@pytest.fixture
def model(compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(compiled, tmp_path / "model"))


def change(path: Path, *place: str, value: Any) -> None:
    """Puts a value into a JSON file."""
    table = json.loads(path.read_text())
    inner = table
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path.write_text(json.dumps(table))


def program(canary: Path) -> str:
    """A pipeline that starts a program, which leaves a file."""
    arguments = ",".join(json.dumps(word) for word in ("-c", SCRIPT, str(canary)))
    return f'mlir-opt{{executable="{sys.executable}" generic=true arguments={arguments}}}'


# ---------------------------------------------------------------------------------------------------- manifests
@pytest.mark.slow
@pytest.mark.parametrize("command", [["ir"], ["verify"]])
def test_the_pipeline_of_a_manifest_starts_nothing(
    command: list[str], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    canary = tmp_path / "canary"
    change(model / "manifest.json", "devices", "1", "options", "pipeline", value=f"dce, {program(canary)}")
    _, err = fails(capsys, command[0], str(model), *command[1:])
    assert not canary.exists()
    assert err[0] == (
        "error[HDX0302]: the pipeline in manifest.json, line 1, column 6: a file may not name the pass mlir-opt"
    )
    assert err[-1] == "hint: type the passes after --pipeline"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["ir", "verify"])
def test_a_pipeline_in_a_manifest_is_no_path(
    command: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = tmp_path / "secret.pipeline"
    secret.write_text("password\n")
    change(model / "manifest.json", "devices", "1", "options", "pipeline", value=str(secret))
    _, err = fails(capsys, command, str(model))
    assert "expected the name of a pass" in err[0]
    assert "password" not in "\n".join(err)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["../u55c", "/etc/passwd", "u55c\x1b[2J", "nothing"])
def test_a_target_in_a_manifest_is_a_name(target: str, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(model / "manifest.json", "devices", "1", "target", value=target)
    _, err = fails(capsys, "ir", str(model))
    assert err[0].startswith("error[HDX0")
    assert all(line.isprintable() for line in err)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_length", "16", "max_length is '16', expected a whole number in 1..2147483647"),
        ("max_length", 10**30, "expected a whole number in 1..2147483647"),
        ("matrix_type", ["f16"], "matrix_type is ['f16'], expected one of f16, bf16"),
        ("vocab_size", None, "vocab_size is None"),
    ],
)
@pytest.mark.parametrize("command", ["ir", "verify"])
def test_facts_of_a_table_have_types(
    command: str, name: str, value: Any, message: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(model / "ckpt" / "hyperdex_config.json", name, value=value)
    _, err = fails(capsys, command, str(model))
    assert err[0].startswith(f"error[HDX0501]: {model}/ckpt/hyperdex_config.json: not the table of")
    assert message in err[0]


# ---------------------------------------------------------------------------------------------------- dumps
@pytest.mark.slow
@pytest.mark.parametrize("header", ["run", "left"])
@pytest.mark.parametrize("more", [[], ["--print-pipeline"], ["--compile-to", "isa"]])
def test_the_header_of_a_dump_starts_nothing(
    header: str, more: list[str], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dump, canary = model / "ir" / "04_dce.mlir", tmp_path / "canary"
    marker = f"// passes {header}:\n//   "
    dump.write_text(dump.read_text().replace(marker, f"{marker}{program(canary)}, "))
    _, err = fails(capsys, "compile", str(model), "--compile-from", str(dump), *more)
    assert not canary.exists()
    refusal = next(line for line in err if line.startswith("error"))
    assert refusal.startswith(f"error[HDX0302]: {dump}: passes {header}, line 1, column 1: a file may not name")


@pytest.mark.slow
def test_a_hint_quotes_what_a_dump_says(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dump = model / "ir" / "04_dce.mlir"
    dump.write_text(dump.read_text().replace('lpu.target = "u55c"', 'lpu.target = "$(touch x)"'))
    _, err = fails(capsys, "compile", str(model), "--compile-from", str(dump), "--compile-to", "lpu")
    assert err[-1] == "hint: add --type-device '$(touch x)'"


@pytest.mark.parametrize(
    ("hub_id", "taken"), [("a/b", True), ("../../outside/model", False), ("a/b\x1b[2J", False), ("$(touch x)", False)]
)
def test_a_marker_names_a_hub_id(hub_id: str, taken: bool, tmp_path: Path) -> None:
    (tmp_path / MARKER).write_text(json.dumps({"hub_id": hub_id, "revision": None}))
    assert (read_marker(tmp_path) is not None) == taken


# ---------------------------------------------------------------------------------------------------- the text
@pytest.mark.slow
def test_only_passes_that_do_nothing_else() -> None:
    own = set(get_all_passes()) | {"canonicalize", "cse", "dce"}
    for name in sorted(set(known_passes()) - own):
        with pytest.raises(OptionError, match=f"a file may not name the pass {name}"):
            parse_pipeline(name)
    for name in pipeline_names():
        assert {one.name for one in parse_pipeline(name)} <= own
    types = {type_ for load in get_all_passes().values() for _, type_, _ in pass_options(load())}
    assert types == {"int", "bool", "tuple[str, ...]"}, "none can be a path, but names, which are looked up"


def test_a_file_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "own.pipeline"
    path.write_text("cse")
    for text in (str(path), os.path.relpath(path), "own.pipeline"):
        with pytest.raises(OptionError, match=r"^F, line 1, column \d+: "):
            parse_pipeline(text, "F")


def test_the_number_of_passes_is_bounded() -> None:
    assert len(parse_pipeline("cse," * 500)) == 500
    with pytest.raises(OptionError, match="more than 500 passes"):
        parse_pipeline("cse," * 100_000)


ALLOWED = """
import sys
from hyperdex_ir.errors import OptionError
from hyperdex_ir.passes.pipeline import parse_pipeline
try:
    print(parse_pipeline(sys.argv[1], "F", sys.argv[2:]))
except OptionError as error:
    print(error, "|", error.hint)
print("broken_passes_package" in sys.modules)
"""


@pytest.mark.parametrize(
    ("text", "name"),
    [("cse, broken-refuses", "broken-refuses"), ("lpu-apply-patterns{names=own-pattern}", "own-pattern")],
)
def test_code_of_installed_packages_is_asked_for(text: str, name: str, tmp_path: Path) -> None:
    """Neither run nor imported because a file names it."""
    site = write_package(tmp_path / "site")
    write_distribution(site, "own", "[hyperdex_ir.fusion_patterns]\nown-pattern = broken_passes_package:Divide\n")

    def run(*allowed: str) -> list[str]:
        environment = {**os.environ, "PYTHONPATH": str(site)}
        done = forked.run(["-c", ALLOWED, text, *allowed], env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    refusal, imported = run("another")
    assert f"a file may not name the {'pass' if 'cse' in text else 'fusion pattern'} {name}" in refusal
    assert refusal.endswith(f"| --allow-pass {name}")
    assert imported == "False"
    assert run(name)[0].startswith("["), "a list of passes"


# ---------------------------------------------------------------------------------------------------- reproducers
@pytest.mark.slow
@pytest.mark.parametrize("place", ["manifest", "dump"])
def test_the_reproducer_of_a_file_is_run_without_power(
    place: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if place == "manifest":
        change(model / "manifest.json", "devices", "1", "options", "pipeline", value="lower-lpu-to-isa")
        _, err = fails(capsys, "ir", str(model))
        repro = tmp_path / "repro"
    else:
        dump = model / "ir" / "00_import.mlir"
        dump.write_text(dump.read_text().replace("// passes left:\n//   ", "// passes left:\n//   lower-lpu-to-isa, "))
        _, err = fails(capsys, "compile", str(model), "--compile-from", str(dump))
        repro = model / "repro"
    assert err[-1].endswith("run `sh command.txt` there")
    *note, command = (repro / "command.txt").read_text().splitlines()
    assert "The IR and the options of the pass may come from files of a model." in note[0]
    assert command == "hyperdex-opt before.mlir --no-repro --own-passes --pipeline lower-lpu-to-isa"


FAILING = """
import pathlib, sys
from hyperdex_ir.errors import HyperdexError
from hyperdex_ir.passes.pipeline import parse_pipeline, run_passes
from hyperdex_ir.support.xdsl import parse_module
try:
    passes = parse_pipeline(sys.argv[1], "F", ["broken-label"])
    run_passes(parse_module("builtin.module {}"), passes, repro=pathlib.Path("repro"))
except HyperdexError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("planted", [False, True], ids=["text", "file"])
def test_the_command_of_a_reproducer_runs_one_pass(planted: bool, tmp_path: Path) -> None:
    """Neither can a text of a file add a pass to the command, nor a file beside it that has the name of the pass."""
    canary, site = tmp_path / "canary", write_package(tmp_path / "site")
    label = "x" if planted else f'x"}},{program(canary)[:-2]}'.replace('"', '\\"')
    text = f'broken-label{{label="{label}"}}'
    if planted:
        (tmp_path / "repro").mkdir()
        (tmp_path / "repro" / text).write_text(program(canary))
    environment = {**os.environ, "PYTHONPATH": str(site)}
    failed = forked.run(["-c", FAILING, text], cwd=tmp_path, env=environment).stdout.strip()
    assert failed.startswith("label 'x")
    again = forked.shell(["sh", "command.txt"], tmp_path / "repro", environment)
    assert not canary.exists()
    assert again.stderr.startswith(f"error: {failed} [HDX0402]")


@pytest.mark.slow
def test_own_passes_of_the_tool(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    command = ["-m", "hyperdex_ir.cli.opt", "--pipeline", program(canary)]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return forked.run([*command, *more], input="builtin.module {}", cwd=tmp_path)

    refused = run("--own-passes")
    assert (refused.returncode, canary.exists()) == (1, False)
    assert "a file may not name the pass mlir-opt" in refused.stderr
    run()
    assert canary.exists(), "what a person types keeps everything"
