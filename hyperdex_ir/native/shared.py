"""Fields of `context.Context` and `context.Thread` in compiled code."""

from __future__ import annotations

import ctypes

from hyperdex_ir.native.context import Region
from hyperdex_ir.native.emit import I64, POINTER, Emitter, V


class Shared:
    """A ctypes structure at a pointer: fields by name, nested ones by `structure.field`."""

    def __init__(self, e: Emitter, pointer: V, structure: type[ctypes.Structure]):
        self._e, self.pointer, self._structure = e, pointer, structure

    def at(self, name: str, index: int | V | None = None) -> V:
        """The address of a field; of an element, where the field is an array of i64."""
        place = self._e.offset(self.pointer, offset_of(self._structure, name))
        return place if index is None else self._e.element(place, index, I64)

    def load(self, name: str, index: int | V | None = None) -> V:
        """The i64 in a field."""
        return self._e.load(self.at(name, index), I64)

    def load_pointer(self, name: str) -> V:
        return self._e.load(self.at(name), POINTER)

    def store(self, name: str, value: int | V, index: int | V | None = None) -> None:
        self._e.store(self._e.i64(value), self.at(name, index))

    def add(self, name: str, value: int | V) -> None:
        """field += value."""
        self.store(name, self._e.add(self.load(name), value))


def offset_of(structure: type[ctypes.Structure], name: str) -> int:
    """Bytes from the structure's start to a field; `parameters.stride` is a Region's."""
    outer, _, inner = name.partition(".")
    offset = getattr(structure, outer).offset
    return offset + (getattr(Region, inner).offset if inner else 0)
