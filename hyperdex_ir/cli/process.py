"""The process of a command: its end by Ctrl+C, and its arguments, which others on the machine can read."""

from __future__ import annotations

import os
import sys

INTERRUPTED = 130
_ASK_HUB = (["compile"], ["plan"])


def interrupted(command: str) -> int:
    """Prints on stderr that Ctrl+C ended a command; returns its exit code."""
    line_end = "\n" if sys.stderr.isatty() else ""  # the terminal shows ^C on the same line
    print(f"{line_end}{command}: interrupted", file=sys.stderr)
    return INTERRUPTED


def hide_token() -> None:
    """Takes the value of --token out of the process list, where everybody on the machine could read it.

    The process continues as the same command without it, and with HF_TOKEN. Until then the value was visible for a
    moment.
    """
    arguments, values = _without_token(sys.argv[1:])
    if not values:
        return
    command = [*sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1], *arguments]
    os.execve(sys.executable, command, {**os.environ, "HF_TOKEN": values[-1]})


def _without_token(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The arguments, without --token, of a command that asks the Hub; and the values that --token had."""
    kept, values, left = list[str](), list[str](), iter(arguments if arguments[:1] in _ASK_HUB else ())
    for argument in left:
        name, equals, value = argument.partition("=")
        if name != "--token":
            kept.append(argument)
            continue
        value = value if equals else next(left, "-")
        if value in ("", "-"):
            kept += [argument] if equals else [argument, value]
        else:
            values.append(value)
    return kept, values
