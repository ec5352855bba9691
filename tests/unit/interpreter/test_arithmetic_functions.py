"""The vector engine's functions against mpmath and float64."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from support import SOAK

from hyperdex_ir.interpreter import arithmetic
from hyperdex_ir.interpreter.arithmetic import unary

COUNT = 2_000_000 if SOAK else 60_000


def samples(low: float, high: float) -> np.ndarray:
    """Random bits, and uniform numbers in a range; special numbers last."""
    rng = np.random.default_rng(11)
    bits = rng.integers(0, 1 << 32, COUNT, dtype=np.uint64).astype(np.uint32).view(np.float32)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3.4028235e38, 1.1754944e-38]
    with arithmetic.quiet():
        return np.concatenate([bits, rng.uniform(low, high, COUNT), special]).astype(np.float32)


def error_in_ulp(got: np.ndarray, exact: np.ndarray) -> float:
    """Largest distance in units of the last place of the exact value; NaN and infinity must agree."""
    with arithmetic.quiet():
        rounded = exact.astype(np.float32)
    assert (np.isnan(got) == np.isnan(rounded)).all()
    infinite = np.isinf(got) | np.isinf(rounded)
    assert (got[infinite] == rounded[infinite]).all()
    finite = np.isfinite(got)
    ulp = np.maximum(np.spacing(np.abs(rounded[finite])), np.float32(2.0**-149)).astype(np.float64)
    return float(np.max(np.abs(got[finite].astype(np.float64) - exact[finite]) / ulp))


def run(name: str, x: np.ndarray) -> np.ndarray:
    with arithmetic.quiet():
        result = unary(name, x)
    assert result.dtype == np.float32
    return result


@pytest.mark.parametrize(
    ("name", "low", "high", "oracle", "limit"),
    [
        ("exp", -105, 90, np.exp, 1.0),
        ("tanh", -10, 10, np.tanh, 1.5),
        ("erf", -5, 5, np.vectorize(math.erf, otypes=[np.float64]), 2.0),
        ("sqrt", 0, 100, np.sqrt, 0.5),
        ("rsqrt", 0, 100, lambda x: 1 / np.sqrt(x), 1.5),
        ("sigmoid", -20, 20, lambda x: 1 / (1 + np.exp(-x)), 2.5),
    ],
)
def test_functions_are_close_to_exact(name: str, low: float, high: float, oracle: object, limit: float) -> None:
    x = samples(low, high)
    if name == "sigmoid":
        x = x[~(x < -87)]  # 1 + exp(-x) overflows below: the result is 0 there
    with arithmetic.quiet():
        exact = oracle(x.astype(np.float64))  # type: ignore[operator]
    assert error_in_ulp(run(name, x), exact) <= limit


def test_exp_against_arbitrary_precision_where_float64_is_no_oracle() -> None:
    """Around the ties of subnormal results."""
    mpmath.mp.prec = 120
    x = np.linspace(-104, -86, 2001).astype(np.float32)
    exact = [mpmath.exp(mpmath.mpf(float(v))) for v in x]
    pairs = zip(run("exp", x), exact, strict=True)
    units = np.array([float(abs(mpmath.mpf(float(got)) - e) * mpmath.mpf(2) ** 149) for got, e in pairs])
    size = np.array([float(e * mpmath.mpf(2) ** 126) for e in exact])  # 1: the smallest normal number
    assert units[size < 2.0**-8].max() <= 0.51
    assert units[size < 2].max() <= 1.0


def test_exp_at_the_ends_of_its_range() -> None:
    x = np.array([88.72283, 88.72284, 1000, -103.97208, -103.972084, -1000, np.inf, -np.inf, 0, -0.0], np.float32)
    with arithmetic.quiet():
        expected = np.exp(x.astype(np.float64)).astype(np.float32)
    got = run("exp", x)
    assert list(np.isinf(got)) == list(np.isinf(expected))
    assert list(got == 0) == list(expected == 0)
    assert got[8] == got[9] == 1


@pytest.mark.parametrize("name", ["tanh", "erf"])
def test_odd_functions_keep_the_sign_of_zero_and_saturate(name: str) -> None:
    x = np.array([0.0, 10.0, np.inf, 1e-40, 0.3, 0.9], np.float32)
    got, mirrored = run(name, x), run(name, -x)
    assert (got.view(np.uint32) ^ mirrored.view(np.uint32) == 0x80000000).all()
    assert list(got[:3]) == [0, 1, 1]


def test_functions_never_decrease() -> None:
    x = np.linspace(-12, 12, 200_001).astype(np.float32)
    assert (np.diff(run("exp", x)) >= 0).all()
    for name in ("tanh", "erf", "sigmoid"):
        y = run(name, x)
        steps = np.diff(y.astype(np.float64)) / np.spacing(np.abs(y[1:]).astype(np.float32)).astype(np.float64)
        assert steps.min() >= -2  # a unit or two where the polynomial hands over


def test_gelu_and_silu_are_the_sequences_written_down() -> None:
    f = np.float32
    x = np.random.default_rng(5).uniform(-6, 6, 1000).astype(f)
    assert (run("silu", x) == x / (f(1) + run("exp", -x))).all()
    assert (run("sigmoid", x) == f(1) / (f(1) + run("exp", -x))).all()
    assert (run("gelu", x) == (f(0.5) * x) * (f(1) + run("erf", x * f(0.70710678)))).all()
    inner = f(0.7978845608) * (x + f(0.044715) * ((x * x) * x))
    assert (run("gelu_tanh", x) == (f(0.5) * x) * (f(1) + run("tanh", inner))).all()


def test_selects_with_nan_and_zeros() -> None:
    nan, f = np.nan, np.float32
    relu = run("relu", np.array([-1, -0.0, 0.0, 2, nan], f))
    assert list(relu.view(np.uint32)) == [0, 0, 0, 0x40000000, 0]
    a, b = np.array([1, nan, 1, 0.0, -0.0], f), np.array([2, 3, nan, -0.0, 0.0], f)
    most, least = arithmetic.binary("max", a, b), arithmetic.binary("min", a, b)
    assert list(most.view(np.uint32)) == list(np.array([2, 3, nan, -0.0, 0.0], f).view(np.uint32))
    assert list(least[[0, 1]]) == [1, 3]
    assert np.signbit(least[3])
    assert not np.signbit(least[4])
    flipped = run("neg", np.array([0.0, -0.0, 1, nan], f)).view(np.uint32)
    assert list(flipped[:3]) == [0x80000000, 0, 0xBF800000]


@pytest.mark.parametrize(
    "row", [[1, 3, 2], [0.0, -0.0], [-0.0, 0.0], [-0.0, 0.0, -1], [np.nan, 1, 0], [5, np.nan, 1], [1, np.nan], [-3]]
)
def test_row_max_is_the_select_in_index_order(row: list[float]) -> None:
    x = np.array([row], np.float32)
    acc = x[0, 0]
    for value in x[0, 1:]:
        acc = acc if acc > value else value
    got = arithmetic.row_max(x)[0, 0]
    assert got.view(np.uint32) == acc.view(np.uint32) or (np.isnan(got) and np.isnan(acc))


def test_norms_match_float64() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((3, 2, 100)).astype(np.float32) * np.float32(3)
    weight, bias = (rng.standard_normal(100).astype(np.float32) for _ in range(2))
    wide = x.astype(np.float64)
    centred = wide - wide.mean(-1, keepdims=True)
    rms = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-5) * weight
    layer = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight + bias
    np.testing.assert_allclose(arithmetic.rms_norm(x, weight, 1e-5), rms, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(arithmetic.layer_norm(x, weight, bias, 1e-5), layer, rtol=1e-5, atol=1e-6)


def test_norms_round_step_by_step() -> None:
    f = np.float32
    x = np.random.default_rng(4).standard_normal((1, 70)).astype(f)
    weight = np.random.default_rng(5).standard_normal(70).astype(f)
    scale = f(1) / np.sqrt(arithmetic.row_sum(x * x) / f(70) + f(1e-5))
    assert (arithmetic.rms_norm(x, weight, 1e-5) == (x * scale) * weight).all()


@pytest.mark.parametrize("style", ["half", "interleaved"])
def test_rotary_turns_pairs_and_copies_the_rest(style: str) -> None:
    rng = np.random.default_rng(6)
    x = rng.standard_normal((2, 3, 10)).astype(np.float32)
    angle = rng.uniform(0, 6, (2, 8)).astype(np.float32)
    cos, sin = np.cos(angle), np.sin(angle)
    got = arithmetic.rotary(x, cos, sin, style)
    assert (got[..., 8:] == x[..., 8:]).all()
    for i in range(4):
        a, b = (i, i + 4) if style == "half" else (2 * i, 2 * i + 1)
        for head in range(3):
            first = x[:, head, a] * cos[:, a] + (-x[:, head, b]) * sin[:, a]
            second = x[:, head, b] * cos[:, b] + x[:, head, a] * sin[:, b]
            assert (got[:, head, a] == first).all()
            assert (got[:, head, b] == second).all()
