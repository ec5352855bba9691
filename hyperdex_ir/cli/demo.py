"""`hyperdex demo`: from the weights of an installed package to an answer, with nothing to download."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from hyperdex_ir.cli.generate import ExecutorOption, ThreadsOption, print_statistics, prompt_ids, stream_answer

if TYPE_CHECKING:
    from hyperdex_ir.runtime.model import CompiledModel
    from hyperdex_ir.support.locations import ModelFolder

QUESTION = "What is the capital of France?"


def demo(
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="What to ask.")] = QUESTION,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", "--max_new_tokens", min=1, help="Most tokens to generate.")
    ] = 64,
    engine: ExecutorOption = "native",
    threads: ThreadsOption = None,
) -> None:
    """Compile SmolLM2-135M-Instruct and ask it a question."""
    from hyperdex_ir.cli.demo_checkpoint import MODEL_ID
    from hyperdex_ir.runtime.model import read_eos_ids
    from hyperdex_ir.runtime.model_folders import load_tokenizer
    from hyperdex_ir.support.locations import find_folder

    folder = find_folder(MODEL_ID)
    model = prepare(folder, engine, threads)
    tokenizer = load_tokenizer(MODEL_ID)
    ids = prompt_ids(tokenizer, prompt, chat=True)
    print(f"\n> {prompt}", file=sys.stderr, flush=True)
    print_statistics(stream_answer(model, tokenizer, ids, max_new_tokens, read_eos_ids(folder.source)))


def prepare(folder: ModelFolder, engine: str, threads: int | None) -> CompiledModel:
    """The demo's model, compiled first if it is not, or if another version compiled it; only missing parts are done."""
    from hyperdex_ir.cli.demo_checkpoint import MODEL_ID, find_gguf, missing_files, write_checkpoint
    from hyperdex_ir.errors import FileFormatError, NotCompiledError
    from hyperdex_ir.runtime.model import CompiledModel
    from hyperdex_ir.support.progress import log

    try:
        return CompiledModel.open(folder.root, engine=engine, threads=threads, name=MODEL_ID)
    except (NotCompiledError, FileFormatError):
        pass
    if missing_files(folder.source):
        source = find_gguf()
        log(f"Write the checkpoint of {source.name} to {folder.source}")
        write_checkpoint(source, folder.source)
    from hyperdex_ir.tools import AutoCompiler

    AutoCompiler().compile(model_id=MODEL_ID)
    return CompiledModel.open(folder.root, engine=engine, threads=threads, name=MODEL_ID)
