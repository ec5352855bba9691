"""Conversion of stored values to another type: each value is checked and rounded to nearest."""

from __future__ import annotations

import numpy as np

from hyperdex_ir.errors import CheckpointError
from hyperdex_ir.isa.formats import BF16, ELEMENTS, PUBLISHED, ElementType

#: Number of elements that are converted together; their intermediate results stay in the CPU's cache.
_STEP = 1 << 17


def convert(values: np.ndarray, source: str, wanted: str, name: str, first_row: int = 0) -> np.ndarray:
    """Values of type `source` as type `wanted`, rounded to nearest, ties to even.

    `name` and `first_row`, the index of the block's first row in its tensor, are for the message.
    Raises CheckpointError, naming tensor, value and index, for a NaN, an infinity, or a value outside the range.
    """
    kind, given = ELEMENTS[wanted], ELEMENTS[source]
    if kind.dtype.kind == "i":
        return values.astype(kind.dtype, copy=False)
    _require_finite(values, given, given, values, name, first_row)
    if source == wanted:
        return values
    with np.errstate(over="ignore", under="ignore"):
        result = kind.round(given.load(values)).view(kind.dtype)
    _require_finite(result, kind, given, values, name, first_row)
    return result


def lost_to_underflow(values: np.ndarray, source: str, result: np.ndarray, wanted: str) -> int:
    """Number of values other than zero that have become zero in the result of `convert`."""
    kind = ELEMENTS[wanted]
    if source == wanted or kind.dtype.kind == "i":
        return 0
    magnitudes = result.view(f"u{kind.item_bytes}") << 1
    return int(np.count_nonzero(ELEMENTS[source].load(values)) - np.count_nonzero(magnitudes))


def are_equal(pair: tuple[np.ndarray, np.ndarray], types: tuple[str, str], wanted: str) -> bool:
    """Test for two arrays of equal values once they are of the type `wanted`. types: their published types."""
    if types[0] == types[1] and np.array_equal(pair[0], pair[1]):
        return True
    kind = ELEMENTS[wanted]
    with np.errstate(over="ignore", under="ignore"):
        first, second = (
            kind.load(kind.round(PUBLISHED[dtype].load(values))) for dtype, values in zip(types, pair, strict=True)
        )
    return np.array_equal(first, second)


def _require_finite(
    checked: np.ndarray, kind: ElementType, source: ElementType, values: np.ndarray, name: str, first_row: int
) -> None:
    flat = checked.reshape(-1)
    if all(kind.is_finite(flat[start : start + _STEP]).all() for start in range(0, flat.size, _STEP)):
        return
    finite = kind.is_finite(checked)
    position = np.unravel_index(int(np.argmin(finite)), finite.shape)
    value = float(source.load(values)[position] if values.dtype.kind == "u" else values[position])
    index = [int(i) for i in position]
    index[:1] = [first_row + i for i in index[:1]]
    if np.isfinite(value):
        raise CheckpointError(
            f"{name}: the value {value:g} at {index} is outside the range of {kind.name}",
            f"compile with --dtype {BF16.name}",
        )
    raise CheckpointError(f"{name}: the value at {index} is {value:g}", "the checkpoint is damaged")
