"""Commands of `hyperdex` in the tests' own process."""

from __future__ import annotations

import pytest

from hyperdex_ir.cli.main import main


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, list[str]]:
    """The output of a command that ends with exit code 1: on stdout, and as lines on stderr."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    printed = capsys.readouterr()
    return printed.out, printed.err.splitlines()


def succeeds(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    return capsys.readouterr().out
