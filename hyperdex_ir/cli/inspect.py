"""`hyperdex inspect`: a compiled model on one screen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

_REGIONS = {
    "embedding": "embedding",
    "matrix": "matrices",
    "table": "tables (positions)",
    "vector": "vectors (norms, biases)",
    "kv_cache": "KV cache",
    "input_output": "input and output",
}


def inspect(
    model: Annotated[str, typer.Argument(help="Hub id or directory of a compiled model.", show_default=False)],
    num_device: Annotated[int, typer.Option("--num-device", "--num_device", min=1, help="Number of LPUs.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a compiled model is made of, and estimate how fast it runs."""
    from hyperdex_ir.runtime.inspect import inspect_model
    from hyperdex_ir.runtime.model_folders import compiled_folder

    facts = inspect_model(compiled_folder(model).root, num_device, model)
    print(json.dumps(facts, indent=1) if as_json else "\n".join(_screen(facts)))


def _screen(facts: dict[str, Any]) -> list[str]:
    parts = (
        _title(facts["model"]),
        _functions(facts["functions"]),
        _memory(facts["memory"]),
        _division(facts["division"]) if "division" in facts else [],
        lmu_lines(facts["lmu"], facts["model"]),
        decode_table(facts["decode"]),
        _links(facts["decode"]) if "division" in facts else [],
    )
    return [line for part in parts for line in part][:-1]


def _title(model: dict[str, Any]) -> list[str]:
    devices = f"{model['devices']} device{'' if model['devices'] == 1 else 's'}"
    return [
        f"{model['name']}: {model['target']}, {devices}, matrices {model['matrix_type']}, {model['instructions']}"
        " instructions",
        f"at most {model['max_length']:,} positions, {model['chunk']} tokens in flight (chunk), {model['head_rows']}"
        " rows of logits (head_rows)",
        "",
    ]


def _functions(functions: Sequence[dict[str, Any]]) -> list[str]:
    engines = list(functions[0]["engines"])
    table = [["function", "runs", "words", *engines]]
    for item in functions:
        table.append([item["name"], item["runs"], item["instructions"], *item["engines"].values()])
    return [*text_table(table), ""]


def _memory(memory: dict[str, Any]) -> list[str]:
    table = [["HBM", "bytes", f"of each of {memory['channels']} channels", "share"]]
    for name, size in memory["regions"].items():
        share = f"{size / memory['capacity']:.1%}"
        table.append([_REGIONS[name], f"{size:,}", f"{memory['per_channel'][name]:,}", share])
    used, capacity = memory["used"], memory["capacity"]
    table.append(["together", f"{used:,}", f"{used // memory['channels']:,}", f"{used / capacity:.1%}"])
    return [*text_table(table), ""]


def _division(division: dict[str, int]) -> list[str]:
    """The lines on a device's share of the parameters: 1/n of them, replication, padding."""
    n, total = division["devices"], division["total"]
    rows = [
        (f"1/{n} of {total:,}", total),
        ("replication: whole on each", division["whole"]),
        ("replication: KV heads of several", division["shared"]),
        ("replication: tied, in two forms", division["twice"]),
        ("padding: behind a device's part", division["parts"]),
        ("padding: to whole tiles", division["tiles"]),
    ]
    table = [["parameters of a device", "bytes", "of all"]]
    table += [[name, f"{round(size / n):,}", f"{size / n / total:.2%}"] for name, size in rows]
    table.append(["together", f"{division['device']:,}", f"{division['device'] / total:.2%}"])
    return [*text_table(table), ""]


def _links(decode: Sequence[dict[str, Any]]) -> list[str]:
    table = [["links, a token: context", "bytes sent", "ESL busy", "cycles", "without overlap"]]
    for row in decode:
        numbers = [f"{row[key]:,}" for key in ("context", "link_bytes", "cycles", "cycles_without_overlap")]
        table.append([numbers[0], numbers[1], f"{row['busy'].get('ESL', 0):.1%}", *numbers[2:]])
    return [*text_table(table), ""]


def lmu_lines(lmu: dict[str, Any], model: dict[str, Any]) -> list[str]:
    from hyperdex_ir.performance.inspection import bar

    peak, capacity = lmu["peak"], lmu["capacity"]
    path = f" of {peak['path']}" if peak["path"] else ""
    width = max(len(part["name"]) for part in lmu["functions"])
    return [
        f"LMU: {capacity:,} words, {lmu['allocated']:,} allocated; with {model['chunk']} tokens most are in use,"
        f" {peak['words']:,},",
        f"in @{peak['function']} by {peak['instruction']}{path}; over each function, of all words:",
        *(f"{part['name']:{width}}  |{bar(part['used'], capacity)}|" for part in lmu["functions"]),
        "",
    ]


def decode_table(decode: Sequence[dict[str, Any]]) -> list[str]:
    engines = ["SMA", "SXE", "VXE"]
    table = [["decode, estimated: context", "cycles", "tokens/s", "weights", "KV", *(f"{e} busy" for e in engines)]]
    for row in decode:
        shares = (row["weight_share"], row["kv_share"], *(row["busy"][engine] for engine in engines))
        numbers = [f"{row['context']:,}", f"{row['cycles']:,}", f"{row['tokens_per_second']:,.1f}"]
        table.append([*numbers, *(f"{share:.1%}" for share in shares)])
    return [*text_table(table), "weights, KV: share of the HBM's bandwidth that streams them", ""]


def text_table(rows: Sequence[Sequence[Any]]) -> list[str]:
    """Columns side by side, the first to the left, the others to the right."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return [
        "  ".join(
            f"{cell:<{width}}" if not n else f"{cell:>{width}}"
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in texts
    ]
