"""Conversations as plain values, in the form in which transformers shows them to a template.

Messages may be mappings, dataclasses or pydantic objects. A template sees text, numbers, lists, tuples and mappings;
an image, an array or any other object becomes the text `<its type>`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hyperdex_ir.errors import OptionError

#: Keys under which a message's reasoning comes; the first is the one that templates read.
REASONING = ("reasoning_content", "thinking", "reasoning")


def plain(value: Any) -> Any:
    """The value, made of plain types only. Raises OptionError when it holds itself."""
    try:
        return _plain(value)
    except RecursionError:
        raise OptionError("the conversation is nested too deep, or holds itself") from None


def plain_messages(conversation: Any) -> list[dict[Any, Any]]:
    """The messages of one conversation: entries that are None left out, reasoning under every name for it.

    Raises OptionError unless each message is an object with a role, and has another entry, too.
    """
    given = getattr(conversation, "messages", conversation)
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Sequence):
        kind = type(given).__name__
        raise OptionError(f"a conversation is a list of messages, not {kind}", 'give [{"role": ..., "content": ...}]')
    if not given:
        raise OptionError("the conversation has no messages", "give at least one")
    return [_message(number, plain(message), message) for number, message in enumerate(given)]


def _message(number: int, message: Any, original: Any) -> dict[Any, Any]:
    if not isinstance(message, dict):
        kind = type(original).__name__
        raise OptionError(f"message {number} is of type {kind}", 'a message is {"role": ..., "content": ...}')
    kept = {key: value for key, value in message.items() if value is not None}
    if "role" not in kept:
        raise OptionError(f"message {number} has no role", 'a message is {"role": ..., "content": ...}')
    if message.keys() == {"role"}:
        raise OptionError(f"message {number} has a role, but no content", "give it a content")
    reasoning = next((kept[key] for key in REASONING if key in kept), None)
    return kept if reasoning is None else {"thinking": reasoning, **kept, REASONING[0]: reasoning}


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return _plain(value.item())
    for kind, convert in _SCALARS:
        if isinstance(value, kind):
            return convert(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return _plain(dump())
    return f"<{type(value).__name__}>"


#: Types whose values stay, those of a type below them as a value of the type itself.
_SCALARS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (type(None), lambda value: value),
    (bool, lambda value: value),
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
)
