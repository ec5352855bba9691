"""`hyperdex run`: an answer from a compiled model. Of several processes (`run.py`), that of rank 0 prints it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from hyperdex_ir.cli.output import json_line
from hyperdex_ir.runtime.launch import PEER_SECONDS, current_launch

if TYPE_CHECKING:
    from hyperdex_ir.runtime.generate import Generation
    from hyperdex_ir.runtime.model import CompiledModel
    from hyperdex_ir.runtime.sampling import Sampling
    from hyperdex_ir.runtime.tokenizer import Tokenizer

DEFAULT_NEW_TOKENS = 256

ExecutorOption = Annotated[
    str, typer.Option("--engine", help="native: machine code for this computer; interpreter: the reference.")
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads", min=1, help="Threads of the native executor. Default: all cores, under torchrun a share."
    ),
]


def run(
    model: Annotated[str, typer.Argument(help="Hub id or directory of a compiled model.", show_default=False)],
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="The prompt; - reads standard input.")],
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", "--max_new_tokens", min=1, help="Most tokens to generate.")
    ] = DEFAULT_NEW_TOKENS,
    chat: Annotated[bool, typer.Option("--chat", help="Ask through the model's chat template.")] = False,
    num_device: Annotated[
        int | None,
        typer.Option(
            "--num-device", "--num_device", min=1, help="Number of LPUs. Default: 1, or that of torchrun's processes."
        ),
    ] = None,
    peer_timeout: Annotated[
        float,
        typer.Option(
            "--peer-timeout",
            "--peer_timeout",
            min=0.5,
            help="Under torchrun: seconds without a sign of life after which a process counts as lost.",
        ),
    ] = PEER_SECONDS,
    temperature: Annotated[float | None, typer.Option(help="Sample; divides the logits.")] = None,
    top_k: Annotated[
        int | None, typer.Option("--top-k", "--top_k", help="Sample among that many tokens; 0: all.")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option("--top-p", "--top_p", help="Sample among the likeliest of this probability together."),
    ] = None,
    repetition_penalty: Annotated[
        float | None,
        typer.Option("--repetition-penalty", "--repetition_penalty", help="Above 1: makes repeating less likely."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Sample; the same seed gives the same text.")] = None,
    show_special: Annotated[
        bool, typer.Option("--show-special", "--show_special", help="Print special tokens of the answer, too.")
    ] = False,
    engine: ExecutorOption = "native",
    threads: ThreadsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object when done, text and timings.")] = False,
) -> None:
    """Generate text with a compiled model: greedily, unless an option asks for sampling."""
    from hyperdex_ir.runtime.model import CompiledModel, read_eos_ids, read_generation_config
    from hyperdex_ir.runtime.model_folders import checkpoint_folders, compiled_folder, load_tokenizer
    from hyperdex_ir.runtime.sampling import resolve_sampling

    folder = compiled_folder(model)
    given = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    sample = seed is not None or any(value is not None for value in given.values())
    config = read_generation_config(*checkpoint_folders(folder)) if sample else {}
    sampling = resolve_sampling(config, sample, seed, repetition_penalty=repetition_penalty, **given)
    compiled = CompiledModel.open(
        folder.root, num_device, engine, threads=threads, name=model, peer_timeout=peer_timeout
    )
    tokenizer = load_tokenizer(model)
    ids = prompt_ids(tokenizer, read_prompt() if prompt == "-" else prompt, chat)
    check_ids(tokenizer, ids, compiled.vocab_size)
    eos_ids = read_eos_ids(*checkpoint_folders(folder))
    if not is_first():
        compiled.generate(ids, max_new_tokens, eos_ids, sampling=sampling)
        return
    if as_json:
        print_json(tokenizer, compiled.generate(ids, max_new_tokens, eos_ids, sampling=sampling), show_special)
        return
    print_statistics(stream_answer(compiled, tokenizer, ids, max_new_tokens, eos_ids, sampling, show_special))


def is_first() -> bool:
    """Test for the process that prints: the only one, or that of rank 0."""
    launch = current_launch()
    return launch is None or launch.rank == 0


def read_prompt() -> str:
    """The text on standard input, without its last line end. Raises PromptError when it is not UTF-8."""
    from hyperdex_ir.errors import PromptError

    try:
        return sys.stdin.buffer.read().decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise PromptError(f"standard input is not UTF-8 text (byte {error.start})", "give UTF-8 text") from None


def prompt_ids(tokenizer: Tokenizer, prompt: str, chat: bool) -> list[int]:
    """Token ids of a prompt, as it is or as a user's message in the chat template. Raises PromptError when empty."""
    from hyperdex_ir.errors import PromptError

    if not prompt:
        raise PromptError("the prompt is empty", "give some text with --prompt")
    if not chat:
        return tokenizer.encode(prompt)
    text = tokenizer.render_chat([{"role": "user", "content": prompt}], add_generation_prompt=True)
    return tokenizer.encode(text, add_special_tokens=False)


def check_ids(tokenizer: Tokenizer, ids: Sequence[int], vocab_size: int) -> None:
    """Raises PromptError for a token that the model has no row for, with its text."""
    from hyperdex_ir.errors import PromptError

    for token in ids:
        if token >= vocab_size:
            raise PromptError(
                f"token id {token}, {tokenizer.decode([token])!r}, is outside the vocabulary of {vocab_size}",
                "leave it out of the prompt: the tokenizer has more tokens than the model",
            )


def stream_answer(
    model: CompiledModel,
    tokenizer: Tokenizer,
    ids: Sequence[int],
    max_new_tokens: int,
    eos_ids: Sequence[int],
    sampling: Sampling | None = None,
    show_special: bool = False,
) -> Generation:
    """Generates, and writes the text to standard output as it comes."""
    from hyperdex_ir.runtime.stream import TextStreamer

    streamer = TextStreamer(tokenizer, skip_special_tokens=not show_special)
    result = model.generate(ids, max_new_tokens, eos_ids, streamer.put, sampling)
    streamer.end()
    return result


def print_statistics(result: Generation) -> None:
    """One line on standard error: how much, how fast, and whether the response was cut off."""
    rate = f", {result.tokens_per_second:.2f} tokens/s" if result.tokens_per_second else ""
    seed = "" if result.seed is None else f", seed {result.seed}"
    cut = "" if result.finish == "eos" else f", stopped at {result.finish}"
    print(
        f"hyperdex: {len(result.tokens)} tokens{rate}, first token after {result.first_token_seconds:.2f} s"
        f" ({result.prompt_tokens} prompt tokens){seed}{cut}",
        file=sys.stderr,
    )


def print_json(tokenizer: Tokenizer, result: Generation, show_special: bool) -> None:
    """The whole generation as one JSON object on standard output."""
    value = {
        "text": tokenizer.decode(result.tokens, skip_special_tokens=not show_special),
        "tokens": list(result.tokens),
        "finish": result.finish,
        "prompt_tokens": result.prompt_tokens,
        "seed": result.seed,
        "first_token_seconds": round(result.first_token_seconds, 4),
        "tokens_per_second": round(result.tokens_per_second, 4),
    }
    print(json_line(value))
