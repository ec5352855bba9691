"""Standard output of the commands: it makes control characters, and text that UTF-8 cannot encode, harmless."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any, TextIO

from typer.core import TyperCommand

from hyperdex_ir.errors import printable

#: Control characters but for tab and line feed.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_UNSHOWN = re.compile(r"[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def json_line(value: Any) -> str:
    """JSON on one line in UTF-8; characters that are no text, and control characters, are written as `\\uXXXX`."""
    text = json.dumps(value, ensure_ascii=False)
    return _UNSHOWN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def print_error(code: str, message: str, hint: str, notes: Sequence[str] = ()) -> None:
    """Prints an error on standard error, after all earlier output: its line, notes and hint."""
    sys.stdout.flush()
    print(f"error[{code}]: {printable(message)}", *notes, sep="\n", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)


class Command(TyperCommand):
    """A command whose output cannot control a terminal."""

    def invoke(self, ctx: Any) -> Any:
        with harmless_stdout():
            return super().invoke(ctx)


@contextmanager
def harmless_stdout() -> Iterator[None]:
    """Lets standard output take any text; to a terminal, control characters are written as Python writes them."""
    stdout = sys.stdout
    if isinstance(stdout, TextIOWrapper):
        stdout.reconfigure(errors="backslashreplace")
    if stdout is None or not stdout.isatty():
        yield
        return
    sys.stdout = _Terminal(stdout)
    try:
        yield
    finally:
        sys.stdout = stdout


class _Terminal:
    """A stream that shows control characters."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(_CONTROL.sub(lambda found: ascii(found[0])[1:-1], text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
