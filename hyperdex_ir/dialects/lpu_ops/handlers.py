"""Handlers of one compiler stage for the operations of the `lpu` dialect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from xdsl.ir import Operation

from hyperdex_ir.dialects.lpu_ops.base import OPERATIONS

H = TypeVar("H")


class Handlers(Generic[H]):
    """Handlers by class of operation; the handler of a base class serves all subclasses that have none."""

    def __init__(self) -> None:
        self._handlers: dict[type[Operation], H] = {}

    def register(self, *classes: type[Operation]) -> Callable[[H], H]:
        """Makes a function the handler of these classes."""

        def add(handler: H) -> H:
            self._handlers.update(dict.fromkeys(classes, handler))
            return handler

        return add

    def get(self, op: type[Operation]) -> H | None:
        """The handler of a class of operations."""
        return next((self._handlers[base] for base in op.__mro__ if base in self._handlers), None)

    def check_complete(self, *without: type[Operation]) -> None:
        """Raises TypeError, at import, unless all operations of the dialect but these have a handler."""
        for op in OPERATIONS:
            if (self.get(op) is None) != (op in without):
                raise TypeError(f"{op.name}: has {'no' if self.get(op) is None else 'a surplus'} handler")
