"""The arithmetic of the machine on NumPy arrays: MAC trees, sums, norms, rotary positions.

`docs/arithmetic.md` says the same in words. Values are float32; elements of the matrix type are held by their bits, as
uint16. Callers use `quiet()`: overflow and NaN are results here, and the sticky flag reports them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from hyperdex_ir.interpreter import functions
from hyperdex_ir.interpreter.ops import NUMPY
from hyperdex_ir.isa import functions as table
from hyperdex_ir.isa.formats import FORMATS
from hyperdex_ir.isa.functions import check_complete
from hyperdex_ir.targets import LANES

_BLOCK_BYTES = 1 << 19  # bytes of widened weights in a block: with their products they stay in a core's cache


def quiet() -> np.errstate:
    """The context in which arithmetic runs: IEEE results without warnings."""
    return np.errstate(all="ignore")


# ---------------------------------------------------------------------------------------------------- MAC trees


def fold(lanes: np.ndarray) -> np.ndarray:
    """Sums 64 lanes, float32 [.., 64], in halves: 32, 16, 8, 4, 2, 1. float32 [..]."""
    half = LANES // 2
    while half:
        lanes = lanes[..., :half] + lanes[..., half:]
        half //= 2
    return lanes[..., 0]


def products_fit(weights: np.ndarray, activations: np.ndarray, matrix_type: str) -> bool:
    """Test that every product of these elements (bits, uint16) is a float32, so that multiply-then-add is fused.

    Products of f16 always are. Products of bf16 have 16 significant bits: they are float32 numbers when their exponents
    stay in range.
    """
    kind = FORMATS[matrix_type]
    if kind.exact_products or not (weights.size and activations.size):
        return True
    low, high = 0, 0
    for bits in (weights, activations):
        magnitudes = bits & np.uint16(0x7FFF)
        smallest = int((magnitudes - np.uint16(1)).min()) + 1  # zeros do not count: they wrap round to the largest
        low, high = low + kind.exponent(smallest), high + kind.exponent(int(magnitudes.max()))
    return kind.fits(low, high)


def accumulate(lanes: np.ndarray, weights: np.ndarray, activations: np.ndarray, exact: bool) -> None:
    """lanes = fma(weights, activations, lanes), in place, float32 arrays that broadcast to the shape of `lanes`.

    exact: the products are float32 numbers (`products_fit`). Otherwise product and sum are computed in float64 and
    rounded once; docs/arithmetic.md, section 3, says why that is a fused multiply-add.
    """
    if exact:
        lanes += weights * activations
        return
    lanes[...] = (lanes + weights.astype(np.float64) * activations).astype(np.float32)


def close_lanes(lanes: np.ndarray, exact: bool) -> np.ndarray:
    """Adds +0 to each lane, so that no lane is -0. Only an inexact product (bf16) can have made a -0."""
    return lanes if exact else lanes + np.float32(0)


def pad_lanes(x: np.ndarray) -> np.ndarray:
    """[.., k] as steps of 64 lanes, [.., steps, 64], padded with zeros."""
    k = x.shape[-1]
    steps = -(-k // LANES)
    if steps * LANES != k:
        padded = np.zeros((*x.shape[:-1], steps * LANES), x.dtype)
        padded[..., :k] = x
        x = padded
    return x.reshape(*x.shape[:-1], steps, LANES)


def mac(tiles: np.ndarray, x: np.ndarray, matrix_type: str) -> np.ndarray:
    """The matrix times each row of x, in MAC order.

    tiles: uint16 [groups, steps, trees, 64]; x: uint16 [rows, k], both of the matrix type, k at most 64 * steps.
    Result: float32 [rows, groups * trees].
    """
    groups, steps, trees, _ = tiles.shape
    activations = np.zeros((len(x), steps, LANES), np.uint16)
    activations.reshape(len(x), -1)[:, : x.shape[1]] = x
    repeated = np.tile(FORMATS[matrix_type].load(activations), (1, 1, trees))  # the same lanes for each tree
    result = np.empty((len(x), groups * trees), np.float32)
    size = max(1, _BLOCK_BYTES // max(1, steps * trees * LANES * 4))

    for start in range(0, groups, size):
        part = tiles[start : start + size]
        exact = products_fit(part, activations, matrix_type)
        _mac_block(part, repeated, result[:, start * trees : (start + size) * trees], matrix_type, exact)
    return result


def _mac_block(tiles: np.ndarray, repeated: np.ndarray, result: np.ndarray, matrix_type: str, exact: bool) -> None:
    """mac() for a few groups; repeated: float32 [rows, steps, trees * 64]; result: float32 [rows, groups * trees]."""
    groups, steps, trees, _ = tiles.shape
    weights = FORMATS[matrix_type].load(tiles).reshape(groups, steps, trees * LANES)
    products = np.empty_like(weights)
    for row, lanes_in in enumerate(repeated):
        if exact:
            # NumPy adds along an axis that is not the last one slab by slab, in order, from +0.
            np.multiply(weights, lanes_in, out=products)
            lanes = np.add.reduce(products, axis=1, initial=np.float32(0))
        else:
            lanes = np.zeros((groups, trees * LANES), np.float32)
            for step in range(steps):
                accumulate(lanes, weights[:, step], lanes_in[step], exact)
        result[row] = fold(close_lanes(lanes, exact).reshape(groups * trees, LANES))


def epilogue(
    y: np.ndarray,
    *,
    bias: np.ndarray | None = None,
    scale: float = 1.0,
    softcap: float = 0.0,
    activation: str = "none",
    gated: bool = False,
    times: np.ndarray | None = None,
    plus: np.ndarray | None = None,
) -> Iterator[np.ndarray]:
    """Values of the epilogue of a MAC, step by step: y, then the value after each step that is present. The last value
    is the result.

    y: [rows, n]. Where gated, y is [rows, 2n], as is the bias; everything from the scale on is [rows, n].
    """
    yield y
    if bias is not None:
        yield (y := y + bias)
    y, gate = np.split(y, 2, axis=-1) if gated else (y, None)
    if scale != 1.0:
        yield (y := scaled(y, scale))
    if softcap != 0.0:
        yield (y := unary("tanh", y / np.float32(softcap)) * np.float32(softcap))
    if activation != "none":
        yield (y := unary(activation, y))
    if gate is not None:
        yield (y := y * gate)
    if times is not None:
        yield (y := y * times)
    if plus is not None:
        yield y + plus


# ---------------------------------------------------------------------------------------------------- vector engine


def unary(name: str, x: np.ndarray) -> np.ndarray:
    """A function of `functions.UNARY`, elementwise."""
    return functions.UNARY[name](NUMPY, x)


def binary(name: str, a: np.ndarray, b: np.ndarray | np.float32) -> np.ndarray:
    """A function of `functions.BINARY`, elementwise with NumPy broadcasting."""
    return functions.BINARY[name](NUMPY, a, b)


def scaled(x: np.ndarray, scale: float) -> np.ndarray:
    """x * scale; x itself for a scale of 1, which means no scale."""
    return x if scale == 1.0 else x * np.float32(scale)


def row_sum(x: np.ndarray) -> np.ndarray:
    """Sums over the last axis in MAC order: lane j of 64 adds elements j, 64 + j, ..; then the fold. Keeps the axis."""
    steps = pad_lanes(x)
    lanes = np.zeros((*x.shape[:-1], LANES), np.float32)
    for step in range(steps.shape[-2]):
        lanes = lanes + steps[..., step, :]
    return fold(lanes)[..., None]


def row_mean(x: np.ndarray) -> np.ndarray:
    """row_sum divided by the count."""
    return row_sum(x) / np.float32(x.shape[-1])


def row_max(x: np.ndarray) -> np.ndarray:
    """acc = x[0]; acc = acc > x[i] ? acc : x[i] for i = 1, 2, .. over the last axis, which stays with size 1. The
    maximum of no elements is -infinity."""
    if not x.shape[-1]:
        return np.full((*x.shape[:-1], 1), -np.inf, np.float32)
    if not np.isnan(x).any():  # without NaN it is the last of the largest, which tells +0 from -0
        last = x.shape[-1] - 1 - np.argmax((x == x.max(-1, keepdims=True))[..., ::-1], axis=-1)
        return np.take_along_axis(x, last[..., None], -1)
    result = x[..., 0]
    for column in range(1, x.shape[-1]):
        result = binary("max", result, x[..., column])
    return result[..., None]


REDUCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"sum": row_sum, "mean": row_mean, "row_max": row_max}
"""Reductions by name."""
check_complete(REDUCTIONS, table.REDUCTIONS)


def rms_norm(x: np.ndarray, weight: np.ndarray | None, epsilon: float, unit_offset: bool = False) -> np.ndarray:
    """(x * rsqrt(mean(x * x) + epsilon)) * weight over the last axis; unit_offset: 1 + weight for the weight."""
    y = x * unary("rsqrt", row_mean(x * x) + np.float32(epsilon))
    if weight is None:
        return y
    return y * (np.float32(1) + weight if unit_offset else weight)


def layer_norm(
    x: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None, epsilon: float, unit_offset: bool = False
) -> np.ndarray:
    """c = x - mean(x); ((c * rsqrt(mean(c * c) + epsilon)) * weight) + bias over the last axis. unit_offset: as
    `rms_norm`."""
    y = rms_norm(x - row_mean(x), weight, epsilon, unit_offset)
    return y if bias is None else y + bias


def short_conv(rows: np.ndarray, taps: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """Weighted sums of each row and those before it, first tap times oldest row first, each step rounded.

    rows: [L - 1 + T, C], the first L - 1 of them from earlier steps; taps: [L, C]; bias: [C]. Result: [T, C].
    """
    count = len(rows) - len(taps) + 1
    y = rows[:count] * taps[0]
    for number, tap in enumerate(taps[1:], 1):
        y = y + rows[number : number + count] * tap
    return y if bias is None else y + bias


def rotary(x: np.ndarray, cos: np.ndarray, sin: np.ndarray, style: str) -> np.ndarray:
    """Rotates the first d columns: x[i] * cos[i] + r(x)[i] * sin[i]; the others are copied.

    x: [rows, heads, D]; cos, sin: [rows, d], d at most D. Pairs are (i, i + d/2) or (2i, 2i + 1); r(x) is the other
    element of the pair, negated for the first of the pair.
    """
    turned = cos.shape[-1]
    part = x[..., :turned]
    partner = np.empty_like(part)
    if style == "half":
        first, second = slice(0, turned // 2), slice(turned // 2, None)
    else:
        first, second = slice(0, None, 2), slice(1, None, 2)
    partner[..., first] = unary("neg", part[..., second])
    partner[..., second] = part[..., first]
    y = part * cos[:, None, :] + partner * sin[:, None, :]
    return np.concatenate([y, x[..., turned:]], axis=-1)
