"""Arithmetic on random shapes and bits: nothing but values may matter."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SOAK

from hyperdex_ir.interpreter import arithmetic, attention
from hyperdex_ir.isa.formats import BF16, F16, FORMATS
from hyperdex_ir.memory.tiles import from_tiles, tile_view

settings.register_profile("arithmetic", max_examples=2000 if SOAK else 60, deadline=None)
PROFILE = settings.get_profile("arithmetic")
MATRIX_TYPES = st.sampled_from(["f16", "bf16"])


def bits(rng: np.random.Generator, shape: tuple[int, ...], matrix_type: str, wild: bool) -> np.ndarray:
    """Ordinary numbers, or any finite bits."""
    if not wild:
        return FORMATS[matrix_type].round(rng.standard_normal(shape).astype(np.float32))
    result = rng.integers(0, 1 << 16, shape).astype(np.uint16)
    exponent = np.uint16(0x7C00 if matrix_type == "f16" else 0x7F80)
    result[(result & exponent) == exponent] &= np.uint16(0xBFFF)
    return result


@PROFILE
@given(st.integers(0, 1 << 30), MATRIX_TYPES, st.booleans(), st.integers(1, 300), st.integers(1, 40))
def test_padding_trees_and_other_rows_do_not_matter(seed: int, kind: str, wild: bool, k: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    weights, x = bits(rng, (n, k), kind, wild), bits(rng, (3, k), kind, wild)
    with arithmetic.quiet():
        whole = arithmetic.mac(tile_view(weights, 16), x, kind)[:, :n]
        wider = np.pad(weights, ((0, 5), (0, 70)))
        alone = arithmetic.mac(tile_view(wider, 32), x[1:2], kind)[:, :n]
    assert alone.tobytes() == whole[1:2].tobytes() or np.isnan(whole[1]).any()


@PROFILE
@given(st.integers(0, (1 << 16) - 1), st.integers(0, (1 << 16) - 1), st.integers(0, (1 << 32) - 1))
def test_bf16_step_rounds_the_exact_value_once(w: int, x: int, a: int) -> None:
    """Both neighbours of the result are no nearer to the exact value."""
    operands = np.array([w, x], np.uint16)
    values = BF16.load(operands)
    lanes = np.array([a], np.uint32).view(np.float32)
    if not (np.isfinite(values).all() and np.isfinite(lanes).all()):
        return
    exact = Fraction(float(values[0])) * Fraction(float(values[1])) + Fraction(float(lanes[0]))
    fits = arithmetic.products_fit(operands[:1], operands[1:], "bf16")
    with arithmetic.quiet():
        arithmetic.accumulate(lanes, values[:1], values[1:], fits)
    if not np.isfinite(lanes[0]):
        assert abs(exact) >= Fraction(2) ** 128 - Fraction(2) ** 103
        return
    distance = abs(Fraction(float(lanes[0])) - exact)
    with arithmetic.quiet():
        neighbours = np.nextafter(lanes[0], np.float32([np.inf, -np.inf]))
    for neighbour in neighbours[np.isfinite(neighbours)]:
        other = abs(Fraction(float(neighbour)) - exact)
        assert distance < other or (distance == other and int(lanes.view(np.uint32)[0]) % 2 == 0)


@PROFILE
@given(
    st.integers(0, 1 << 30), st.integers(1, 130), st.integers(1, 6), st.integers(1, 70), st.sampled_from([0, 1, 9, 64])
)
def test_attention_does_not_depend_on_chunking(seed: int, before: int, rows: int, size: int, window: int) -> None:
    rng = np.random.default_rng(seed)
    length = before + rows
    keys = tile_view(np.zeros((length + 3, size), np.uint16), 16).copy()
    values = tile_view(np.zeros((size, length + 3), np.uint16), 16).copy()
    for write, tiles in ((attention.write_keys, keys), (attention.write_values, values)):
        write(tiles, 0, bits(rng, (length, size), "f16", False))
    query = bits(rng, (rows, size), "f16", False)

    def attend(first: int, stop: int) -> np.ndarray:
        reach = attention.span(before + first, stop - first, window)
        scores = attention.scores(query[first:stop], keys, reach, 0.125, 0.0, "f16")
        weights = F16.round(attention.softmax(scores, reach))
        return attention.values(weights, values, reach, "f16")[:, :size]

    whole = attend(0, rows)
    parts = np.concatenate([attend(row, row + 1) for row in range(rows)])
    assert whole.tobytes() == parts.tobytes()


@PROFILE
@given(st.integers(1, 70), st.integers(1, 200), st.sampled_from([1, 16, 32]))
def test_tiles_round_trip(n: int, k: int, trees: int) -> None:
    rows = np.arange(n * k, dtype=np.uint16).reshape(n, k)
    assert (from_tiles(tile_view(rows, trees), n, k) == rows).all()
