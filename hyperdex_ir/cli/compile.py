"""`hyperdex compile`: the arguments of `AutoCompiler.compile`, as options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


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
    token: Annotated[
        str | None, typer.Option("--token", envvar="HF_TOKEN", show_envvar=True, help="Hugging Face access token.")
    ] = None,
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
    output_dir: Annotated[Path | None, typer.Option("--output-dir", "--output_dir", help="Folder to write to.")] = None,
    max_ram: Annotated[
        str | None, typer.Option("--max-ram", "--max_ram", help="Bound on the compiler's memory (not there yet).")
    ] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit on the Hub.")] = None,
    local_files_only: Annotated[
        bool, typer.Option("--local-files-only", "--local_files_only", help="Do not use the network.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Do every phase anew.")] = False,
) -> None:
    """Compile a model: checkpoint in, parameter images and programs for the LPU out."""
    from hyperdex_ir.tools import AutoCompiler

    compiled = AutoCompiler().compile(
        model_id=model_id,
        num_device=num_device,
        max_length=max_length,
        low_memory_usage=low_memory_usage,
        token=token,
        type_device=type_device,
        dtype=dtype,
        fast_compile=fast_compile,
        pipeline=pipeline,
        dump_ir=dump_ir,
        output_dir=output_dir,
        max_ram=max_ram,
        revision=revision,
        local_files_only=local_files_only,
        force=force,
    )
    print(compiled.root)
