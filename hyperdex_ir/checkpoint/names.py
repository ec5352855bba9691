"""Source of each parameter of a model in a checkpoint, by transformers' own rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hyperdex_ir.checkpoint.files import Checkpoint
from hyperdex_ir.checkpoint.leftover import listed, summary, suspects
from hyperdex_ir.checkpoint.merging import merge, missing_parts
from hyperdex_ir.checkpoint.prefixes import AROUND, candidates, stripped, unwrapped
from hyperdex_ir.checkpoint.quantization_check import stored_kind
from hyperdex_ir.checkpoint.tensors import Same, Tensor, transposed
from hyperdex_ir.errors import CheckpointError
from hyperdex_ir.isa.formats import F32, FLOATS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_UNQUANTIZED = "take the checkpoint as it was before it was quantized"
#: The most wrappers of one kind around a parameter.
_MOST_WRAPPERS = 3
#: Beginning of the names that PEFT gives to the parts of a LoRA adapter.
_ADAPTER = ".lora_"


@dataclass(frozen=True)
class SourceTensor:
    """A parameter and its source in the checkpoint.

    key: the name in the `lpu` module. shape: its shape. checkpoint_keys: the tensors that it is made of, in order.
    tensor: its elements; None when no checkpoint has been opened.
    """

    key: str
    shape: tuple[int, ...]
    checkpoint_keys: tuple[str, ...]
    tensor: Tensor | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, eq=False)
class NameRules:
    """Rules of transformers for the names of one model's parameters, and for the tensors it accepts in a checkpoint.

    shapes: the model's state dict. canonical: names of tied parameters -> the one name used for all of them.
    transforms: transformers' renamings and conversions. optional: names that may be missing. ignored: names that may be
    present in addition. transposed: keys of matrices that the model takes transposed. unused: names of the state dict
    that the program does not need, those of a wrapper that text does not go through: they may be missing.
    """

    architecture: str
    shapes: dict[str, tuple[int, ...]]
    canonical: dict[str, str]
    base_prefix: str
    transforms: tuple[Any, ...]
    optional: tuple[str, ...]
    ignored: tuple[str, ...]
    transposed: frozenset[str] = frozenset()
    unused: frozenset[str] = frozenset()

    def key(self, name: str) -> str:
        """The key of the `lpu` module for a name of the state dict."""
        return self.canonical.get(name, name)

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """Key -> the names of the state dict that it stands for; several for tied parameters. Without unused ones."""
        groups: dict[str, list[str]] = {}
        for name in (name for name in self.shapes if name not in self.unused):
            groups.setdefault(self.key(name), []).append(name)
        return groups

    def renamed(self, name: str) -> tuple[str, str | None]:
        """The parameter that a tensor of a checkpoint belongs to, and the pattern of its conversion, if any.

        A conversion that makes several parameters is identified by the first.
        """
        from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

        renamings = [t for t in self.transforms if isinstance(t, WeightRenaming)]
        converters = [t for t in self.transforms if isinstance(t, WeightConverter)]
        known: dict[str, Any] = self.shapes
        new, pattern = rename_source_key(name, renamings, converters, self.base_prefix, known)
        if new not in known and name in known:
            new, pattern = rename_source_key(name, [], [], self.base_prefix, known)
        return new, pattern

    def is_needed(self, name: str) -> bool:
        """Test for a tensor of a checkpoint that the program may need; only those that are known not to be are left."""
        return self.renamed(name)[0] not in self.unused

    def converter(self, pattern: str) -> Any:
        """The conversion that a pattern of source names belongs to."""
        return next(t for t in self.transforms if hasattr(t, "operations") and pattern in t.source_patterns)


def name_rules(
    model: PreTrainedModel, canonical: Mapping[str, str], transposed: frozenset[str] = frozenset()
) -> NameRules:
    """The rules of a model, which may be on the meta device."""
    from transformers.conversion_mapping import get_model_conversion_mapping

    buffers = [name for name, _ in model.named_buffers()]
    ignored = set(model._keys_to_ignore_on_load_unexpected or ())
    # Two exceptions that transformers hard-codes: buffers that old checkpoints hold.
    if any(name.endswith("rotary_emb.inv_freq") for name in buffers):
        ignored.add(r"rotary_emb\.inv_freq")
    if any(name.endswith("position_ids") for name in buffers):
        ignored.add(r"(^|\.)position_ids$")
    return NameRules(
        architecture=type(model).__name__,
        shapes={name: tuple(tensor.shape) for name, tensor in model.state_dict().items()},
        canonical=dict(canonical),
        base_prefix=model.base_model_prefix,
        transforms=tuple(get_model_conversion_mapping(model)),
        optional=tuple(sorted(model._keys_to_ignore_on_load_missing or ())),
        ignored=tuple(sorted(ignored)),
        transposed=transposed,
    )


@dataclass(frozen=True)
class _Match:
    """Tensors of a checkpoint by the parameter that they belong to.

    found: parameter -> its tensor. parts: parameter of which some parts are missing -> their names. leftover: the other
    tensors: name, name by the rules of the model, tensor. removed: parts of names that are not read.
    """

    found: dict[str, Tensor]
    parts: dict[str, list[str]]
    leftover: list[tuple[str, str, Tensor]]
    removed: tuple[str, ...] = ()

    def missing(self, rules: NameRules) -> list[str]:
        """The parameters, or parts of them, that the checkpoint does not hold."""
        keys = [key for key, names in rules.groups.items() if not any(name in self.found for name in names)]
        missing = [part for key in _without(keys, rules.optional) for part in self.parts.get(key, [key])]
        return list(dict.fromkeys(missing))


def resolve_sources(
    rules: NameRules,
    checkpoint: Checkpoint,
    report: Callable[[str], None] = lambda line: None,
    matrix_type: str = F32.name,
) -> dict[str, SourceTensor]:
    """Finds the tensor of the checkpoint for each parameter of the model, by its key.

    report: called with a line about tensors that are not used, or that have other names than the model's. matrix_type:
    the type in which tied parameters are compared that are stored several times.

    Raises CheckpointError, listing the missing and mis-shaped tensors, and others that may be meant to be matrices of
    the model; also for tensors of an integer type, or with an unknown conversion. Tied parameters that are stored
    several times with different values are reported when they are read.
    """
    match = _match(rules, checkpoint)
    found, missing = match.found, match.missing(rules)
    leftover = {name: known for name, known, _ in match.leftover}
    expected = [name for name, known in leftover.items() if not _without([known], rules.ignored)]
    others = [one for one in match.leftover if one[0] not in expected]
    needed = [name for name in rules.shapes if name not in rules.unused]
    absent = [name for name in needed if name not in found]
    _check(
        rules,
        checkpoint,
        missing=missing,
        misshaped=[_both_shapes(found[name], rules.shapes[name]) for name in needed if name in found],
        unexpected=[name for name, *_ in others] if missing else suspects(others, rules.shapes, absent),
    )
    if match.removed:
        report(f"{checkpoint.directory}: the names of tensors are read without {', '.join(match.removed)}")
    if leftover:
        report(f"{checkpoint.directory}: ignored, as the model has no place for them: {summary(leftover)}")
    sources: dict[str, SourceTensor] = {}
    for key, names in rules.groups.items():
        held = [found[name] for name in sorted(names, key=lambda name: name != key) if name in found]
        if held:
            for one in held:
                _check_type(checkpoint, one)
            whole = [transposed(one) if key in rules.transposed else one for one in held]
            tensor = _one(checkpoint, whole, matrix_type)
            sources[key] = SourceTensor(key, tensor.shape, tensor.names, tensor)
    return sources


def key_mapping(model: PreTrainedModel, checkpoint: Checkpoint) -> dict[str, str]:
    """The `key_mapping` with which transformers reads the tensors of a checkpoint by the names that we read them by."""
    removed = _match(name_rules(model, model.all_tied_weights_keys), checkpoint).removed
    patterns = [rf"(?<![^.]){re.escape(part)}" for part in removed if part[:-1] in AROUND]
    # transformers applies each pattern once, and compares patterns as texts.
    patterns = [pattern + "(?:)" * count for pattern in patterns for count in range(_MOST_WRAPPERS)]
    patterns += [f"^{re.escape(part)}" for part in removed if part[:-1] not in AROUND]
    return dict.fromkeys(patterns, "")


def _match(rules: NameRules, checkpoint: Checkpoint) -> _Match:
    """The best match: by the names as they are, or without a prefix if more parameters are found then.

    Raises CheckpointError when several prefixes are equally good.
    """
    own = _match_read(rules, checkpoint, {name: name for name in checkpoint.tensors})
    if not own.missing(rules):
        return own
    read = unwrapped(checkpoint.tensors)
    best = [("", own if read.keys() == set(read.values()) else _match_read(rules, checkpoint, read))]
    fewest = len(best[0][1].missing(rules))
    names = [known for _, known, _ in best[0][1].leftover]
    for prefix in candidates(names, lambda name: rules.renamed(name)[0] in rules.shapes):
        match = _match_read(rules, checkpoint, stripped(read, prefix))
        count = len(match.missing(rules))
        if count < fewest:
            best, fewest = [(prefix, match)], count
        elif count == fewest and best[0][0] and not prefix.startswith(best[0][0]):
            best.append((prefix, match))
    if len(best) > 1:
        raise CheckpointError(
            f"{checkpoint.directory}: holds {len(best)} models of this {rules.architecture}, with the prefixes "
            f"{listed([prefix for prefix, _ in best])}",
            "keep the tensors of one of them",
        )
    ((prefix, match),) = best
    around = (f"{part}." for part in AROUND if any(f".{part}." in f".{name}" for name in checkpoint.tensors))
    return replace(match, removed=(*filter(None, [prefix]), *(part for part in around if part != prefix)))


def _match_read(rules: NameRules, checkpoint: Checkpoint, read: Mapping[str, str]) -> _Match:
    """The match by other names. read: name of a tensor -> the name that it is read by."""
    from transformers.core_model_loading import dot_natural_key

    match = _Match({}, {}, [])
    merged: dict[str, dict[str, list[str]]] = {}
    for name in sorted(read, key=lambda name: dot_natural_key(read[name])):
        new, pattern = rules.renamed(read[name])
        if new not in rules.shapes:
            match.leftover.append((name, new, checkpoint.tensors[name]))
        elif new in rules.unused:
            continue
        elif pattern is not None:
            merged.setdefault(new, {}).setdefault(pattern, []).append(name)
        else:
            match.found.setdefault(new, checkpoint.tensors[name])
    for new, names in merged.items():
        converter = rules.converter(next(iter(names)))
        if missing := missing_parts(converter, names, rules.shapes[new][0]):
            match.parts[new] = missing
            continue
        parts = {pattern: [checkpoint.tensors[name] for name in found] for pattern, found in names.items()}
        for made, tensor in merge(converter, new, parts, str(checkpoint.directory), rules.shapes[new]).items():
            match.found.setdefault(made, tensor)
    return match


def _without(names: Iterable[str], patterns: tuple[str, ...]) -> list[str]:
    ignored = re.compile("|".join(f"({pattern})" for pattern in patterns)) if patterns else None
    return [name for name in names if ignored is None or ignored.search(name) is None]


def _both_shapes(tensor: Tensor, expected: tuple[int, ...]) -> str:
    """Description of a wrong shape of a tensor; empty when the shape is right."""
    return "" if tensor.shape == expected else f"{_called(tensor)} is {list(tensor.shape)}, expected {list(expected)}"


def _called(tensor: Tensor) -> str:
    first, *others = tensor.names
    return f"{first} with {len(others)} others" if others else first


def _check(rules: NameRules, checkpoint: Checkpoint, **faults: list[str]) -> None:
    """Raises CheckpointError when any list of faults is not empty."""
    parts = []
    for kind, faulty in faults.items():
        if texts := [text for text in faulty if text]:
            parts.append(f"{len(texts)} {kind}: {listed(texts)}")
    if parts:
        message = f"{checkpoint.directory}: not the tensors of this {rules.architecture}: {'; '.join(parts)}"
        raise CheckpointError(message, _hint(checkpoint))


def _hint(checkpoint: Checkpoint) -> str:
    if any(_ADAPTER in f".{name}" for name in checkpoint.tensors):
        return "a LoRA adapter is in the weights: merge it first (merge_and_unload of peft)"
    if kind := stored_kind({name: one.dtype for name, one in checkpoint.tensors.items()}):
        return f"these are {kind}: {_UNQUANTIZED}"
    return "config.json and the weights must belong together"


def _check_type(checkpoint: Checkpoint, tensor: Tensor) -> None:
    if tensor.dtype not in FLOATS:
        raise wrong_type(checkpoint, _called(tensor), tensor.dtype)


def wrong_type(checkpoint: Checkpoint, name: str, dtype: str) -> CheckpointError:
    """The error for a parameter that is no floating-point tensor."""
    kind = stored_kind({name: one.dtype for name, one in checkpoint.tensors.items()})
    shown = f": {kind}" if kind else ""
    return CheckpointError(
        f"{checkpoint.directory}: {name} is stored as {dtype}, expected {', '.join(FLOATS)}{shown}",
        _UNQUANTIZED if kind else "",
    )


def _one(checkpoint: Checkpoint, tensors: list[Tensor], matrix_type: str) -> Tensor:
    """The first of tied parameters. If they are stored several times, it is compared with the others as it is read."""
    first, *others = tensors
    for other in others:
        fault = (
            f"{checkpoint.directory}: config.json ties {_called(first)} and {_called(other)}, which hold different "
            "values",
            "set tie_word_embeddings to false in config.json",
        )
        first = Same(first, other, matrix_type, fault)
    return first
