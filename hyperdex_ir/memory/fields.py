"""Typed access to the values of a JSON object, whose file may hold anything."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hyperdex_ir.targets import MOST, Range


class Fields:
    """An object of a JSON file; error messages call it `name`.

    Reading a value raises KeyError when the key is absent, TypeError when the value is of another type.
    """

    def __init__(self, value: Any, name: str):
        if not isinstance(value, Mapping):
            raise TypeError(f"{name} is {shown(value)}, expected an object")
        self._values: Mapping[str, Any] = value
        self._name = name

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def names(self) -> tuple[str, ...]:
        """The keys."""
        for name in self._values:
            if not name.isprintable():
                raise TypeError(f"{self._name} has the key {shown(name)}, expected text")
        return tuple(self._values)

    def value(self, key: str) -> Any:
        """The value of any type; None also when the key is absent."""
        return self._values.get(key)

    def whole(self, key: str, low: int = 0, high: int = MOST) -> int:
        """A whole number in low..high."""
        return self._whole(key, self._values[key], low, high)

    def text(self, key: str, choices: tuple[str, ...] = ()) -> str:
        """A text; one of `choices`, if any are given."""
        value = self._values[key]
        if not isinstance(value, str) or not value.isprintable() or (choices and value not in choices):
            raise self._wrong(key, value, f"one of {', '.join(choices)}" if choices else "text")
        return value

    def object(self, key: str) -> Fields:
        """An object."""
        return Fields(self._values[key], self._part(key))

    def objects(self, key: str) -> list[Fields]:
        """The objects of a list."""
        return [Fields(item, f"{self._part(key)}[{number}]") for number, item in enumerate(self._list(key))]

    def named(self, key: str) -> dict[str, Fields]:
        """The objects of an object."""
        values = self.object(key)
        return {name: values.object(name) for name in values.names()}

    def wholes(self, key: str, high: int = MOST) -> tuple[int, ...]:
        """A list of whole numbers from 0 to `high`."""
        return tuple(self._whole(key, item, 0, high) for item in self._list(key))

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of finite numbers."""
        values = self._list(key)
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int | float) or not -math.inf < value < math.inf:
                raise self._wrong(key, value, "a number")
        return tuple(values)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        values = self._list(key)
        for value in values:
            if not isinstance(value, str):
                raise self._wrong(key, value, "text")
        return tuple(values)

    def offsets(self, key: str) -> dict[str, int]:
        """An object of whole numbers from 0 on."""
        values = self.object(key)
        return {name: values.whole(name) for name in values.names()}

    def _list(self, key: str) -> Sequence[Any]:
        value = self._values[key]
        if not isinstance(value, list | tuple):
            raise self._wrong(key, value, "a list")
        return value

    def _whole(self, key: str, value: Any, low: int, high: int) -> int:
        if value not in (expected := Range(low, high)):
            raise self._wrong(key, value, str(expected))
        return value

    def _part(self, key: str) -> str:
        return f"{self._name}.{key}" if self._name else key

    def _wrong(self, key: str, value: Any, expected: str) -> TypeError:
        return TypeError(f"{self._part(key)} is {shown(value)}, expected {expected}")


def shown(value: Any) -> str:
    """A value for an error message, shortened."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
