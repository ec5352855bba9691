"""`hyperdex status` and `hyperdex clean`: the contents of models' folders, and the removal of unused files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from hyperdex_ir.cli.output import print_error
from hyperdex_ir.errors import HyperdexError, printable
from hyperdex_ir.support.files import storage_errors
from hyperdex_ir.support.locations import CONFIG, ModelFolder, hub_root, user_path
from hyperdex_ir.support.progress import log

T = TypeVar("T")
Model = Annotated[str | None, typer.Argument(help="Hub id or directory; by default all models.", show_default=False)]


def status(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...",
            help="Hub ids, directories, or directories of models; by default all.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what has been downloaded and compiled, and how much room it takes."""
    from hyperdex_ir.backend.status import status as facts_of

    folders = [folder for model in models for folder in _folders_of(model)] if models else _folders(None)
    facts, failed = _each(folders, facts_of)
    lines = [json.dumps(facts, indent=1)] if as_json else [line for one in facts for line in _lines(one)]
    for line in lines:
        print(printable(line) if not as_json else line)
    if failed:
        raise typer.Exit(1)


def clean(
    model: Model = None,
    compiled: Annotated[
        bool, typer.Option("--compiled", help="Also what is compiled; checkpoints stay, another compile is needed.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", "--dry_run", help="Only list the files.")] = False,
) -> None:
    """Remove what no compile uses: unfinished and stale files. Prints their names."""
    from hyperdex_ir.backend.clean import clean_folder

    def clean_one(folder: ModelFolder) -> None:
        for path, size in clean_folder(folder, compiled=compiled, dry_run=dry_run):
            print(f"{printable(str(path))}  {_size(size)}")

    _, failed = _each([folder for folder in _folders(model) if model is not None or _is_in_hub(folder.root)], clean_one)
    if failed:
        raise typer.Exit(1)


def _each(folders: list[ModelFolder], action: Callable[[ModelFolder], T]) -> tuple[list[T], bool]:
    """The results of an action on all folders, and whether it failed on one. A failure is printed; the rest is done."""
    results, failed = [], False
    for folder in folders:
        try:
            with storage_errors(folder.root):
                results.append(action(folder))
        except HyperdexError as error:
            print_error(error.code, str(error), error.hint, error.notes)
            failed = True
    return results, failed


def _folders(model: str | None) -> list[ModelFolder]:
    """The folder of a model, or the folders of all models under the hub root."""
    from hyperdex_ir.runtime.model_folders import compiled_folder

    if model is not None:
        return [compiled_folder(model)]
    roots = sorted(
        {path.parent for path in hub_root().glob("*/*/ckpt")} | {p.parent for p in hub_root().glob("*/ckpt")}
    )
    return [ModelFolder(root, root / "ckpt", None, made_by_tool=True) for root in roots]


def _folders_of(model: str) -> list[ModelFolder]:
    """The folder of a model, or of the models in the folders of a directory that is none itself."""
    place = user_path(model)
    inner = sorted(path.parent for name in ("manifest.json", CONFIG) for path in place.glob(f"*/{name}"))
    inner += sorted(path.parents[1] for path in place.glob(f"*/ckpt/{CONFIG}"))
    own = any((place / name).is_file() for name in ("manifest.json", CONFIG, f"ckpt/{CONFIG}"))
    if own or not inner:
        return _folders(model)
    return [folder for path in dict.fromkeys(inner) for folder in _folders(str(path))]


def _is_in_hub(root: Path) -> bool:
    """Test that a model's folder under the hub root lies there itself; logs a line if a link leads elsewhere."""
    hub, place = hub_root(), root.resolve()
    if place == hub.resolve() / root.relative_to(hub):
        return True
    log(f"{root}: leads to {place}: left alone; name it to clean it")
    return False


def _lines(facts: dict[str, Any]) -> list[str]:
    checkpoint = facts["checkpoint"]
    lines = [
        facts["folder"],
        f"  checkpoint  {_files(checkpoint)} in {Path(checkpoint['folder']).name}/",
        f"  converted   {_size(facts['converted_bytes'])}",
    ]
    for count, entry in facts["devices"].items():
        options = entry["options"]
        what = f"{entry['target']}, {options.get('matrix_type')}, {options.get('max_length')} positions"
        devices = f"{count} device{'s' * (count != '1')}"
        lines.append(f"  {devices:<11} {what}: {_files(entry)}")
    if "fault" in facts:
        lines.append(f"  {facts['fault']}")
    if facts["stale"]["files"]:
        lines.append(f"  stale       {_files(facts['stale'])}, which hyperdex clean removes")
    return lines


def _files(facts: dict[str, Any]) -> str:
    return f"{facts['files']} file{'s' * (facts['files'] != 1)}, {_size(facts['bytes'])}"


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"
