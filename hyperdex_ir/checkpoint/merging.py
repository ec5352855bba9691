"""transformers' conversions of checkpoints, such as experts stored one by one, as tensors that are read by rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hyperdex_ir.checkpoint.tensors import Concatenated, Rearranged, Sliced, Stacked, Tensor
from hyperdex_ir.errors import CheckpointError

#: Pattern -> the tensors that it matched (several if it has a `*`), or the one tensor made of them.
Found = Mapping[str, list[Tensor]]
Shape = tuple[int, ...]


def merge(converter: Any, name: str, found: Found, source: str, shape: Shape) -> dict[str, Tensor]:
    """Results of a transformers WeightConverter, by full name, for the tensors that its patterns matched.

    name, shape: those of the first result in the model. source: name of the checkpoint in messages. Raises
    CheckpointError for an unknown operation, or for tensors that cannot be combined.
    """
    for operation in converter.operations:
        kind = type(operation).__name__
        apply = _OPERATIONS.get(kind)
        if apply is None:
            raise CheckpointError(f"{source}: {name}: transformers' conversion {kind} is not supported")
        found = apply(operation, converter, found, shape)
    prefix, _, suffix = next(name.partition(target) for target in found if target in name)
    results = {prefix + target + suffix: tensor for target, (tensor,) in found.items()}
    for result, tensor in results.items():
        if not _fits(tensor):
            raise CheckpointError(f"{source}: the {len(tensor.names)} tensors of {result} differ in shape or type")
    return results


def missing_parts(converter: Any, found: Mapping[str, Sequence[str]], count: int) -> list[str]:
    """The names of the tensors that a conversion lacks, when it stacks `count` of each kind, such as experts.

    found: pattern -> the names that it matched.
    """
    first = type(converter.operations[0]).__name__
    if _OPERATIONS.get(first) is not _stack:
        return []
    patterns = [pattern for pattern in converter.source_patterns if "*" in pattern]
    tails = {pattern: pattern.rpartition("*")[2].replace("\\", "") for pattern in patterns}
    missing = []
    for pattern in patterns:
        other = pattern if pattern in found else next(iter(found))
        names = {name.removesuffix(tails.get(other, "")) + tails[pattern]: None for name in found[other]}
        head, _, tail = next(iter(names)).removesuffix(tails[pattern]).rpartition(".")
        wanted = [f"{head}.{number}{tails[pattern]}" for number in range(count)]
        if tail.isdecimal():
            missing += [name for name in wanted if pattern not in found or name not in names]
    return missing


def _fits(tensor: Tensor) -> bool:
    """Test for parts with equal types and compatible shapes."""
    if not isinstance(tensor, Stacked | Concatenated):
        return True
    along = tensor.dim if isinstance(tensor, Concatenated) else None
    kinds = {(part.dtype, tuple(size for dim, size in enumerate(part.shape) if dim != along)) for part in tensor.parts}
    return len(kinds) == 1 and all(map(_fits, tensor.parts))


def _stack(operation: Any, converter: Any, found: Found, _: Shape) -> Found:
    target = converter.target_patterns[0] if len(found) == 1 else None
    return {target or pattern: [_stacked(operation.dim, tensors)] for pattern, tensors in found.items()}


def _stacked(dim: int, tensors: list[Tensor]) -> Tensor:
    if dim != 0:
        raise CheckpointError(f"{tensors[0].names[0]}: stacking along dimension {dim} is not supported")
    return Stacked(tuple(tensors))


def _concatenate(operation: Any, converter: Any, found: Found, _: Shape) -> Found:
    parts = [tensor for pattern in converter.source_patterns for tensor in found.get(pattern, [])]
    return {converter.target_patterns[0]: [Concatenated(tuple(parts), operation.dim)]}


def _chunk(operation: Any, converter: Any, found: Found, _: Shape) -> Found:
    ((whole,),) = found.values()
    targets, dim = converter.target_patterns, operation.dim
    size = -(-whole.shape[dim] // len(targets))
    starts = range(0, whole.shape[dim], size)
    return {
        target: [Sliced(whole, dim, start, min(start + size, whole.shape[dim]))]
        for target, start in zip(targets, starts, strict=False)
    }


def _transpose(operation: Any, converter: Any, found: Found, model: Shape) -> Found:
    ((whole,),) = found.values()
    first, second = operation.dim0, operation.dim1
    if not first or not second:
        raise CheckpointError(f"{whole.names[0]}: transposing dimensions {first} and {second} is not supported")
    target = converter.target_patterns[0] if len(converter.target_patterns) == 1 else converter.source_patterns[0]
    if operation.check_dims and whole.shape == model:
        return {target: [whole]}
    shape = list(whole.shape)
    shape[first], shape[second] = shape[second], shape[first]
    turned = Rearranged((whole,), whole.dtype, tuple(shape), lambda rows: np.swapaxes(rows, first, second))
    return {target: [turned]}


_OPERATIONS: dict[str, Callable[[Any, Any, Found, Shape], Found]] = {
    "MergeModulelist": _stack,
    "Concatenate": _concatenate,
    "Chunk": _chunk,
    "Transpose": _transpose,
}
