"""Compiles, and what they log."""

from __future__ import annotations

from pathlib import Path

from hyperdex_ir.tools import AutoCompiler

STATE = ".hyperdex_state.json"


def compile_model(model: Path | str, **options):
    return AutoCompiler().compile(str(model), **options)


def phases_done(capsys) -> list[str]:
    """The phases that wrote something, by the log lines since the last call."""
    log = capsys.readouterr().err
    return [number for number, words in (("2", "converted checkpoint at"), ("3", "data at"), ("4", "instruction at"))
            if f"[ INFO ] : Save the {'optimized ' * (number != '2')}{words}" in log]  # fmt: skip
