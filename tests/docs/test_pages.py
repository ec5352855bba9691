"""The pages as a whole: all are on the map, and links into a page lead to a heading of it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from support import ROOT

DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *DOCS]
_LINK = re.compile(r"\]\((?!https?://)([^)#]*)(?:#([^)]*))?\)")


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them of its headings."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_index_lists_every_page_once() -> None:
    index = ROOT / "docs" / "index.md"
    rows = re.findall(r"^\| \[[^\]]*\]\(([^)]*)\)", index.read_text(encoding="utf-8"), re.MULTILINE)
    listed = Counter((index.parent / row).resolve() for row in rows)
    assert max(listed.values()) == 1
    assert {*PAGES} - {index} <= listed.keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_anchors_exist(page: Path) -> None:
    for target, anchor in _LINK.findall(page.read_text(encoding="utf-8")):
        file = page.parent / target if target else page
        if anchor and file.suffix == ".md":
            assert anchor in headings(file), f"{page.name}: {target}#{anchor}"


def test_the_glossary_explains_a_word_once() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    words = [word for row in re.findall(r"^\| \*\*(.*?)\*\*", text, re.MULTILINE) for word in row.split(", ")]
    assert [word for word, count in Counter(words).items() if count > 1] == []


def test_the_picture_is_what_its_script_draws() -> None:
    script = ROOT / "docs" / "picture.py"
    drawn = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout
    assert drawn == script.with_suffix(".svg").read_text(encoding="utf-8"), "run: python docs/picture.py --write"


def test_the_speeds_of_the_readme_are_those_measured() -> None:
    measured = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| (SmolLM2.*?|Llama.*?) \| (.*) \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(rows) == 3
    for name, cells in rows:
        (line,) = [line for line in measured.splitlines() if line.startswith(name.removesuffix(" tokens"))]
        assert line.partition("tokens/s")[2].split() == [cell.strip() for cell in cells.split("|") if cell.strip()]


def test_adding_names_files_that_exist() -> None:
    """Files of this repository, but those that its examples would add."""
    text = (ROOT / "docs" / "adding.md").read_text(encoding="utf-8")
    paths = {path for path in re.findall(r"`((?:hyperdex_ir|tests|docs)/[\w/.-]*)`", text) if "NAME" not in path}
    added = {"hyperdex_ir/passes/lpu_drop_double_neg.py", "tests/filecheck/passes/lpu-drop-double-neg.mlir"}
    assert sorted(path for path in paths - added if not (ROOT / path).exists()) == []
    assert added <= paths


def test_unit_tests_have_the_rooms_of_the_package() -> None:
    rooms = {path.name for path in (ROOT / "tests" / "unit").iterdir() if any(path.glob("test_*.py"))}
    assert len(rooms) > 10
    assert sorted(room for room in rooms if not (ROOT / "hyperdex_ir" / room / "__init__.py").is_file()) == []
