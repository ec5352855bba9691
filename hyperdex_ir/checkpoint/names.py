"""Source of each parameter of a model in a checkpoint, by transformers' own rules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hyperdex_ir.checkpoint.files import Checkpoint
from hyperdex_ir.checkpoint.merging import merge
from hyperdex_ir.checkpoint.tensors import Same, Tensor, transposed
from hyperdex_ir.errors import CheckpointError
from hyperdex_ir.isa.formats import FLOATS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Number of names that a message lists; the rest are counted.
_LISTED = 8


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


def resolve_sources(rules: NameRules, checkpoint: Checkpoint) -> dict[str, SourceTensor]:
    """Finds the tensor of the checkpoint for each parameter of the model, by its key.

    Raises CheckpointError, listing the missing, mis-shaped and unexpected tensors that transformers would report; also
    for tensors of an integer type, or with an unknown conversion. Tied parameters that are stored several times with
    different values are reported when they are read.
    """
    found, unexpected = _match(rules, checkpoint)
    groups: dict[str, list[str]] = {}
    needed = [name for name in rules.shapes if name not in rules.unused]
    for name in needed:
        groups.setdefault(rules.key(name), []).append(name)
    missing = [key for key, names in groups.items() if not any(name in found for name in names)]
    _report(
        rules,
        checkpoint,
        missing=_without(missing, rules.optional),
        misshaped=[_both_shapes(found[name], rules.shapes[name]) for name in needed if name in found],
        unexpected=_without(unexpected, rules.ignored),
    )
    sources: dict[str, SourceTensor] = {}
    for key, names in groups.items():
        held = [found[name] for name in sorted(names, key=lambda name: name != key) if name in found]
        if held:
            _check_type(checkpoint, held[0])
            tensor = _one(checkpoint, [transposed(one) if key in rules.transposed else one for one in held])
            sources[key] = SourceTensor(key, tensor.shape, tensor.names, tensor)
    return sources


def _match(rules: NameRules, checkpoint: Checkpoint) -> tuple[dict[str, Tensor], list[str]]:
    """Parameter name -> its tensor; and the tensors that belong to no parameter."""
    from transformers.core_model_loading import dot_natural_key

    found: dict[str, Tensor] = {}
    unexpected: list[str] = []
    merged: dict[str, dict[str, list[Tensor]]] = {}
    for name in sorted(checkpoint.tensors, key=dot_natural_key):
        new, pattern = rules.renamed(name)
        if new not in rules.shapes:
            unexpected.append(name)
        elif new in rules.unused:
            continue
        elif pattern is not None:
            merged.setdefault(new, {}).setdefault(pattern, []).append(checkpoint.tensors[name])
        else:
            found.setdefault(new, checkpoint.tensors[name])
    for new, parts in merged.items():
        converter = rules.converter(next(iter(parts)))
        for made, tensor in merge(converter, new, parts, str(checkpoint.directory), rules.shapes[new]).items():
            found.setdefault(made, tensor)
    return found, unexpected


def _without(names: Iterable[str], patterns: tuple[str, ...]) -> list[str]:
    ignored = re.compile("|".join(f"({pattern})" for pattern in patterns)) if patterns else None
    return [name for name in names if ignored is None or ignored.search(name) is None]


def _both_shapes(tensor: Tensor, expected: tuple[int, ...]) -> str:
    """Description of a wrong shape of a tensor; empty when the shape is right."""
    return "" if tensor.shape == expected else f"{_called(tensor)} is {list(tensor.shape)}, expected {list(expected)}"


def _called(tensor: Tensor) -> str:
    first, *others = tensor.names
    return f"{first} with {len(others)} others" if others else first


def _report(rules: NameRules, checkpoint: Checkpoint, **faults: list[str]) -> None:
    """Raises CheckpointError when any list of faults is not empty."""
    parts = []
    for kind, listed in faults.items():
        if texts := [text for text in listed if text]:
            more = f", and {len(texts) - _LISTED} more" if len(texts) > _LISTED else ""
            parts.append(f"{len(texts)} {kind}: {', '.join(texts[:_LISTED])}{more}")
    if parts:
        raise CheckpointError(
            f"{checkpoint.directory}: not the tensors of this {rules.architecture}: {'; '.join(parts)}",
            "config.json and the weights must belong together",
        )


def _check_type(checkpoint: Checkpoint, tensor: Tensor) -> None:
    if tensor.dtype not in FLOATS:
        expected = ", ".join(FLOATS)
        raise CheckpointError(
            f"{checkpoint.directory}: {_called(tensor)} is stored as {tensor.dtype}, expected {expected}"
        )


def _one(checkpoint: Checkpoint, tensors: list[Tensor]) -> Tensor:
    """The first of tied parameters. If they are stored several times, it is compared with the others while it is read.

    Raises CheckpointError when they are of different types.
    """
    first, *others = tensors
    for other in others:
        fault = (
            f"{checkpoint.directory}: config.json ties {_called(first)} and {_called(other)}, which hold different "
            "values",
            "set tie_word_embeddings to false in config.json",
        )
        if first.dtype != other.dtype:
            raise CheckpointError(*fault)
        first = Same(first, other, fault)
    return first
