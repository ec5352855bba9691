"""The config.json of a wrapper, a model of images or sounds around a text model: its text part, and its other tokens.

Nothing here imports transformers. `frontend/trace.py` compares the text model with the one that transformers builds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hyperdex_ir.errors import ConfigError
from hyperdex_ir.frontend.families import FAMILIES
from hyperdex_ir.frontend.family import Family

#: The key that holds the configuration of the text model.
TEXT = "text_config"
#: Keys of a wrapper that also decide about its text model; a text model's own keys come after them.
_OUTER = ("tie_word_embeddings", "dtype", "torch_dtype")
#: Keys of a wrapper whose values are looked up if the text model's own configuration has none.
_INHERITED = ("eos_token_id",)
#: Keys of the tokens in whose places the wrapper puts images or sounds, not of those that stand around these places.
_PLACEHOLDER = re.compile(
    r"(?!.*(start|end|begin|bo[a-z]_|eo[a-z]_|bos|eos|pad|sep|cls|mask|unk|decoder))\w+_token_(id|index)"
)

#: Keys of numbers of modules in the other parts of a wrapper, which transformers makes one by one.
_COUNT = re.compile(r".*(layer|depth|block|stage|level|group|expert)s?")
#: Limits for these, for the length of a list, and for any other number; no model has as many.
_MOST_MODULES, _MOST_ITEMS, _LARGEST = 4096, 4096, 1 << 24


@dataclass(frozen=True)
class Wrapped:
    """The text part of a wrapper. values: its config.json. source: its place, for messages. family: its entry, or None
    if `model_type`, the text model's, is not supported."""

    values: Mapping[str, Any]
    source: str
    model_type: str
    family: Family | None


def wrapped_text(config: Mapping[str, Any], source: str) -> Wrapped | None:
    """The text part of a config.json; None when that is no wrapper's. Raises ConfigError for one that is no object.

    Older files of some wrappers have no `text_config`: the keys of the text model stand among the wrapper's own.
    """
    if _of_class(config.get("architectures")) is not None:
        return None
    text = config.get(TEXT)
    if not isinstance(text, Mapping | None):
        raise ConfigError(f"{source}: {TEXT} is of type {type(text).__name__}, expected an object")
    flat = f"{config.get('model_type')}_text"
    if not isinstance(text, Mapping):
        family = _of_type(flat)
        return None if family is None else Wrapped({**config, "model_type": flat}, source, flat, family)
    named = text.get("model_type") or flat
    family = _of_type(named) or _of_class(text.get("architectures"))
    values = {**{key: config[key] for key in _INHERITED if key in config}, **text}
    values |= {key: config[key] for key in _OUTER if key in config}
    return Wrapped(values, f"{source}: {TEXT}", str(named), family)


def text_values(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values of a config.json that describe its text model."""
    wrapped = wrapped_text(config, "")
    return config if wrapped is None else wrapped.values


def placeholders(config: Mapping[str, Any]) -> dict[str, int]:
    """The tokens that stand for images or sounds in a wrapper's text: key of config.json -> token."""
    found = {key: value for key, value in config.items() if _PLACEHOLDER.fullmatch(key)}
    return {key: value for key, value in found.items() if type(value) is int and value >= 0}


def oversize(config: Mapping[str, Any]) -> tuple[str, Any, int] | None:
    """The first number outside the text part that no model has: its key, its value or the length of a list, the limit.

    transformers makes the other parts of a wrapper, too, without contents.
    """
    holders = [(key, value) for key, value in config.items() if key != TEXT and isinstance(value, Mapping)]
    for name, holder in holders:
        for key, value in holder.items():
            if isinstance(value, Mapping):
                holders.append((f"{name}.{key}", value))
            items = value if isinstance(value, list) else [value]
            if len(items) > _MOST_ITEMS:
                return f"{name}.{key}", len(items), _MOST_ITEMS
            most = _MOST_MODULES if _COUNT.fullmatch(key) else _LARGEST
            if (wrong := next((one for one in items if type(one) is int and one > most), None)) is not None:
                return f"{name}.{key}", wrong, most
    return None


def _of_type(model_type: object) -> Family | None:
    return next((one for one in FAMILIES.values() if one.model_type == model_type), None)


def _of_class(architectures: object) -> Family | None:
    """The entry of the first class that a list names."""
    first = architectures[0] if isinstance(architectures, list) and architectures else None
    return FAMILIES.get(first) if isinstance(first, str) else None
