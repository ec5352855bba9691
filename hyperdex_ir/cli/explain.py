"""`hyperdex explain`: the meaning of an error code."""

from __future__ import annotations

from typing import Annotated

import typer

_PAGE = """# Error codes

Every error is one line with a code, mostly followed by a hint. `hyperdex explain HDX0301` prints the section of a code;
this page is what `hyperdex explain --markdown` prints.
"""


def explain(
    code: Annotated[str | None, typer.Argument(help="A code, such as HDX0301.", show_default=False)] = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/errors.md.")] = False,
) -> None:
    """Explain an error code; without one, list all."""
    from hyperdex_ir.errors import explanations

    if as_markdown:
        print("\n".join([_PAGE, *(one.markdown() for one in explanations.explanations().values())]), end="")
    elif code is None:
        print("\n".join(f"{one.code}  {one.title}" for one in explanations.explanations().values()))
    else:
        print("\n".join(explanations.explain(code).lines()))
