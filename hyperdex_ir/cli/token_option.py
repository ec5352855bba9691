"""`--token` of the commands that ask the Hub."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        help="Hugging Face access token, by default HF_TOKEN or a stored login; -: ask for it, or read it from stdin.",
    ),
]


def given_token(value: str | None) -> str | None:
    """The token that the option stands for. Raises OptionError when `-` brings none."""
    if value != "-":
        return value
    from hyperdex_ir.errors import OptionError
    from hyperdex_ir.hub.access import prompt_token, usable_token

    token = prompt_token() if sys.stdin.isatty() else usable_token(sys.stdin.readline())
    if token is None:
        raise OptionError("--token -: no token was entered", "type it on the terminal, or pipe it in")
    return token
