"""The example package: installed, found by its entry points, used in pipelines, part of what a compile depends on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from support import ROOT, TESTS
from support.passes.broken_passes import write_distribution
from support.processes import forked

from hyperdex_ir.support.xdsl import installed_universe, make_context

EXAMPLE = ROOT / "examples" / "hyperdex_example"
SQUARE = """
func.func @f(%x: tensor<?x8xf32>, %y: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %a = lpu.mul %x, %x : (tensor<?x8xf32>, tensor<?x8xf32>) -> tensor<?x8xf32> loc("model.a")
  %b = lpu.mul %a, %y : (tensor<?x8xf32>, tensor<?x8xf32>) -> tensor<?x8xf32> loc("model.b")
  func.return %b : tensor<?x8xf32>
}
"""
FUSE = "lpu-apply-patterns{names=example-fuse-square}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, installed into a folder of its own."""
    copy = tmp_path_factory.mktemp("copy") / "package"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "--target", target, copy], check=True, capture_output=True)
    return target


def run(tool: str, *arguments: str, site: Path | None, text: str = SQUARE) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": "" if site is None else str(site)}
    return forked.run([str(Path(sys.executable).with_name(tool)), *arguments], input=text, env=environment)


@pytest.mark.slow
def test_pattern_and_dialect(site: Path) -> None:
    result = run("hyperdex-opt", "-p", FUSE, "--print-debuginfo", "--verify-each", site=site)
    assert result.returncode == 0, result.stderr
    assert '%a = example.square %x : tensor<?x8xf32> -> tensor<?x8xf32> loc("model.a")' in result.stdout
    assert "%b = lpu.mul %a, %y" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["hyperdex-opt", "xdsl-opt"])
def test_pass_in_both_tools(tool: str, site: Path) -> None:
    fused = run("hyperdex-opt", "-p", FUSE, site=site).stdout
    result = run(tool, "-p", "example-expand-square", site=site, text=fused)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == run("hyperdex-opt", site=None).stdout.strip()


def test_not_installed() -> None:
    result = run("hyperdex-opt", "-p", f"cse,{FUSE}", site=None)
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "error: pipeline, line 1, column 24: lpu-apply-patterns: no fusion pattern 'example-fuse-square', installed"
        " packages have none [HDX0302]",
        f"  cse,{FUSE}",
        "  " + " " * 23 + "^",
        "hint: options of lpu-apply-patterns are names: tuple[str, ...]",
    ]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("[hyperdex_ir.passes]\nlpu-fuse-norm = other:Pass\n", "other:Pass and hyperdex_ir both use this name"),
        ("[hyperdex_ir.passes]\ncse = other:Pass\n", "Duplicate definition of cse"),
        ("[hyperdex_ir.dialects]\nexample = other:D\n", "other:D and hyperdex_example.dialect:EXAMPLE both"),
    ],
)
def test_names_that_clash(entries: str, message: str, site: Path, tmp_path: Path) -> None:
    write_distribution(tmp_path, "other", entries)
    path = Path(os.pathsep.join([str(site), str(tmp_path)]))
    result = run("hyperdex-opt", site=path)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_compile_with_the_package(site: Path, tmp_path: Path) -> None:
    """The same program as without it, compiled again when the package's code changes."""
    script = f"""
import shutil, sys, hyperdex_example.expand_square as module
sys.path.insert(0, {str(TESTS)!r})
from pathlib import Path
from support.models.tiny import tiny_llama_config, write_checkpoint
from hyperdex_ir.support.locations import instruction_cache
from hyperdex_ir.tools import AutoCompiler
from hyperdex_ir.passes.pipeline import parse_pipeline, pipeline_spec
model = write_checkpoint(tiny_llama_config(), Path({str(tmp_path / "model")!r}))
first = AutoCompiler().compile(model, pipeline="default").instructions.read_bytes()
passes = pipeline_spec(parse_pipeline("default")).replace("lpu-outline", "{FUSE},example-expand-square,lpu-outline")
shutil.rmtree(instruction_cache())
assert AutoCompiler().compile(model, pipeline=passes).instructions.read_bytes() == first
print("again", file=sys.stderr)
AutoCompiler().compile(model, pipeline=passes)
path = Path(module.__file__)
path.write_text(path.read_text() + "# changed")
print("changed", file=sys.stderr)
AutoCompiler().compile(model, pipeline=passes)
"""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    result = forked.run(["-c", script], env=environment)
    assert result.returncode == 0, result.stderr
    again, changed = result.stderr.split("again\n")[1].split("changed\n")
    assert "Compiled already" in again
    assert "Save the optimized instruction" in changed


def test_installed_packages_are_looked_up_once_for_a_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    looked: list[str] = []

    def entry_points(group: str) -> metadata.EntryPoints:
        looked.append(group)
        return found(group=group)

    found = metadata.entry_points
    monkeypatch.setattr(metadata, "entry_points", entry_points)
    for name in "ab":
        monkeypatch.syspath_prepend(tmp_path / name)
        assert installed_universe() is installed_universe()
        assert make_context().get_optional_dialect("lpu") is not None
    assert looked.count("xdsl.universe") == 2
