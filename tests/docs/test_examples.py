"""Everything that the documentation tells a reader to type is run here; what it says about the code is checked."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import ROOT
from support.once import make_once
from support.processes import forked

from hyperdex_ir.cli.demo_checkpoint import MODEL_ID

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?://)([^)#]+)")
#: Languages of blocks that are read, not run.
SHOWN = ("text", "mermaid", "mlir", "json", "asm")


@dataclass(frozen=True)
class Example:
    """A block of a page: where it stands, its language, its text."""

    page: str
    line: int
    language: str
    text: str


def examples() -> list[Example]:
    found: list[Example] = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in _BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Example(page.relative_to(ROOT).as_posix(), line, match[1], match[2]))
    return found


EXAMPLES = examples()


@pytest.fixture(scope="module")
def home(smollm2_short_dir: Path, shared_dir: Path) -> Path:
    """A HYPERDEX_HOME in which the demo's model is compiled, or its first layers."""
    return make_once(shared_dir / "docs-home", lambda home: shutil.copytree(smollm2_short_dir, home / "hub" / MODEL_ID))


def run(command: list[str], folder: Path, home: Path) -> subprocess.CompletedProcess[str]:
    return forked.shell(command, folder, {**os.environ, "HYPERDEX_HOME": str(home), "HF_HUB_OFFLINE": "1"})


def test_every_block_has_a_language_that_is_run_or_shown() -> None:
    assert {example.language for example in EXAMPLES} <= {*SHOWN, "sh", "python", "console"}
    for page in PAGES:
        assert page.read_text(encoding="utf-8").count("```") % 2 == 0, page


@pytest.mark.slow
@pytest.mark.parametrize(
    "example",
    [example for example in EXAMPLES if example.language in ("sh", "python")],
    ids=lambda example: f"{example.page}:{example.line}",
)
def test_example_runs(example: Example, home: Path, tmp_path: Path) -> None:
    """make targets are only looked up: they would set up another environment."""
    if example.language == "python":
        command = ["python", "-c", example.text]
    else:
        lines = [line for line in example.text.splitlines() if not line.startswith(("git clone", "cd "))]
        text = "\n".join(re.sub(r"^make ", f"make -n -C {ROOT} ", line) for line in lines)
        command = ["bash", "-euo", "pipefail", "-c", text]
    result = run(command, tmp_path, home)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "example",
    [example for example in EXAMPLES if example.language == "console"],
    ids=lambda example: f"{example.page}:{example.line}",
)
def test_transcript(example: Example, demo_home: Path) -> None:
    """Compares a transcript with what its command printed in an empty HYPERDEX_HOME, numbers aside."""
    prompt, _, shown = example.text.partition("\n")
    assert prompt == "$ hyperdex demo", "the command of `demo_home`"
    printed = (demo_home / "printed.txt").read_text().replace(str(demo_home), "~/.cache/hyperdex")
    assert _without_numbers(printed) == _without_numbers(shown)


def _without_numbers(text: str) -> list[str]:
    """Lines with every measured number as N: times, rates and sizes differ from machine to machine."""
    return [re.sub(r"\d[\d.,]*(?= ?(s|tokens/s|MiB|MB|GB|B)\b)", "N", line).rstrip() for line in text.splitlines()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_table_of_models_is_what_the_command_prints(tmp_path: Path) -> None:
    result = run(["hyperdex", "models"], tmp_path, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() in (ROOT / "docs" / "models.md").read_text(encoding="utf-8")


def test_pages_name_no_absolute_path() -> None:
    for page in PAGES:
        assert not re.search(r"(?<![\w.~>])/(home|root|work|tmp|Users)/", page.read_text(encoding="utf-8")), page


def layers() -> list[str]:
    """The packages in the order of the table in docs/architecture.md."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.split("## Packages")[1].split("\n## ")[0]
    return [name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)", row)]


def helpers() -> list[str]:
    """The packages that docs/architecture.md lets everything use."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    return re.findall(r"`(\w+)`", text.split("everything may use")[1].split(".")[0])


def imports(path: Path) -> set[str]:
    """First names below hyperdex_ir that a module imports, at its top or inside functions, type checking aside."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            names.extend(f"{node.module}.{alias.name}" for alias in node.names)
        if isinstance(node, ast.Import):
            names.extend(alias.name for alias in node.names)
    return {name.split(".")[1] for name in names if name.startswith("hyperdex_ir.")}


def test_every_package_has_its_place() -> None:
    package = ROOT / "hyperdex_ir"
    found = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert sorted([*layers(), *helpers()]) == sorted(found - {"__init__"})


@pytest.mark.slow
def test_data_flows_one_way() -> None:
    order = layers()
    assert {"memory", "isa", "dialects", "passes", "backend", "runtime", "cli"} <= set(order)
    for helper in helpers():
        for path in sorted((ROOT / "hyperdex_ir" / helper).rglob("*.py")):
            assert not imports(path) & set(order), path.relative_to(ROOT)
    for number, layer in enumerate(order):
        below = set(order[number + 1 :])
        place = ROOT / "hyperdex_ir" / layer
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]:
            assert not imports(path) & below, path.relative_to(ROOT)
