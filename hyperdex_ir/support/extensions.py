"""Extensions by installed packages, found as entry points. Nothing of theirs is imported before it is asked for.

| group | an entry names |
| --- | --- |
| `hyperdex_ir.passes` | a subclass of xDSL's ModulePass, under its pass name |
| `hyperdex_ir.dialects` | an xDSL Dialect, under its name |
| `hyperdex_ir.fusion_patterns` | a subclass of xDSL's RewritePattern, for the pass lpu-apply-patterns |
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from hyperdex_ir.errors import ExtensionError

PASSES = "hyperdex_ir.passes"
DIALECTS = "hyperdex_ir.dialects"
FUSION_PATTERNS = "hyperdex_ir.fusion_patterns"


def find_extensions(group: str, taken: tuple[str, ...] = ()) -> dict[str, Callable[[], Any]]:
    """The entries of a group by name, in order of names, each as a function that imports the named object.

    Raises ExtensionError when two packages use one name, or one uses a name that is `taken`.
    """
    found: dict[str, EntryPoint] = {}
    for entry in sorted(dict.fromkeys(entry_points(group=group)), key=lambda e: (e.name, e.value)):
        if entry.name in taken or entry.name in found:
            other = found[entry.name].value if entry.name in found else "hyperdex_ir"
            raise ExtensionError(
                f"entry point {entry.name} of {group}: {entry.value} and {other} both use this name",
                f"uninstall one of the packages ({_package(entry)})",
            )
        found[entry.name] = entry
    return {name: _loader(group, entry) for name, entry in found.items()}


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.module


def _loader(group: str, entry: EntryPoint) -> Callable[[], Any]:
    def load() -> Any:
        try:
            return entry.load()
        except Exception as error:  # the package may do anything when it is imported
            raise ExtensionError(
                f"entry point {entry.name} of {group}: {entry.value} cannot be imported:"
                f" {type(error).__name__}: {error}",
                f"install the package {_package(entry)} again, or uninstall it",
            ) from error

    return load
