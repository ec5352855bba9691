"""`hyperdex check`: compares the files of a compiled model with those that the compiler wrote."""

from __future__ import annotations

import json
import shlex
from typing import Annotated

import typer

from hyperdex_ir.errors import FileFormatError, printable


def check(
    model: Annotated[str, typer.Argument(help="Hub id or directory of a compiled model.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Read every file of a compiled model and compare it with its hash; exit code 1 when one differs."""
    from hyperdex_ir.backend.check import check_file, listed_files
    from hyperdex_ir.runtime.model_folders import compiled_folder
    from hyperdex_ir.support.progress import byte_progress

    folder = compiled_folder(model)
    listed = listed_files(folder.manifest)
    total = sum(one.size for one in listed)
    with byte_progress("check", total) as advance:
        faults = {one.name: fault for one in listed if (fault := check_file(folder.root, one, advance))}
    facts = {"folder": str(folder.root), "files": len(listed), "bytes": total, "faults": faults}
    lines = [
        *(printable(f"{name}: {fault}") for name, fault in faults.items()),
        f"{len(listed)} files, {total:,} bytes",
    ]
    print(json.dumps(facts, indent=1) if as_json else "\n".join(lines))
    if faults:
        name, fault = next(iter(faults.items()))
        more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise FileFormatError(f"{folder.root / name}: {fault}{more}", f"hyperdex compile {shlex.quote(model)} --force")
