"""`hyperdex ir`: the IR of a model, compiled or not, at any point of the pipeline."""

from __future__ import annotations

from typing import Annotated

import typer

from hyperdex_ir.cli.options import AllowPass


def print_ir(
    model: Annotated[str, typer.Argument(help="Hub id or directory; a config.json is enough.", show_default=False)],
    after: Annotated[
        str | None, typer.Option("--after", help="After this pass (the last of that name), `import`, or this many.")
    ] = None,
    function: Annotated[str | None, typer.Option("--function", help="Only this function.")] = None,
    locations: Annotated[bool, typer.Option("--locations", help="With module paths.")] = False,
    pipeline: Annotated[
        str | None, typer.Option("--pipeline", help="Passes: a name, a file, or text. Default: the compiled model's.")
    ] = None,
    allow_pass: AllowPass = None,
    num_device: Annotated[int, typer.Option("--num-device", "--num_device", help="Number of LPUs.")] = 1,
) -> None:
    """Print the IR of a model, by default as it is after the last pass."""
    from hyperdex_ir.backend.show import show_ir
    from hyperdex_ir.runtime.model_folders import compiled_folder

    folder = compiled_folder(model)
    text = show_ir(
        model,
        folder,
        pipeline=pipeline,
        after=after,
        function=function,
        locations=locations,
        num_device=num_device,
        allowed=allow_pass or (),
    )
    print(text, end="")
