"""`hyperdex plan`: support, needs and expected speed of a model, before it is downloaded or compiled."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from hyperdex_ir.cli.inspect import decode_table, lmu_lines, text_table
from hyperdex_ir.cli.options import given_token, with_options
from hyperdex_ir.errors import UnsupportedModelError
from hyperdex_ir.support.locations import find_folder


@with_options(["num_device", "max_length", "type_device", "dtype", "token", "revision", "as_json"], brief=True)
def plan(
    model: Annotated[str, typer.Argument(help="Hub id, or directory with a checkpoint.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    **values: Any,
) -> None:
    """Show what a model needs on device and host, from config.json and the headers of its weights alone."""
    find_folder(model)  # raises before more is imported
    from hyperdex_ir.tools import AutoCompiler

    values["token"] = given_token(values["token"])
    try:
        facts = AutoCompiler().plan(model, **values)
    except UnsupportedModelError as error:
        if as_json:
            print(json.dumps({"supported": False, "reason": str(error)}, indent=1))
        raise
    print(json.dumps(facts, indent=1) if as_json else "\n".join(_screen(facts)))


def _screen(facts: dict[str, Any]) -> list[str]:
    model, device, host = facts["model"], facts["device"], facts["host"]
    fits = "fits" if device["fits"] else "does not fit"
    memory = [
        ["a device", "bytes"],
        ["parameters", f"{device['parameter_bytes']:,}"],
        ["of each channel", f"{device['parameter_bytes_of_a_channel']:,}"],
        [f"KV cache for {model['max_length']:,} positions", f"{device['kv_bytes']:,}"],
        ["of a position", f"{device['kv_bytes_of_a_token']:,}"],
        [f"together, with input and output ({fits})", f"{device['needed_bytes']:,}"],
        [f"HBM of {model['target']}", f"{device['hbm_bytes']:,}"],
    ]
    disk = [
        ["host", "bytes"],
        ["disk: checkpoint", f"{host['checkpoint_bytes']:,}"],
        ["converted checkpoint", f"{host['converted_bytes']:,}"],
        ["parameter images", f"{host['image_bytes']:,}"],
        ["together", f"{host['disk_bytes']:,}"],
        ["memory of the compiler", f"{host['memory_bytes']:,}"],
    ]
    speed = [*lmu_lines(facts["lmu"], model), *decode_table(facts["decode"])[:-1]] if device["fits"] else []
    return [
        f"{model['name']}: {facts['architecture']}, supported",
        f"{model['target']}, {model['devices']} of them, matrices {model['matrix_type']};"
        f" the longest context that fits is {device['longest_context']:,}",
        "",
        *text_table(memory),
        "",
        *text_table(disk),
        "",
        *speed,
    ]
