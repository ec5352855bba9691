"""The installed commands. Nothing but this is imported before Ctrl+C is one line."""

from __future__ import annotations

import sys

INTERRUPTED = 130


def interrupted(command: str) -> int:
    """Says on stderr that Ctrl+C ended a command; returns its exit code."""
    line_end = "\n" if sys.stderr.isatty() else ""  # the terminal shows ^C on the same line
    print(f"{line_end}{command}: interrupted", file=sys.stderr)
    return INTERRUPTED


def hyperdex() -> None:
    """`hyperdex`."""
    try:
        from hyperdex_ir.cli.main import main

        main()
    except KeyboardInterrupt:
        raise SystemExit(interrupted("hyperdex")) from None


def hyperdex_opt() -> None:
    """`hyperdex-opt`."""
    try:
        from hyperdex_ir.cli.opt import main

        main()
    except KeyboardInterrupt:
        raise SystemExit(interrupted("hyperdex-opt")) from None
