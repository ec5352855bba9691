"""A machine's table of instructions: the handler of each, registered where it is defined."""

from __future__ import annotations

from typing import TypeVar

from hyperdex_ir.isa.instructions import BY_NAME

T = TypeVar("T")


class Handlers(dict[str, T]):
    """Handlers of a machine, by instruction name. kind: the name of a handler in errors."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def add(self, name: str, handler: T) -> None:
        """Registers a handler. Raises ValueError when there is one of that name."""
        if name in self:
            raise ValueError(f"a second {self.kind} for {name}")
        self[name] = handler

    def check(self) -> None:
        """Raises ValueError, with the names, unless each instruction has a handler and each handler has an instruction.

        Instructions may be added at any time: machines check this when they are made, too.
        """
        missing = [name for name in BY_NAME if name not in self]
        surplus = [name for name in self if name not in BY_NAME]
        if missing:
            raise ValueError(f"no {self.kind} for {', '.join(missing)}")
        if surplus:
            raise ValueError(f"a {self.kind} for {', '.join(surplus)}: not in the instruction table")
