"""`hyperdex diff`: the first place where a compiled model differs from transformers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyperdex_ir.cli.output import json_line
from hyperdex_ir.isa.formats import FORMATS

if TYPE_CHECKING:
    from hyperdex_ir.verify.against import Comparison, Comparisons


def diff(
    model: Annotated[str, typer.Argument(help="Hub id or directory of a compiled model.", show_default=False)],
    against: Annotated[str, typer.Option("--against", help="What to compare with: hf, for transformers.")] = "hf",
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="The text to run.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Put it into the model's chat template.")] = False,
    tokens: Annotated[str | None, typer.Option("--tokens", help="Token ids to run: 1,2,3.")] = None,
    every_module: Annotated[
        bool, typer.Option("--all", help="Print every value that was compared, not the last of each layer.")
    ] = False,
    num_device: Annotated[int, typer.Option("--num-device", "--num_device", min=1, help="Number of LPUs.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Find the first module whose values are further from transformers' than rounding explains."""
    from hyperdex_ir.errors import OptionError
    from hyperdex_ir.verify.against import compare_with_transformers

    if against != "hf":
        raise OptionError(f"--against {against}: unknown", "hf is what there is")
    ids = _token_ids(model, prompt, chat, tokens)
    found = compare_with_transformers(model, ids, num_device)
    if as_json:
        print(json_line(_json(found, model, ids)))
    else:
        _print_table(found, every_module)
    raise typer.Exit(0 if found.first_off is None else 1)


def _token_ids(model: str, prompt: str | None, chat: bool, tokens: str | None) -> list[int]:
    from hyperdex_ir.cli.generate import prompt_ids
    from hyperdex_ir.cli.verify import parse_tokens
    from hyperdex_ir.errors import OptionError
    from hyperdex_ir.runtime.model_folders import load_tokenizer

    if (prompt is None) == (tokens is None):
        raise OptionError("give the text to run with --prompt, or token ids with --tokens")
    if tokens is not None:
        return parse_tokens(tokens)
    return prompt_ids(load_tokenizer(model), prompt or "", chat)


def _print_table(found: Comparisons, every_module: bool) -> None:
    first = found.first_off
    shown = list(found.values) if every_module else found.by_layer()
    width = max((len(value.path) for value in shown), default=6)
    kind = FORMATS[found.matrix_type].torch
    print(f"{'layer':5}  {'module':{width}}  {'rms':>9}  {'our error':>9}  {kind:>9}  {'ratio':>7}")
    for value in shown:
        mark = "  <" if value.is_off else ""
        numbers = f"{value.rms:9.3g}  {value.ours:9.2e}  {value.theirs:9.2e}  {value.ratio:7.2f}"
        print(f"{value.layer:5}  {value.path:{width}}  {numbers}{mark}")
    print()
    if first is None:
        print(f"{len(found.values)} values compared: none is off")
        return
    print(f"first module that is off: {first.path}, {first.what}")
    print(f"  rms error {first.ours:.2e}, transformers in {kind} {first.theirs:.2e}, ratio {first.ratio:.2f}")


def _json(found: Comparisons, model: str, ids: list[int]) -> dict[str, Any]:
    first = found.first_off
    return {
        "model": model,
        "tokens": ids,
        "matrix_type": found.matrix_type,
        "first_off": None if first is None else _value_json(first),
        "values": [_value_json(value) for value in found.values],
    }


def _value_json(value: Comparison) -> dict[str, Any]:
    return {
        "module": value.path,
        "what": value.what,
        "rms": _finite(value.rms),
        "error": _finite(value.ours),
        "transformers_error": _finite(value.theirs),
        "ratio": _finite(value.ratio),
        "off": value.is_off,
    }


def _finite(number: float) -> float | None:
    """A number for JSON; None for NaN and infinity, which JSON does not have."""
    return number if math.isfinite(number) else None
