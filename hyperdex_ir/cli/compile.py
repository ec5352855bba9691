"""`hyperdex compile`: the arguments of `AutoCompiler.compile`, as options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from hyperdex_ir.backend.arguments import DEFAULT_MODEL
from hyperdex_ir.cli.options import ARGUMENTS, given_token, with_options

_NAMES = list(ARGUMENTS)
_NAMES.insert(_NAMES.index("compile_from"), "compile_to")


@with_options([*_NAMES, "print_pipeline"])
def compile_model(
    model_id: Annotated[
        str, typer.Argument(metavar="MODEL", help="Hub id, or directory with a checkpoint.")
    ] = DEFAULT_MODEL,
    compile_to: Annotated[
        str | None,
        typer.Option("--compile-to", "--compile_to", help="Stop at a level and print its IR: import, lpu, isa."),
    ] = None,
    print_pipeline: Annotated[
        bool, typer.Option("--print-pipeline", "--print_pipeline", help="Print the passes that would run, and exit.")
    ] = False,
    **values: Any,
) -> None:
    """Compile a model: checkpoint in, parameter images and programs for the LPU out."""
    if print_pipeline:
        _print_pipeline(values["pipeline"], values["compile_from"], values["allow_passes"])
        return
    from hyperdex_ir.tools import AutoCompiler

    values["token"] = given_token(values["token"])
    if compile_to is None:
        print(AutoCompiler().compile(model_id, **values).root)
    else:
        print(AutoCompiler().compile_to(compile_to, model_id, **values), end="")


def _print_pipeline(pipeline: str | None, compile_from: Path | None, allowed: Sequence[str]) -> None:
    from hyperdex_ir.backend.options import chosen_passes
    from hyperdex_ir.passes.pipeline import pipeline_lines

    if compile_from is None:
        passes = chosen_passes(pipeline)
    else:
        from hyperdex_ir.backend.dumps import read_dump

        passes = read_dump(compile_from, pipeline, allowed).left
    print(pipeline_lines(passes), end="")
