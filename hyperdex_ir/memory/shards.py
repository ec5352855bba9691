"""The part of a tensor that a device holds, as NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hyperdex_ir.memory.layout import Parameter, Shard


def local_part(tensor: np.ndarray, shard: Shard, device: int) -> np.ndarray:
    """Part of a tensor on a device: `shard.size` rows or columns, zeros beyond the extent.

    Shares memory with the tensor where nothing is padded.
    """
    held = shard.held(device)
    part = tensor[(slice(None),) * shard.dim + (slice(held.start, held.stop),)]
    if len(held) == shard.size:
        return part
    padding = [(0, 0)] * tensor.ndim
    padding[shard.dim] = (0, shard.size - len(held))
    return np.pad(part, padding)


def local_rows(parameter: Parameter, get: Callable[[str], np.ndarray], device: int) -> np.ndarray:
    """A parameter as a device holds it; `get` returns the whole tensor of a key."""
    if parameter.shards is None:
        parts = [np.asarray(get(key)) for key in parameter.keys]
    else:
        pairs = zip(parameter.keys, parameter.shards, strict=True)
        parts = [local_part(np.asarray(get(key)), shard, device) for key, shard in pairs]
    axis = 0 if parameter.shards is None else parameter.shards[0].dim
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis)
