"""`hyperdex compile`: the arguments of `AutoCompiler.compile`, as options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from hyperdex_ir.cli.pass_option import AllowPass
from hyperdex_ir.cli.token_option import Token, given_token


def compile_model(
    model_id: Annotated[
        str, typer.Argument(metavar="MODEL", help="Hub id, or directory with a checkpoint.")
    ] = "facebook/opt-1.3b",
    num_device: Annotated[int, typer.Option("--num-device", "--num_device", help="Number of LPUs.")] = 1,
    max_length: Annotated[
        int,
        typer.Option(
            "--max-length", "--max_length", help="Positions, prompt and response together. 1: as many as fit."
        ),
    ] = 1,
    low_memory_usage: Annotated[
        bool,
        typer.Option("--low-memory-usage", "--low_memory_usage", help="Delete downloaded weights at the end."),
    ] = False,
    token: Token = None,
    type_device: Annotated[str, typer.Option("--type-device", "--type_device", help="Target: u55c, asic.")] = "u55c",
    dtype: Annotated[
        str, typer.Option("--dtype", help="Type of matrices: auto (the checkpoint's), f16, bf16.")
    ] = "auto",
    fast_compile: Annotated[
        bool,
        typer.Option("--fast-compile", "--fast_compile", help="Do not compare the checkpoint's files again."),
    ] = False,
    pipeline: Annotated[
        str | None, typer.Option("--pipeline", help="Passes: a name, a .pipeline file, or the text itself.")
    ] = None,
    dump_ir: Annotated[
        Path | None, typer.Option("--dump-ir", "--dump_ir", help="Folder for the IR, as numbered text files.")
    ] = None,
    output_dir: Annotated[str | None, typer.Option("--output-dir", "--output_dir", help="Folder to write to.")] = None,
    max_ram: Annotated[
        str | None,
        typer.Option("--max-ram", "--max_ram", help="Ceiling on the compiler's resident memory, such as 1536MiB."),
    ] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit on the Hub.")] = None,
    local_files_only: Annotated[
        bool, typer.Option("--local-files-only", "--local_files_only", help="Do not use the network.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Do every phase anew.")] = False,
    compile_to: Annotated[
        str | None,
        typer.Option("--compile-to", "--compile_to", help="Stop at a level and print its IR: import, lpu, isa."),
    ] = None,
    compile_from: Annotated[
        Path | None,
        typer.Option(
            "--compile-from", "--compile_from", help="Go on from a file of --dump-ir; --pipeline is then what is left."
        ),
    ] = None,
    allow_pass: AllowPass = None,
    print_pipeline: Annotated[
        bool, typer.Option("--print-pipeline", "--print_pipeline", help="Print the passes that would run, and exit.")
    ] = False,
) -> None:
    """Compile a model: checkpoint in, parameter images and programs for the LPU out."""
    if print_pipeline:
        _print_pipeline(pipeline, compile_from, allow_pass or ())
        return
    from hyperdex_ir.tools import AutoCompiler

    arguments: dict[str, Any] = {
        "model_id": model_id,
        "num_device": num_device,
        "max_length": max_length,
        "low_memory_usage": low_memory_usage,
        "token": given_token(token),
        "type_device": type_device,
        "dtype": dtype,
        "fast_compile": fast_compile,
        "pipeline": pipeline,
        "dump_ir": dump_ir,
        "output_dir": output_dir,
        "max_ram": max_ram,
        "revision": revision,
        "local_files_only": local_files_only,
        "force": force,
        "compile_from": compile_from,
        "allow_passes": tuple(allow_pass or ()),
    }
    if compile_to is None:
        print(AutoCompiler().compile(**arguments).root)
    else:
        print(AutoCompiler().compile_to(compile_to, **arguments), end="")


def _print_pipeline(pipeline: str | None, compile_from: Path | None, allowed: Sequence[str]) -> None:
    from hyperdex_ir.backend.options import chosen_passes
    from hyperdex_ir.passes.pipeline import pipeline_lines

    if compile_from is None:
        passes = chosen_passes(pipeline)
    else:
        from hyperdex_ir.backend.dumps import read_dump

        passes = read_dump(compile_from, pipeline, allowed).left
    print(pipeline_lines(passes), end="")
