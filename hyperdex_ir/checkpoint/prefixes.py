"""Names of tensors that were saved from inside a wrapper: `_orig_mod.`, `module.`, `base_model.model.` and the like."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

#: Modules that torch puts around others, anywhere in a model: `torch.compile`, FSDP, activation checkpointing.
AROUND = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def unwrapped(names: Iterable[str]) -> dict[str, str]:
    """Each name -> the name without the modules that torch puts around others."""
    return {name: ".".join(part for part in name.split(".") if part not in AROUND) for name in names}


def candidates(names: Iterable[str], is_known: Callable[[str], bool]) -> list[str]:
    """Prefixes, dots included, without which some of the names are known; the shortest first.

    Only names without numbers are looked at: a token embedding has one, whatever the number of layers.
    """
    found: dict[str, None] = {}
    for name in sorted(names):
        parts = name.split(".")
        if any(part.isdecimal() for part in parts):
            continue
        for count in range(1, len(parts)):
            if is_known(".".join(parts[count:])):
                found[".".join(parts[:count]) + "."] = None
    return sorted(found, key=len)


def stripped(read: Mapping[str, str], prefix: str) -> dict[str, str]:
    """Each name -> the name that it is read by, without a prefix; a name that is there without it keeps its own."""
    own = set(read.values())
    short = {name: known.removeprefix(prefix) for name, known in read.items()}
    return {name: known if short[name] != known and short[name] in own else short[name] for name, known in read.items()}
