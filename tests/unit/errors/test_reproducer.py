"""A pass that fails: one line, an excerpt, and a folder from which the same failure can be had again."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from support.passes.broken_passes import write_package
from support.processes import forked

import hyperdex_ir
from hyperdex_ir.support.xdsl import parse_module

LINES = "\n".join(f"  %n{i} = lpu.neg %x : tensor<?x8xf32>" for i in range(200))
MODULE = f"""
func.func @main(%x: tensor<?x8xf32>, %y: tensor<?x9xf32>) -> tensor<?x8xf32> {{
{LINES}
  %a = lpu.neg %x : tensor<?x8xf32> loc("model.layers.3.a")
  %b = lpu.exp %a : tensor<?x8xf32> loc("model.layers.3.b")
  %c = lpu.tanh %b : tensor<?x8xf32> loc("model.layers.3.c")
  func.return %c : tensor<?x8xf32>
}}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_package(tmp_path_factory.mktemp("site"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.mlir").write_text(MODULE)
    return tmp_path


def run(command: str, folder: Path, site: Path) -> subprocess.CompletedProcess[str]:
    return forked.shell(["sh", "-c", command], folder, {**os.environ, "PYTHONPATH": str(site)})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("one", "message", "marked"),
    [
        (
            "broken-raises",
            "error: pass broken-raises: ZeroDivisionError: integer division or modulo by zero, in"
            " `%b = lpu.exp %a : tensor<?x8xf32>`, from model.layers.3.b [HDX0401]",
            "> %b = lpu.exp",
        ),
        (
            "broken-order",
            "error: pass broken-order: lpu.exp: operand 0 is used before it is defined, in"
            " `%b = lpu.exp %a : tensor<?x8xf32>`, from model.layers.3.b [HDX0401]",
            "> %b = lpu.exp",
        ),
        (
            "broken-type{times=2}",
            "error: pass broken-type: result 'res' at position 0 does not verify: ",
            "> %c = lpu.tanh",
        ),
    ],
)
def test_failure_is_reproduced(one: str, message: str, marked: str, folder: Path, site: Path) -> None:
    result = run(f"hyperdex-opt model.mlir --pipeline 'canonicalize, {one}, cse'", folder, site)
    assert (result.returncode, result.stdout) == (1, "")
    lines = result.stderr.splitlines()
    assert lines[0].startswith(message)
    assert lines[0].endswith("[HDX0401]")
    assert "from model.layers.3." in lines[0]
    assert next(line for line in lines if line.startswith("> ")).startswith(marked)
    assert len(lines) <= 6, "the operation and two neighbours, not the module"
    assert lines[-1] == "hint: what reproduces it is in repro: run `sh command.txt` there"
    repro = folder / "repro"
    assert sorted(path.name for path in repro.iterdir()) == ["before.mlir", "command.txt", "error.txt", "versions.json"]
    assert json.loads((repro / "versions.json").read_text())["hyperdex-ir"] == hyperdex_ir.__version__
    before = (repro / "before.mlir").read_text()
    parse_module(before)
    assert 'loc("model.layers.3.b")' in before
    assert "%n1 " not in before, "canonicalize has run"
    again = run("sh command.txt", repro, site)
    assert again.returncode == 1
    assert again.stderr.splitlines()[0] == lines[0]
    assert not (repro / "repro").exists()


def test_the_traceback_is_kept_in_the_folder_only(folder: Path, site: Path) -> None:
    result = run("hyperdex-opt model.mlir -p broken-raises --repro 'my folder'", folder, site)
    assert "Traceback" not in result.stderr
    text = (folder / "my folder" / "error.txt").read_text()
    assert "1 // 0" in text
    assert len(text) < 20_000


def test_errors_of_the_package_keep_their_code_and_hint(folder: Path, site: Path) -> None:
    result = run("hyperdex-opt model.mlir -p broken-refuses", folder, site)
    assert result.stderr.splitlines() == [
        "error: nothing can be done [HDX0402]",
        "hint: do nothing; what reproduces it is in repro: run `sh command.txt` there",
    ]


@pytest.mark.slow
def test_nothing_is_written_when_not_wanted(folder: Path, site: Path) -> None:
    for flag in ("--no-repro", "--verify-diagnostics"):
        run(f"hyperdex-opt model.mlir -p broken-raises {flag}", folder, site)
        assert not (folder / "repro").exists()


def test_a_folder_that_cannot_be_written_hides_no_error(folder: Path, site: Path) -> None:
    (folder / "repro").write_text("a file")
    result = run("hyperdex-opt model.mlir -p broken-order", folder, site)
    assert result.stderr.startswith("error: pass broken-order: lpu.exp: operand 0 is used before")
    assert "hint: what reproduces it could not be written" in result.stderr


def test_entry_points_that_name_nothing_usable(folder: Path, site: Path) -> None:
    result = run("hyperdex-opt model.mlir -p broken-missing", folder, site)
    assert result.stderr.splitlines()[0] == (
        "error: entry point broken-missing of hyperdex_ir.passes: broken_passes_package:MissingPass cannot be imported:"
        " AttributeError: module 'broken_passes_package' has no attribute 'MissingPass' [HDX0404]"
    )
    result = run("hyperdex-opt model.mlir -p broken-nothing", folder, site)
    assert "broken-nothing: its entry point names no subclass of ModulePass [HDX0404]" in result.stderr
