"""The distribution: one top-level name, each module once, works outside the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from support import ROOT

import hyperdex_ir

SOURCES = ("pyproject.toml", "README.md", "LICENSE", "hyperdex_ir", "dialects", "passes")


def modules_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.glob("hyperdex_ir/**/*.py")}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist, made from a copy so that the checkout stays clean."""
    copy = tmp_path_factory.mktemp("copy")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir() and not source.is_symlink():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, copy / name, follow_symlinks=False)
    script = "from setuptools import build_meta as b; b.build_wheel('dist'); b.build_sdist('dist')"
    subprocess.run([sys.executable, "-c", script], cwd=copy, check=True, capture_output=True)
    return copy / "dist"


@pytest.mark.slow
def test_wheel_claims_one_name(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "hyperdex_ir",
        f"hyperdex_ir-{hyperdex_ir.__version__}.dist-info",
    }
    assert modules_in(ROOT) <= set(names)
    assert {
        "hyperdex_ir/targets/u55c.toml",
        "hyperdex_ir/passes/pipelines/default.pipeline",
        "hyperdex_ir/py.typed",
    } <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_sdist_holds_each_module_once(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = [name.split("/", 1)[1] for name in archive.getnames() if name.endswith(".py")]
    assert modules_in(ROOT) <= set(inside)
    assert not [name for name in inside if name.startswith(("dialects/", "passes/"))]
    assert max(Counter(inside).values()) == 1


@pytest.mark.slow
def test_installed_wheel_works_outside_the_checkout(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target, wheel]
    subprocess.run(pip, check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(target)}
    where = [sys.executable, "-c", "import hyperdex_ir; print(hyperdex_ir.__file__)"]
    result = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert Path(result.stdout.strip()).is_relative_to(target)
    for arguments, expected in [
        (["hyperdex_ir.cli.main", "--version"], f"hyperdex-ir {hyperdex_ir.__version__}"),
        (["hyperdex_ir.cli.main", "models"], "LlamaForCausalLM"),
        (["hyperdex_ir.cli.opt", "--list-passes"], "lower-lpu-to-isa"),
    ]:
        command = [sys.executable, "-m", *arguments]
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        assert expected in result.stdout


def test_top_level_links() -> None:
    for name in ("dialects", "passes"):
        assert (ROOT / name).is_symlink()
        assert os.readlink(ROOT / name) == f"hyperdex_ir/{name}"


RUFF = Path(sys.executable).with_name("ruff")


@pytest.mark.skipif(not RUFF.is_file(), reason="ruff is not installed beside this Python")
def test_linter_and_type_checker_see_each_module_once() -> None:
    result = subprocess.run([RUFF, "check", "--show-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    seen = [Path(line).relative_to(ROOT).as_posix() for line in result.stdout.splitlines()]
    assert modules_in(ROOT) <= set(seen)
    assert not [name for name in seen if name.startswith(("dialects/", "passes/"))]
    assert max(Counter(seen).values()) == 1
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pyright"]
    assert settings["include"] == ["hyperdex_ir", "benchmarks"]
