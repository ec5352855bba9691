"""The table from torch operators to what imports them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.fx import Node

from hyperdex_ir.frontend.handlers.builder import Builder, Value

#: Builds the operations for a node and gives its value.
Build = Callable[[Builder, Node], Value]
#: Says why a call of the operator with these arguments cannot be imported, or None when it can.
Check = Callable[[Node], str | None]


@dataclass(frozen=True)
class Handler:
    """How one operator is imported. integers: whether operands of other types than float32 are its own business."""

    build: Build
    check: Check | None = None
    integers: bool = False


HANDLERS: dict[Any, Handler] = {}


def handles(*targets: Any, check: Check | None = None, integers: bool = False) -> Callable[[Build], Build]:
    """Registers a function as what imports these operators (OpOverload objects)."""

    def register(build: Build) -> Build:
        for target in targets:
            if target in HANDLERS:
                raise ValueError(f"{target} has two handlers")
            HANDLERS[target] = Handler(build, check, integers)
        return build

    return register
