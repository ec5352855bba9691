"""`hyperdex models`: the models that can be compiled, from the table that the compiler checks a config.json against."""

from __future__ import annotations

import json

from hyperdex_ir.frontend.families import FAMILIES
from hyperdex_ir.frontend.family import Family


def print_models(as_json: bool) -> None:
    """Prints the supported architectures as a Markdown table, or as JSON."""
    rows = [_row(family) for family in FAMILIES.values()]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    titles = list(rows[0])
    print("| " + " | ".join(titles) + " |")
    print("|" + " --- |" * len(titles))
    for row in rows:
        print("| " + " | ".join(row.values()) + " |")


def _row(family: Family) -> dict[str, str]:
    activation = family.activation or next(iter(family.choices.values()))[0]
    grouped = "grouped-query" if "num_key_value_heads" in family.sizes else "multi-head"
    return {
        "architecture": family.architecture,
        "model_type": family.model_type,
        "positions": "rotary" if family.rotary else "ALiBi" if family.slopes else "learned",
        "attention": "multi-query" if family.multi_query else grouped,
        "activation (default)": activation,
        "variants tested": family.variants,
        "checked with": family.checked,
    }
