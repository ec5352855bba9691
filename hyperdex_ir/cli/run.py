"""`hyperdex run`: an answer from a compiled model."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hyperdex_ir.runtime.generate import Generation
    from hyperdex_ir.runtime.model import CompiledModel
    from hyperdex_ir.runtime.tokenizer import Tokenizer

DEFAULT_NEW_TOKENS = 256


def run(
    model: Annotated[str, typer.Argument(help="Hub id or directory of a compiled model.", show_default=False)],
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="The prompt; - reads standard input.")],
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", "--max_new_tokens", min=1, help="Most tokens to generate.")
    ] = DEFAULT_NEW_TOKENS,
    chat: Annotated[bool, typer.Option("--chat", help="Ask through the model's chat template.")] = False,
    num_device: Annotated[int, typer.Option("--num-device", "--num_device", min=1, help="Number of LPUs.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object when done, text and timings.")] = False,
) -> None:
    """Generate text with a compiled model."""
    from hyperdex_ir.runtime.model import CompiledModel, read_eos_ids
    from hyperdex_ir.runtime.places import checkpoint_folders, compiled_folder, load_tokenizer

    folder = compiled_folder(model)
    compiled = CompiledModel.open(folder.root, num_device, name=model)
    tokenizer = load_tokenizer(model)
    ids = prompt_ids(tokenizer, read_prompt() if prompt == "-" else prompt, chat)
    eos_ids = read_eos_ids(*checkpoint_folders(folder))
    if as_json:
        print_json(tokenizer, compiled.generate(ids, max_new_tokens, eos_ids))
        return
    print_statistics(stream_answer(compiled, tokenizer, ids, max_new_tokens, eos_ids))


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


def stream_answer(
    model: CompiledModel, tokenizer: Tokenizer, ids: Sequence[int], max_new_tokens: int, eos_ids: Sequence[int]
) -> Generation:
    """Generates, writing the text to standard output as it comes."""
    from hyperdex_ir.runtime.stream import TextStreamer

    streamer = TextStreamer(tokenizer, skip_special_tokens=True)
    result = model.generate(ids, max_new_tokens, eos_ids, streamer.put)
    streamer.end()
    return result


def print_statistics(result: Generation) -> None:
    """One line on standard error: how much, how fast, and whether the response was cut off."""
    rate = f", {result.tokens_per_second:.2f} tokens/s" if result.tokens_per_second else ""
    cut = "" if result.finish == "eos" else f", stopped at {result.finish}"
    print(
        f"hyperdex: {len(result.tokens)} tokens{rate}, first token after {result.first_token_seconds:.2f} s"
        f" ({result.prompt_tokens} prompt tokens){cut}",
        file=sys.stderr,
    )


def print_json(tokenizer: Tokenizer, result: Generation) -> None:
    """The whole generation as one JSON object on standard output."""
    value = {
        "text": tokenizer.decode(result.tokens, skip_special_tokens=True),
        "tokens": list(result.tokens),
        "finish": result.finish,
        "prompt_tokens": result.prompt_tokens,
        "first_token_seconds": round(result.first_token_seconds, 4),
        "tokens_per_second": round(result.tokens_per_second, 4),
    }
    print(json.dumps(value, ensure_ascii=False))
