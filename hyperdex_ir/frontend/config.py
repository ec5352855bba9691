"""Phase 0: checks of config.json that need neither torch nor transformers."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hyperdex_ir.checkpoint.quantization_check import check_quantization, quantization_of, without_quantization
from hyperdex_ir.errors import ConfigError, UnsupportedModelError
from hyperdex_ir.frontend.families import FAMILIES, entry_of
from hyperdex_ir.frontend.family import LAYER_TYPES, NAMES, PART, ROPE_TYPES, Family, Size
from hyperdex_ir.frontend.rotary_rules import flaws, is_positive
from hyperdex_ir.frontend.wrapper import Wrapped, oversize, placeholders, wrapped_text
from hyperdex_ir.support.reading import read_config_json

#: Keys whose presence means an unsupported mechanism, with the name of the mechanism.
_REFUSED = {
    "compression_config": "compressed weights",
}
#: Keys by which transformers chooses a function, which it may fetch from the Hub.
_IMPLEMENTATION = re.compile(r"\w*_implementation(_internal)?", re.ASCII)
#: Number of the nearest architectures that a message names.
_NAMED = 3
#: The name that older files have for plain frequencies in sections, and the number of these.
_SECTIONS, _GRID = "mrope", 3
#: Number of letters of an unknown name that are compared with the known names.
_COMPARED = 200
#: Limit for the number of parameters; no model has as many.
_MOST_PARAMETERS = 1 << 42
#: Limit for the labels of a classifier; no model has as many. transformers makes two names for each.
_MOST_LABELS = 1 << 16
#: Suffixes that follow the name of a family in the name of an architecture.
_SUFFIX = re.compile(r"(For[A-Z]|LMHead|Model).*")


@dataclass(frozen=True)
class ModelSummary:
    """Sizes and other numbers of a model.

    max_positions: number of positions it was made for. learned_positions: True when positions are learned, so that
    there are no others. eos_ids: the tokens that end a text, possibly none. tied: True when the head is the token
    embedding. token_embedding, head: the last components of their names. notes: lines about ignored entries.

    Of a wrapper, all of this is that of its text model, except the architecture. wrapper: True for a wrapper.
    placeholders: the tokens that stand for images or sounds, by their keys in config.json.
    """

    architecture: str
    model_type: str
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    hidden: int
    intermediate: int
    vocab: int
    max_positions: int
    learned_positions: bool
    eos_ids: tuple[int, ...]
    tied: bool
    token_embedding: str
    head: str
    notes: tuple[str, ...] = ()
    wrapper: bool = False
    placeholders: Mapping[str, int] = field(default_factory=dict)


def read_config(directory: Path) -> ModelSummary:
    """Reads and checks `directory/config.json`. Raises ConfigError or UnsupportedModelError."""
    path = directory / "config.json"
    config = read_config_json(path)
    try:
        return check_config(config, str(path))
    except (ConfigError, UnsupportedModelError):
        if not _is_left_over(directory, config):
            raise
    return check_config(without_quantization(config), str(path))


def _is_left_over(directory: Path, config: Mapping[str, Any]) -> bool:
    """Test for a quantization_config beside weights that are dense. Without weights nothing says that they are."""
    if quantization_of(config) is None:
        return False
    from hyperdex_ir.checkpoint.dequantize import is_left_over

    return is_left_over(directory)


def check_config(config: Mapping[str, Any], source: str) -> ModelSummary:
    """Checks the contents of a config.json; `source` names it in messages.

    Raises UnsupportedModelError for an architecture or mechanism that is not supported, ConfigError for a value that
    makes no model.
    """
    _architecture(config, source)
    wrapped = wrapped_text(config, source)
    if wrapped is None:
        family = _family(config, source)
        _check_common(config, source)
        return _check_family(config, source, family)
    family = _text_family(config, source, wrapped)
    _check_common(config, source)
    _check_common(wrapped.values, wrapped.source)
    if (found := oversize(config)) is not None:
        key, value, most = found
        raise ConfigError(f"{source}: {key} is {_show(value)}, expected at most {most}")
    return replace(
        _check_family(wrapped.values, wrapped.source, family),
        architecture=_architecture(config, source) or str(config.get("model_type")),
        notes=_notes(config, source, "its text model"),
        wrapper=True,
        placeholders=placeholders(config),
    )


def _check_common(config: Mapping[str, Any], source: str) -> None:
    """Checks the entries that do not depend on the architecture."""
    for key, mechanism in _REFUSED.items():
        if config.get(key) is not None:
            raise UnsupportedModelError(f"{source}: {key}: {mechanism} are not supported")
    _check_implementations(config, source)
    if (count := config.get("num_labels")) is not None and not (type(count) is int and 0 <= count <= _MOST_LABELS):
        raise ConfigError(f"{source}: num_labels is {_show(count)}, expected a whole number up to {_MOST_LABELS}")
    check_quantization(config, source)


def _notes(config: Mapping[str, Any], source: str, name: str) -> tuple[str, ...]:
    if config.get("auto_map") is None:
        return ()
    return (f"{source}: auto_map is ignored: {name} is built in, and the code of a checkpoint is never run",)


def _check_family(config: Mapping[str, Any], source: str, family: Family) -> ModelSummary:
    for key, mechanism in family.refused.items():
        if config.get(key) not in (None, False):
            raise UnsupportedModelError(f"{source}: {key}: {mechanism} are not supported for {family.architecture}")
    for key in dict.fromkeys(key.rpartition(".")[0] for key in (*family.fixed, *family.optional_numbers)):
        if key and not isinstance(value := config.get(key), Mapping | None):
            raise ConfigError(f"{source}: {key} is {_show(value)}, expected an object or null")
    for key, (only, mechanism) in family.fixed.items():
        if (value := _inside(config, key, only)) != only or isinstance(value, bool) != isinstance(only, bool):
            raise UnsupportedModelError(
                f"{source}: {key} is {_show(value)}: {mechanism} are not supported for {family.architecture}"
            )
    return _Checker(config, source, family).summary()


def _check_implementations(config: Mapping[str, Any], source: str) -> None:
    """Raises UnsupportedModelError when the config, or a config nested in it, names code on the Hub, as OWNER/NAME."""
    holders = [config]
    for holder in holders:
        holders += [value for value in holder.values() if isinstance(value, Mapping)]
        for key, value in holder.items():
            if _IMPLEMENTATION.fullmatch(str(key)) and not (
                value is None or (isinstance(value, str) and "/" not in value)
            ):
                raise UnsupportedModelError(
                    f"{source}: {key} is {_show(value)}: code from the Hub is never run",
                    f"remove {key}: the compiler uses functions of its own",
                )


def _inside(config: Mapping[str, Any], key: str, default: Any) -> Any:
    """Value of a key, or the default when it is absent; `object.key` names a key of a nested object."""
    outer, _, inner = key.rpartition(".")
    holder = config.get(outer) if outer else config
    return holder.get(inner, default) if isinstance(holder, Mapping) else default


def _family(config: Mapping[str, Any], source: str) -> Family:
    """The entry of the class that `architectures` names, else, as in transformers, of `model_type`."""
    architecture, model_type = _architecture(config, source), config.get("model_type")
    family = FAMILIES.get(architecture)
    if family is None:
        return _of_type(config, architecture, source)
    if family.wrapped:
        raise UnsupportedModelError(
            f"{source}: {architecture} is the text model of a model of images, without the head that makes it generate",
            "name the class that it was published in",
        )
    if (other := FAMILIES.get(entry_of(architecture, str(model_type)))) is not None:
        return other
    if model_type != family.model_type:
        raise ConfigError(
            f"{source}: model_type is {_show(model_type)}, expected {_show(family.model_type)} for {architecture}"
        )
    return family


def _of_type(config: Mapping[str, Any], architecture: str, source: str) -> Family:
    """The entry of `model_type`, for a config.json that names no class. Raises for one that names an unknown class."""
    model_type = config.get("model_type")
    family = next((one for one in FAMILIES.values() if one.model_type == model_type and not one.wrapped), None)
    if not architecture and model_type is None:
        raise ConfigError(
            f"{source}: no architectures and no model_type, expected a list of one name",
            "is this a causal language model?",
        )
    if not architecture and not isinstance(model_type, str):
        raise ConfigError(f"{source}: model_type is {_show(model_type)}, expected a name")
    if family is not None and architecture:
        raise UnsupportedModelError(
            f"{source}: architecture {_printable(architecture)} is not the class that is compiled for model_type "
            f"{family.model_type}: {family.architecture} is wanted",
            f"a base class or another head lacks the weights of a {family.architecture}",
        )
    if family is not None:
        return family
    code = " and comes with code of its own (auto_map), which is never run" if config.get("auto_map") else ""
    what = f"architecture {_printable(architecture)}" if architecture else f"model_type {_printable(str(model_type))}"
    raise UnsupportedModelError(
        f"{source}: {what} is not supported{code}; the nearest supported are "
        f"{', '.join(_nearest_architectures(architecture or str(model_type)))}",
        "`hyperdex models` lists all that are supported",
    )


def _text_family(config: Mapping[str, Any], source: str, wrapped: Wrapped) -> Family:
    """The entry of the text model of a wrapper."""
    if wrapped.family is not None:
        return wrapped.family
    name = _architecture(config, source) or str(config.get("model_type"))
    near = _nearest(wrapped.model_type, [family.model_type for family in FAMILIES.values()], _NAMED)
    raise UnsupportedModelError(
        f"{source}: {_printable(name)} is a model around a text model of model_type {_printable(wrapped.model_type)}, "
        f"which is not supported; the nearest supported are {', '.join(near)}",
        "`hyperdex models` lists all that are supported",
    )


def _architecture(config: Mapping[str, Any], source: str) -> str:
    """The class that a config.json names; empty when it names none."""
    architectures = config.get("architectures")
    if architectures in (None, []):
        return ""
    if not isinstance(architectures, list) or not isinstance(architectures[0], str):
        raise ConfigError(f"{source}: architectures is {_show(architectures)}, expected a list of one name")
    return architectures[0]


def _nearest(name: str, known: Iterable[str], count: int = 1) -> list[str]:
    """The known names that are most similar to this one, the most similar first."""
    name = name[:_COMPARED].lower()
    ratios = {one: difflib.SequenceMatcher(None, name, one.lower()).ratio() for one in known}
    return sorted(ratios, key=lambda one: -ratios[one])[:count]


def _nearest_architectures(name: str) -> list[str]:
    """The supported architectures whose family names are most similar to that of a class, or to a model_type."""
    families = {_SUFFIX.sub("", known): family.architecture for known, family in FAMILIES.items() if not family.wrapped}
    return [families[one] for one in _nearest(_SUFFIX.sub("", name), families, _NAMED)]


def _printable(text: str) -> str:
    """A name from the file, quoted unless it is plain, so that a message stays on one line."""
    plain = text.isascii() and text.isprintable() and 0 < len(text) <= 60
    return text if plain else _show(text)


def _show(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _rule(rope: Mapping[str, Any]) -> Any:
    return rope.get("rope_type", rope.get("type", "default"))


class _Checker:
    """Checks and reads the values of one config.json by the table of its family."""

    def __init__(self, config: Mapping[str, Any], source: str, family: Family):
        self.config = config
        self.source = source
        self.family = family
        self.sizes = {key: self._size(key, size) for key, size in family.sizes.items()}

    def summary(self) -> ModelSummary:
        sizes = self.sizes
        heads, hidden = self._named("heads"), self._named("hidden")
        sizes.setdefault("num_key_value_heads", None)
        kv_heads = sizes["num_key_value_heads"] = sizes["num_key_value_heads"] or heads
        if self.family.multi_query and self._flag(self.family.multi_query, True):
            kv_heads = 1
        for whole, part in self.family.divisions:
            self._divides(whole, part)
        for part, whole in self.family.limits:
            if self._positive(part) > (most := self._positive(whole)):
                raise self._wrong(part, sizes[part], f"at most {whole} {most}")
        self._values()
        head_size = sizes.get("head_dim") or self._head_size(hidden, heads)
        rotating = self._positive(self.family.head_parts[-1]) if self.family.head_parts else head_size
        if self.family.fills_hidden and heads * head_size != hidden:
            raise self._wrong("head_dim", head_size, f"hidden_size {hidden} / num_attention_heads {heads}")
        if self.family.rotary:
            self._rotary(rotating)
        self._not_beyond_all_bounds(hidden)
        return ModelSummary(
            architecture=self.family.architecture,
            model_type=self.family.model_type,
            layers=self._named("layers"),
            heads=heads,
            kv_heads=kv_heads,
            head_size=head_size,
            hidden=hidden,
            intermediate=self._intermediate(hidden),
            vocab=self._positive("vocab_size"),
            max_positions=sizes[self._key("positions")] or self.family.limit or self._named("positions"),
            learned_positions=not (self.family.rotary or self.family.slopes),
            eos_ids=self._eos(),
            tied=self._flag("tie_word_embeddings", self.family.flags["tie_word_embeddings"]),
            token_embedding=self.family.token_embedding,
            head=self.family.head,
            notes=_notes(self.config, self.source, self.family.architecture),
        )

    def _not_beyond_all_bounds(self, hidden: int) -> None:
        layers, vocab = self._named("layers"), self._positive("vocab_size")
        width = max(self._intermediate(hidden), hidden)
        if (count := hidden * (vocab + layers * width)) > _MOST_PARAMETERS:
            raise ConfigError(
                f"{self.source}: {self._key('hidden')} {hidden}, {self._key('intermediate')} {width}, "
                f"vocab_size {vocab} and {self._key('layers')} {layers} make about {count:.0e} parameters, "
                f"the most is {_MOST_PARAMETERS:.0e}"
            )

    def _wrong(self, key: str, value: Any, expected: str) -> ConfigError:
        return ConfigError(f"{self.source}: {key} is {_show(value)}, expected {expected}")

    def _size(self, key: str, size: Size) -> int | None:
        value = self.config.get(self.family.aliases.get(key, key), self.config.get(key, size.default))
        if value is None and size.optional:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not size.least <= value <= size.most:
            raise self._wrong(key, value, f"a whole number from {size.least} to {size.most}")
        return value

    def _key(self, name: str) -> str:
        return self.family.names.get(name, NAMES[name])

    def _named(self, name: str) -> int:
        """The size that the summary calls by this name."""
        return self._positive(self._key(name))

    def _positive(self, key: str) -> int:
        value = self.sizes[key]
        assert value is not None, f"{key} is not optional"
        return value

    def _intermediate(self, hidden: int) -> int:
        """Width of the intermediate layer: four times the hidden size unless a key gives it."""
        return self.sizes.get(self._key("intermediate")) or 4 * hidden

    def _head_size(self, hidden: int, heads: int) -> int:
        if self.family.head_parts:
            return sum(map(self._positive, self.family.head_parts))
        if hidden % heads:
            raise self._wrong(self._key("hidden"), hidden, f"a multiple of {self._key('heads')} {heads}")
        return hidden // heads

    def _divides(self, whole: str, part: str) -> None:
        total, divisor = self._positive(whole), self._positive(part)
        if total % divisor:
            raise self._wrong(whole, total, f"a multiple of {part} {divisor}")

    def _values(self) -> None:
        for key, default in self.family.numbers.items():
            self._number(key, self.config.get(key, default))
        for key, default in self.family.optional_numbers.items():
            if (value := _inside(self.config, key, default)) is not None:
                self._number(key, value)
        for key, default in self.family.flags.items():
            self._flag(key, default)
        for key, (default, allowed) in self.family.choices.items():
            self._choice(key, self.config.get(key, default), allowed)
        for key, allowed in self.family.lists.items():
            self._list(key, self.config.get(key), allowed)
        for key in self.family.layer_numbers:
            self._list(key, self.config.get(key))

    def _number(self, key: str, value: Any) -> None:
        if not is_positive(value):
            raise self._wrong(key, value, "a positive number")

    def _flag(self, key: str, default: bool) -> bool:
        value = self.config.get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def _choice(self, key: str, value: Any, allowed: tuple[str, ...]) -> None:
        if not isinstance(value, str):
            raise self._wrong(key, value, f"one of {', '.join(allowed)}")
        if value not in allowed:
            (nearest,) = _nearest(value, allowed)
            raise UnsupportedModelError(
                f"{self.source}: {key} {_printable(value)} is not supported; the nearest supported is {nearest}",
                f"supported are {', '.join(allowed)}",
            )

    def _list(self, key: str, value: Any, allowed: tuple[Any, ...] = ()) -> None:
        """Checks a list of one allowed value for each layer, or null. No `allowed` values: a positive number or 0."""
        if value is None and key not in self.family.needed:
            return
        count = self._named("layers")
        if not isinstance(value, list) or len(value) != count:
            other = "" if key in self.family.needed else ", or null"
            raise self._wrong(key, value, f"a list of {count} values, one a layer{other}")
        for item in value:
            is_allowed = item in allowed if allowed else item == 0 or is_positive(item)
            if isinstance(item, bool) or not is_allowed:
                expected = f"one of {', '.join(map(str, allowed))}" if allowed else "a positive number or 0"
                raise self._wrong(key, item, f"{expected} for each layer")

    def _rotary(self, head_size: int) -> None:
        self._number("rope_theta", self.config.get("rope_theta", 1.0))
        rope = self.config.get("rope_parameters")
        ropes = {"rope_scaling": self.config.get("rope_scaling")}
        if self.family.rotary_kinds and rope is not None:
            if not isinstance(rope, dict) or not set(rope) <= set(LAYER_TYPES):
                raise self._wrong("rope_parameters", rope, f"an object with {' and '.join(LAYER_TYPES)}, or null")
            ropes |= {f"rope_parameters.{kind}": rope.get(kind) for kind in LAYER_TYPES}
        else:
            ropes["rope_parameters"] = rope
        for key, value in ropes.items():
            self._rope(key, value)
        frequencies = self._rotated(head_size) // 2
        for key, value in ropes.items():
            self._sections(key, value, frequencies)
            for name, found, expected in flaws(_rule(value), value, frequencies) if value else ():
                raise self._wrong(f"{key}.{name}", found, expected)

    def _rope(self, key: str, rope: Any) -> None:
        """Checks an object of rotary parameters, or null."""
        if rope is None:
            return
        if not isinstance(rope, dict):
            raise self._wrong(key, rope, "an object or null")
        rule = _rule(rope)
        self._choice(f"{key}.rope_type", "default" if self.family.sections and rule == _SECTIONS else rule, ROPE_TYPES)
        for name in ("rope_theta", "factor"):
            self._number(f"{key}.{name}", rope.get(name, 1.0))

    def _sections(self, key: str, rope: Mapping[str, Any] | None, frequencies: int) -> None:
        """Checks the numbers of frequencies for time, height and width, which are all the same position in a text."""
        sections = None if rope is None or not self.family.sections else rope.get("mrope_section")
        if sections is None:
            return
        whole = isinstance(sections, list) and all(type(one) is int and one > 0 for one in sections)
        if not whole or len(sections) != _GRID or sum(sections) != frequencies:
            expected = f"a list of {_GRID} whole numbers, {frequencies} together"
            raise self._wrong(f"{key}.mrope_section", sections, expected)

    def _rotated(self, head_size: int) -> int:
        """Number of elements of a head that rotate; it is even."""
        if self.family.turned:
            size = self._positive(self.family.turned)
            if size > head_size or size % 2:
                raise self._wrong(self.family.turned, size, f"an even number of at most the head size {head_size}")
            return size
        if self.family.rotated is None:
            if head_size % 2:
                raise self._wrong("head_dim", head_size, "an even number, because positions rotate pairs")
            return head_size
        name, default = self.family.rotated
        rope = self.config.get("rope_parameters") or self.config.get("rope_scaling") or {}
        part = rope.get(PART, self.config.get(name, default))
        self._number(name, part)
        size = int(head_size * part)
        if part > 1 or size < 2 or size % 2:
            raise self._wrong(
                name, part, f"a part of the head size {head_size} that is even, because positions rotate pairs"
            )
        return size

    def _eos(self) -> tuple[int, ...]:
        value = self.config.get("eos_token_id", self.family.eos)
        if value is None:
            return ()
        ids = value if isinstance(value, list) else [value]
        if any(isinstance(id_, bool) or not isinstance(id_, int) or id_ < 0 for id_ in ids):
            raise self._wrong("eos_token_id", value, "a token number, a list of them, or null")
        return tuple(ids)
