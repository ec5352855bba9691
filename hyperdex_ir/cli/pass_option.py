"""`--allow-pass` of the commands that take the pipeline of a file."""

from __future__ import annotations

from typing import Annotated

import typer

AllowPass = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-pass",
        "--allow_pass",
        metavar="NAME",
        help="A pass or fusion pattern of an installed package that the file's pipeline may name; again for others.",
    ),
]
