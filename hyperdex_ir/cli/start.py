"""The installed commands. Nothing but `process.py` is imported before Ctrl+C is reported in one line."""

from __future__ import annotations

from hyperdex_ir.cli.process import hide_token, interrupted


def hyperdex() -> None:
    """`hyperdex`."""
    hide_token()
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
