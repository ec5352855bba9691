"""Every error code has a class that is raised, an explanation whose example such a raise prints, and a test."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import pytest
from support import ROOT
from support.processes import forked

from hyperdex_ir.cli.explain import explain as explain_command
from hyperdex_ir.errors import HyperdexError, MachineFault, OptionError
from hyperdex_ir.errors.explanations import error_classes, explain, explanations
from hyperdex_ir.isa.faults import Fault, place_of

CLASSES = [one for one in error_classes() if one is not HyperdexError]
#: Characters that a text must have, interpolations aside, to be told from others.
LEAST = 14


def pattern(node: ast.AST) -> str | None:
    """A regular expression for the lines that a message expression can give; None when it is no text."""
    match node:
        case ast.Constant(value=str(text)):
            return re.escape(text)
        case ast.JoinedStr(values=parts):
            return "".join(pattern(part) or ".*" for part in parts)
    return None


def messages(error: type[HyperdexError]) -> list[str]:
    """Regular expressions for the texts, if they say something, of the modules that name an error."""
    found: list[str] = []
    for path in sorted((ROOT / "hyperdex_ir").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if error.__name__ in text and path.parent.name != "errors":
            found += [pattern(node) or "" for node in ast.walk(ast.parse(text))]
    if error is MachineFault:  # the words of a fault stand behind the instruction
        words = [re.sub(r"\\{[^}]*\\}", ".*", re.escape(kind.words)) for kind in Fault]
        found += [rf"{re.escape(place_of(7, 'receive'))}: {text}" for text in words]
    return [one for one in found if len(one.replace(".*", "")) >= LEAST]


def test_codes_and_classes_are_the_same() -> None:
    codes = [one.code for one in error_classes()]
    assert len(set(codes)) == len(codes)
    assert sorted(codes) == list(explanations())


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.code)
def test_the_example_is_what_a_raise_site_prints(error: type[HyperdexError]) -> None:
    example = explain(error.code).example
    prefix = f"error[{error.code}]: "
    assert example.startswith(prefix)
    line = example.removeprefix(prefix)
    assert any(re.fullmatch(text, line) for text in messages(error))


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.code)
def test_it_is_raised(error: type[HyperdexError]) -> None:
    texts = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "hyperdex_ir").rglob("*.py"))]
    assert any(re.search(rf"(?<!class ){error.__name__}\(", text) for text in texts)


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.code)
def test_a_test_provokes_it(error: type[HyperdexError]) -> None:
    """By its name or its code, in Python or in filecheck."""
    words = (error.__name__, error.code)
    files = [path for path in sorted((ROOT / "tests").rglob("*")) if path.is_file() and path.suffix != ".pyc"]
    texts = (path.read_text(encoding="utf-8", errors="replace") for path in files if path != Path(__file__))
    assert any(word in text for text in texts for word in words)


@pytest.mark.parametrize("entry", explanations().values(), ids=lambda entry: entry.code)
def test_entries_are_whole(entry) -> None:
    assert entry.title.endswith(".")
    assert entry.cause.endswith((".", "!"))
    assert entry.remedy.endswith(".")
    assert "\n" not in entry.example


def test_the_page_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    explain_command(None, True)
    assert capsys.readouterr().out == (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", ["HDX0301", "hdx0301", "301", "0301"])
def test_a_code_can_be_written_in_short(code: str) -> None:
    assert explain(code).code == "HDX0301"


def test_an_unknown_code_is_refused() -> None:
    with pytest.raises(OptionError, match="HDX9999: no such error code"):
        explain("HDX9999")


def test_command() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = forked.hyperdex("explain", "HDX0503", env=environment)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == "HDX0503: The file system refused: disk full, no permission."
