"""The table from torch operators to their handlers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.fx import Node

from hyperdex_ir.frontend.handlers.builder import Builder, Value

#: Builds the operations of a node and returns its value.
Build = Callable[[Builder, Node], Value]
#: Returns the reason why a call with these arguments cannot be imported, None when it can.
Check = Callable[[Node], str | None]


@dataclass(frozen=True)
class Handler:
    """Handler of one operator. integers: True when the handler itself deals with operands that are not float32."""

    build: Build
    check: Check | None = None
    integers: bool = False


HANDLERS: dict[Any, Handler] = {}


def handles(*targets: Any, check: Check | None = None, integers: bool = False) -> Callable[[Build], Build]:
    """Registers a function as the handler of these operators (OpOverload objects)."""

    def register(build: Build) -> Build:
        for target in targets:
            if target in HANDLERS:
                raise ValueError(f"{target} has two handlers")
            HANDLERS[target] = Handler(build, check, integers)
        return build

    return register
