"""MAC trees, sums and folds against exact rational arithmetic."""

from __future__ import annotations

import math
import struct
from fractions import Fraction

import numpy as np
import pytest

from hyperdex_ir.interpreter import arithmetic
from hyperdex_ir.isa.formats import BF16, F16, FORMATS
from hyperdex_ir.memory.tiles import from_tiles, tile_view, to_tiles
from hyperdex_ir.targets import load_target


def round_f32(value: Fraction) -> np.float32:
    """The float32 nearest to an exact value, ties to even; an exact zero is +0."""
    if value == 0:
        return np.float32(0)
    sign, size = (-1 if value < 0 else 1), abs(value)
    exponent = max(math.floor(math.log2(size.numerator) - math.log2(size.denominator)) + 1, -125)
    while exponent > -125 and size < Fraction(2) ** (exponent - 1):
        exponent -= 1
    while size >= Fraction(2) ** exponent:
        exponent += 1
    quantum = Fraction(2) ** (exponent - 24)
    rounded = round(size / quantum) * quantum  # Fraction's round is to even
    if rounded >= Fraction(2) ** 128:
        return np.float32(sign * math.inf)
    return np.float32(math.copysign(float(rounded), sign))


def scalar(bits: int, matrix_type: str) -> float:
    if matrix_type == "f16":
        return struct.unpack("<e", struct.pack("<H", bits))[0]
    return struct.unpack("<f", struct.pack("<I", bits << 16))[0]


def fused(w: float, x: float, acc: np.float32) -> np.float32:
    """fma(w, x, acc) with one rounding."""
    if all(map(math.isfinite, (w, x, float(acc)))):
        exact = Fraction(w) * Fraction(x) + Fraction(float(acc))
        if exact == 0:
            both_negative = math.copysign(1, w) * math.copysign(1, x) < 0 and math.copysign(1, acc) < 0
            return np.float32(-0.0 if both_negative and w * x == 0 == acc else 0.0)
        return round_f32(exact)
    with np.errstate(all="ignore"):
        return np.float32(np.float64(w) * np.float64(x) + np.float64(acc))


def scalar_mac(weights: np.ndarray, x: np.ndarray, matrix_type: str) -> np.float32:
    """One MAC tree, one step at a time: bits of K weights and K activations."""
    k = len(x)
    lanes = []
    for lane in range(64):
        acc = np.float32(0)
        for position in range(lane, -(-k // 64) * 64, 64):
            inside = position < k
            w, a = (scalar(int(v[position]), matrix_type) if inside else 0.0 for v in (weights, x))
            acc = fused(w, a, acc)
        lanes.append(acc + np.float32(0))
    half = 32
    with np.errstate(all="ignore"):
        while half:
            lanes = [lanes[i] + lanes[i + half] for i in range(half)]
            half //= 2
    return lanes[0]


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal bits, any NaN being as good as another."""
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    return bool(((a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b))).all())


def check_mac(weights: np.ndarray, x: np.ndarray, matrix_type: str, trees: int = 16) -> None:
    expected = np.array([[scalar_mac(w, row, matrix_type) for w in weights] for row in x])
    with arithmetic.quiet():
        got = arithmetic.mac(tile_view(weights, trees), x, matrix_type)[:, : len(weights)]
    assert same_bits(got, expected)


@pytest.mark.parametrize("matrix_type", ["f16", "bf16"])
@pytest.mark.parametrize("k", [1, 63, 64, 130, 192])
def test_mac_of_ordinary_numbers(matrix_type: str, k: int) -> None:
    rng = np.random.default_rng(k)
    weights, x = (
        FORMATS[matrix_type].round(rng.standard_normal(shape).astype(np.float32)) for shape in ((3, k), (2, k))
    )
    check_mac(weights, x, matrix_type)


@pytest.mark.parametrize("matrix_type", ["f16", "bf16"])
@pytest.mark.parametrize("special", [False, True])
def test_mac_of_any_bits(matrix_type: str, special: bool) -> None:
    """Uniform bits: subnormals, huge numbers, -0, and (special) infinities and NaN."""
    rng = np.random.default_rng(7)
    exponent = 0x7C00 if matrix_type == "f16" else 0x7F80
    for _ in range(12):
        weights, x = (rng.integers(0, 1 << 16, shape).astype(np.uint16) for shape in ((2, 130), (1, 130)))
        if not special:
            weights[(weights & exponent) == exponent] &= np.uint16(0xBFFF)
            x[(x & exponent) == exponent] &= np.uint16(0xBFFF)
        check_mac(weights, x, matrix_type)


def test_bf16_products_below_float32_are_fused() -> None:
    """2^-100 * 2^-60 is no float32, but moves a sum that lies on a tie."""
    bits = lambda value: int(np.float32(value).view(np.uint32)) >> 16  # noqa: E731
    x = np.zeros((1, 192), np.uint16)
    weights = np.zeros((1, 192), np.uint16)
    x[0, [0, 64, 128]] = [bits(2.0**-60), bits(2.0**-60), bits(2.0**-75)]
    weights[0, [0, 64, 128]] = [bits(1.9921875 * 2.0**-88), bits(2.0**-89), bits(2.0**-76)]
    check_mac(weights, x, "bf16")
    tiny = np.full((1, 64), bits(2.0**-100), np.uint16)
    check_mac(tiny | np.uint16(0x8000), tiny, "bf16")


def test_bf16_products_above_float32_do_not_overflow_alone() -> None:
    bits = lambda value: int(np.float32(value).view(np.uint32)) >> 16  # noqa: E731
    x, weights = np.zeros((1, 128), np.uint16), np.zeros((1, 128), np.uint16)
    x[0, [0, 64]] = bits(2.0**64)
    weights[0, [0, 64]] = [bits(-(2.0**63)), bits(2.0**64)]
    check_mac(weights, x, "bf16")
    with arithmetic.quiet():
        assert arithmetic.mac(tile_view(weights, 16), x, "bf16")[0, 0] == np.float32(2.0**127)


@pytest.mark.parametrize("matrix_type", ["f16", "bf16"])
def test_trees_and_rows_and_blocks_do_not_matter(matrix_type: str) -> None:
    rng = np.random.default_rng(3)
    weights = FORMATS[matrix_type].round(rng.standard_normal((700, 576)).astype(np.float32))
    x = FORMATS[matrix_type].round(rng.standard_normal((3, 576)).astype(np.float32))
    whole = arithmetic.mac(tile_view(weights, 16), x, matrix_type)[:, :700]
    for trees in (1, 32):
        assert same_bits(arithmetic.mac(tile_view(weights, trees), x, matrix_type)[:, :700], whole)
    for row in range(3):
        assert same_bits(arithmetic.mac(tile_view(weights, 16), x[row : row + 1], matrix_type)[0, :700], whole[row])
    assert same_bits(whole[1, 40], scalar_mac(weights[40], x[1], matrix_type))


@pytest.mark.parametrize("matrix_type", ["f16", "bf16"])
def test_every_element_widens_and_rounds_back(matrix_type: str) -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    wide = FORMATS[matrix_type].load(bits)
    expected = np.array([scalar(int(b), matrix_type) for b in bits], np.float32)
    assert same_bits(wide, expected)
    finite = np.isfinite(wide)
    assert same_bits(FORMATS[matrix_type].load(bits[finite]), expected[finite])
    back = FORMATS[matrix_type].round(wide)
    assert (back == bits)[~np.isnan(wide)].all()


def test_rounding_to_bf16_is_to_nearest_even() -> None:
    for value, expected in {
        0x3F808000: 0x3F80, 0x3F818000: 0x3F82, 0x3F808001: 0x3F81, 0x7F7FFFFF: 0x7F80, 0x00008000: 0x0000,
        0x80018000: 0x8002, 0xFF800000: 0xFF80,
    }.items():  # fmt: skip
        x = np.array([value], np.uint32).view(np.float32)
        assert BF16.round(x)[0] == expected


def test_f16_overflow_is_infinite() -> None:
    x = np.array([65519.0, 65520.0, -65520.0], np.float32)
    with arithmetic.quiet():
        got = F16.round(x)
    assert list(got) == [0x7BFF, 0x7C00, 0xFC00]


@pytest.mark.parametrize("columns", [1, 5, 64, 65, 200])
def test_sums_add_in_lanes_and_fold(columns: int) -> None:
    x = np.random.default_rng(columns).standard_normal(columns).astype(np.float32)
    lanes = [np.float32(0)] * 64
    for index, value in enumerate(x):
        lanes[index % 64] = lanes[index % 64] + value
    half = 32
    while half:
        lanes = [lanes[i] + lanes[i + half] for i in range(half)]
        half //= 2
    assert same_bits(arithmetic.row_sum(x[None, :])[0], lanes[0])
    assert same_bits(arithmetic.row_mean(x[None, :])[0], lanes[0] / np.float32(columns))


@pytest.mark.parametrize("name", ["u55c", "asic"])
def test_tiles_round_trip_and_follow_the_formula(name: str) -> None:
    target = load_target(name)
    rows = np.arange(37 * 100, dtype=np.uint16).reshape(37, 100)
    tiles = to_tiles(rows, target)
    assert (from_tiles(tiles, 37, 100) == rows).all()
    steps, trees = 2, target.trees
    for row, column in ((0, 0), (36, 99), (17, 64), (33, 5)):
        index = ((row // trees * steps + column // 64) * trees + row % trees) * 64 + column % 64
        assert tiles.reshape(-1)[index] == rows[row, column]
    assert tiles.size == -(-37 // trees) * trees * 128
    assert int(tiles.sum(dtype=np.int64)) == int(rows.sum(dtype=np.int64))
