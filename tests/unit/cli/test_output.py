"""Texts of files in what commands print: a terminal and a shell do nothing that they say."""

from __future__ import annotations

import io
import json
import shlex
import sys
from pathlib import Path

import pytest
from support.commands import fails

from hyperdex_ir.cli import main as cli
from hyperdex_ir.cli.output import harmless_stdout, json_line
from hyperdex_ir.passes.pipeline_text import PipelineText
from hyperdex_ir.support.progress import file_progress, log

HOSTILE = "a\x1b[2J\x9b0m\x7fb"


class Terminal(io.TextIOWrapper):
    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8")

    def isatty(self) -> bool:
        return True

    @property
    def written(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode()  # pyright: ignore[reportAttributeAccessIssue]


def test_a_terminal_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    with harmless_stdout():
        print(f"{HOSTILE}\té👍🏽\r", end="\n")
    assert terminal.written == "a\\x1b[2J\\x9b0m\\x7fb\té👍🏽\\r\n"
    assert sys.stdout is terminal


def test_a_pipe_gets_the_text_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for names of files that are not UTF-8, which cannot be written."""
    pipe = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", pipe)
    with harmless_stdout():
        print(HOSTILE, "\udcff")
    pipe.flush()
    assert pipe.buffer.getvalue() == f"{HOSTILE} \\udcff\n".encode()  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("text", [HOSTILE, "é👍🏽", "\ud800", "\u2028", 'a"\\\n'])
def test_json(text: str) -> None:
    line = json_line({"text": text})
    assert json.loads(line) == {"text": text}
    assert line.isprintable()
    assert "é" not in text or "é" in line, "text of all languages stays readable"


def test_errors_of_the_system_quote_names(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(arguments: object) -> None:
        raise OSError(13, "Permission denied", f"/x/{HOSTILE}\nhint: y")

    monkeypatch.setattr(cli, "app", refuse)
    _, err = fails(capsys, "check")
    assert err == ["error[HDX0503]: /x/a\\x1b[2J\\x9b0m\\x7fb\\nhint: y: Permission denied"]


def test_internal_errors_and_notes_quote_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def raise_value(arguments: object) -> None:
        raise ValueError(HOSTILE)

    def raise_note(arguments: object) -> None:
        raise PipelineText(f"cse,\n{HOSTILE}").error(6, "no such pass")

    for raised in (raise_value, raise_note):
        monkeypatch.setattr(cli, "app", raised)
        _, err = fails(capsys, "check")
        assert err
        assert all(line.isprintable() for line in err)


@pytest.mark.parametrize("name", ["a\x9b31m", "a\u202eb", "a\x07"])
@pytest.mark.parametrize("total", [None, 7])
@pytest.mark.parametrize("is_terminal", [False, True])
def test_downloads_name_their_files(
    name: str, total: int | None, is_terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)
    with file_progress(name, total, 0) as advance:
        advance(7)
    printed = capsys.readouterr().err
    assert name not in printed
    assert all(character.isprintable() for character in printed if character not in "\r\n")


def test_log_lines(capsys: pytest.CaptureFixture[str]) -> None:
    log(f"Save {HOSTILE}")
    assert capsys.readouterr().err == "[ INFO ] : Save a\\x1b[2J\\x9b0m\\x7fb\n"


@pytest.mark.parametrize("command", ["check", "inspect", "diff"])
@pytest.mark.parametrize("name", ["$(touch x)", "a b; touch x", "`x`'\""])
def test_commands_in_hints_are_quoted(
    command: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    _, err = fails(capsys, command, str(folder), *(["--tokens", "1"] if command == "diff" else []))
    assert shlex.split(err[-1]) == ["hint:", "hyperdex", "compile", str(folder)]
