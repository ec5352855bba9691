"""`hyperdex verify`: checks that every pass keeps the logits of a model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyperdex_ir.cli.options import AllowPass
from hyperdex_ir.cli.output import json_line

if TYPE_CHECKING:
    from hyperdex_ir.verify.model import Model
    from hyperdex_ir.verify.passes import Result
    from hyperdex_ir.verify.values import Value

_HEADER = f"{'pass':28} {'declares':9} {'logits':16} {'pass ms':>9} {'run ms':>9}"


def verify(
    model: Annotated[str, typer.Argument(help="Hub id or directory of a model.", show_default=False)],
    each_pass: Annotated[
        bool, typer.Option("--each-pass", "--each_pass", help="Compare before and after each pass, not the ends only.")
    ] = False,
    pipeline: Annotated[
        str | None,
        typer.Option("--pipeline", help="Passes: a name, a .pipeline file, or text. Default: the compiled model's."),
    ] = None,
    allow_pass: AllowPass = None,
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="Run this text.")] = None,
    tokens: Annotated[str | None, typer.Option("--tokens", help="Run these token ids: 1,2,3.")] = None,
    num_tokens: Annotated[
        int, typer.Option("--num-tokens", "--num_tokens", min=1, help="Else, how many random tokens to run.")
    ] = 6,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the random tokens.")] = 0,
    num_device: Annotated[int, typer.Option("--num-device", "--num_device", help="Number of LPUs.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object when done.")] = False,
) -> None:
    """Check that every pass keeps the logits of a model, bit for bit."""
    from hyperdex_ir.errors import PassError
    from hyperdex_ir.verify.model import open_model
    from hyperdex_ir.verify.passes import Verifier, random_tokens

    opened = open_model(model, num_device, pipeline, allow_pass or ())
    ids = chosen_tokens(opened, prompt, tokens)
    ids = random_tokens(opened, num_tokens, seed) if ids is None else ids
    if not as_json:
        print(_HEADER)
    verifier = Verifier(opened, ids, (lambda result: None) if as_json else print_result)
    results = verifier.each_pass(opened.passes) if each_pass else verifier.whole(opened.passes)
    passed = all(result.passed for result in results)
    if as_json:
        value = {"model": model, "tokens": ids, "passed": passed, "passes": [result_json(r) for r in results]}
        print(json_line(value))
    for result in results:
        if result.error:
            raise PassError(f"{model}: {result.name} failed: {result.error}")
    raise typer.Exit(0 if passed else 1)


def chosen_tokens(model: Model, prompt: str | None, tokens: str | None) -> list[int] | None:
    """The token ids that --prompt or --tokens names; None when neither does. Raises OptionError, PromptError."""
    from hyperdex_ir.cli.generate import prompt_ids
    from hyperdex_ir.errors import OptionError
    from hyperdex_ir.runtime.model_folders import load_tokenizer

    if prompt is not None and tokens is not None:
        raise OptionError("--prompt and --tokens exclude each other")
    if prompt is not None:
        return prompt_ids(load_tokenizer(model.name), prompt, chat=False)
    return None if tokens is None else parse_tokens(tokens)


def parse_tokens(text: str) -> list[int]:
    """The token ids in `1,2,3`. Raises OptionError."""
    from hyperdex_ir.errors import OptionError

    try:
        return [int(token) for token in text.split(",")]
    except ValueError:
        raise OptionError(f"--tokens {text!r}: not token ids", "write them like 1,2,3") from None


def print_result(result: Result) -> None:
    """Prints one line of the table, and the differences below it."""
    if result.error:
        found = "FAILED"
    elif result.equal:
        found = "equal"
    else:
        found = f"rms {result.rms:.1e}" if result.passed else "DIFFERENT"
    times = f"{result.pass_milliseconds:9.1f} {result.run_milliseconds:9.1f}"
    print(f"{result.name:28} {result.exactness:9} {found:16} {times}", flush=True)
    if result.passed:
        return
    if result.error:
        print(f"  {result.error}")
    if result.difference is not None:
        print(f"  first value that was not computed before: {_describe(result.difference.after)}")
        print(f"  first value that is no longer computed:   {_describe(result.difference.before)}")


def _describe(value: Value | None) -> str:
    if value is None:
        return "none"
    return value.operation + (f" of {value.path}" if value.path else "")


def result_json(result: Result) -> dict[str, Any]:
    """A result as JSON values."""
    return {
        "pass": result.name,
        "exactness": result.exactness,
        "passed": result.passed,
        "equal": result.equal,
        "error": result.error or None,
        "relative_rms": result.rms if math.isfinite(result.rms) else None,
        "pass_milliseconds": round(result.pass_milliseconds, 3),
        "run_milliseconds": round(result.run_milliseconds, 3),
        "first_new": None if result.difference is None else _value_json(result.difference.after),
        "first_lost": None if result.difference is None else _value_json(result.difference.before),
    }


def _value_json(value: Value | None) -> dict[str, str] | None:
    return None if value is None else {"op": value.operation, "path": value.path}
