"""Number formats of stored tensors: f16, f32 and f64 as NumPy has them, bf16 as uint16 bit patterns, i64."""

from __future__ import annotations

import numpy as np

from hyperdex_ir.errors import CheckpointError

#: Element type in memory of each stored type.
STORAGE = {
    "f16": np.dtype("<f2"),
    "bf16": np.dtype("<u2"),
    "f32": np.dtype("<f4"),
    "i64": np.dtype("<i8"),
}
#: Elements that are looked at together: what is made of them stays in the cache.
_STEP = 1 << 17
_EXPONENT = {"f16": np.uint16(0x7C00), "bf16": np.uint16(0x7F80)}


def to_f32(values: np.ndarray, dtype: str) -> np.ndarray:
    """Values of a stored type as float32; exact, except that f64 is rounded."""
    if dtype == "bf16":
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return values.astype(np.float32, copy=False)


def round_to_bf16(values: np.ndarray) -> np.ndarray:
    """float32 rounded to bfloat16, nearest, ties to even: uint16 bit patterns. Overflow becomes infinity; no NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)).astype(np.uint16)


def is_finite(values: np.ndarray, dtype: str) -> np.ndarray:
    """Elementwise: neither NaN nor infinity."""
    if dtype in _EXPONENT:
        exponent = _EXPONENT[dtype]
        return (values.view(np.uint16) & exponent) != exponent
    return np.isfinite(values)


def convert(values: np.ndarray, source: str, wanted: str, name: str, first_row: int = 0) -> np.ndarray:
    """Values of type `source` as type `wanted`, rounded to nearest, ties to even.

    `name` and `first_row`, the index of the block's first row in its tensor, are for the message.
    Raises CheckpointError, naming tensor, value and index, for a NaN, an infinity, or a value outside the range.
    """
    if wanted == "i64":
        return values.astype(np.int64, copy=False)
    _require_finite(values, source, source, values, name, first_row)
    if source == wanted:
        return values
    with np.errstate(over="ignore", under="ignore"):
        values32 = to_f32(values, source)
        result = round_to_bf16(values32) if wanted == "bf16" else values32.astype(STORAGE[wanted], copy=False)
    _require_finite(result, wanted, source, values, name, first_row)
    return result


def _require_finite(
    checked: np.ndarray, dtype: str, source: str, values: np.ndarray, name: str, first_row: int
) -> None:
    flat = checked.reshape(-1)
    if all(is_finite(flat[start : start + _STEP], dtype).all() for start in range(0, flat.size, _STEP)):
        return
    finite = is_finite(checked, dtype)
    position = np.unravel_index(int(np.argmin(finite)), finite.shape)
    value = float(to_f32(values, source)[position] if source == "bf16" else values[position])
    index = [int(i) for i in position]
    index[:1] = [first_row + i for i in index[:1]]
    if np.isfinite(value):
        raise CheckpointError(
            f"{name}: the value {value:g} at {index} is outside the range of {dtype}", "compile with --dtype bf16"
        )
    raise CheckpointError(f"{name}: the value at {index} is {value:g}", "the checkpoint is damaged")
