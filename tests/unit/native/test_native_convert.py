"""The native executor's conversions between f32 and the matrix types, with and without half conversions in hardware."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from hyperdex_ir.isa.formats import FORMATS
from hyperdex_ir.native.codegen import Library, build, new_module
from hyperdex_ir.native.convert import load_widened, narrow
from hyperdex_ir.native.emit import F32, I16, I64, POINTER, Emitter, define, vector
from hyperdex_ir.native.features import Features, available

TYPES = ("f16", "bf16")
HALVES = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)


def _sets() -> dict[str, Features]:
    """Every feature set of this computer, and each without its half conversions."""
    sets = {item.name: item for item in available()}
    integers = {f"{name}, integers": replace(item, has_half=False) for name, item in sets.items()}
    return {**sets, **integers}


SETS = _sets()


@pytest.fixture(scope="module", params=SETS)
def library(request: pytest.FixtureRequest) -> Library:
    """widen_<type>(source, target, count) and narrow_<type>(source, target, count); count: whole vectors."""
    features = SETS[request.param]
    module, lanes = new_module(features), features.lanes
    for matrix_type in TYPES:
        for name, source_type, target_type in (("widen", I16, F32), ("narrow", F32, I16)):
            function = define(module, f"{name}_{matrix_type}", I64, (POINTER, POINTER, I64), public=True)
            source, target, count = function.args
            e = Emitter(function, features)
            with e.loop(0, count, lanes) as index:
                at = e.element(source, index, source_type)
                if name == "widen":
                    value = load_widened(e, at, 0, lanes, matrix_type)
                else:
                    value = narrow(e, e.load(at, vector(F32, lanes)), matrix_type)
                e.store(value, e.element(target, index, target_type))
            e.builder.ret(I64(0))
    return build(module, features)


def convert(library: Library, name: str, source: np.ndarray, dtype: type[np.generic]) -> np.ndarray:
    """Runs a conversion; pads to whole vectors."""
    padded = np.zeros(-(-source.size // 16) * 16, source.dtype)
    padded[: source.size] = source
    target = np.zeros(padded.size, dtype)
    call: Callable[..., int] = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(
        library.address(name)
    )
    call(padded.ctypes.data, target.ctypes.data, padded.size)
    return target[: source.size]


def check_narrow(library: Library, matrix_type: str, bits: np.ndarray) -> None:
    """Rounds float32 by their bits, and compares with NumPy; NaN payloads do not count."""
    x = np.ascontiguousarray(bits, np.uint32).view(np.float32)
    with np.errstate(all="ignore"):
        expected = FORMATS[matrix_type].round(x)
    result = convert(library, f"narrow_{matrix_type}", x, np.uint16)
    is_nan = np.isnan(x)
    assert np.array_equal(result[~is_nan], expected[~is_nan])
    assert np.isnan(FORMATS[matrix_type].load(result[is_nan])).all()


@pytest.mark.parametrize("matrix_type", TYPES)
def test_widens_every_half(library: Library, matrix_type: str) -> None:
    result = convert(library, f"widen_{matrix_type}", HALVES, np.float32)
    expected = FORMATS[matrix_type].load(HALVES)
    is_nan = np.isnan(expected)
    assert np.array_equal(result.view(np.uint32)[~is_nan], expected.view(np.uint32)[~is_nan])
    assert np.isnan(result[is_nan]).all()


@pytest.mark.parametrize("matrix_type", TYPES)
def test_rounds_at_every_boundary(library: Library, matrix_type: str) -> None:
    """Every half, the middle between it and the next, and the float32 on either side of both."""
    values = FORMATS[matrix_type].load(HALVES)
    values = np.sort(values[np.isfinite(values)].astype(np.float64))
    beyond = 65536.0 if matrix_type == "f16" else 2.0**128
    neighbours = np.concatenate([[-beyond], values, [beyond]])
    middles = ((neighbours[1:] + neighbours[:-1]) / 2).astype(np.float32)
    at = np.concatenate([values.astype(np.float32), middles]).view(np.uint32)
    check_narrow(library, matrix_type, np.concatenate([at - np.uint32(1), at, at + np.uint32(1)]))


@pytest.mark.parametrize("matrix_type", TYPES)
def test_rounds_random_bits(library: Library, matrix_type: str) -> None:
    bits = np.random.default_rng(1).integers(0, 1 << 32, 1_000_000, dtype=np.uint32)
    check_narrow(library, matrix_type, bits)
    check_narrow(library, matrix_type, (np.arange(1 << 16, dtype=np.uint32) << 16) + np.uint32(0x7FFF))


@pytest.mark.parametrize("matrix_type", TYPES)
def test_every_half_comes_back(library: Library, matrix_type: str) -> None:
    wide = convert(library, f"widen_{matrix_type}", HALVES, np.float32)
    result = convert(library, f"narrow_{matrix_type}", wide, np.uint16)
    is_nan = np.isnan(wide)
    assert np.array_equal(result[~is_nan], HALVES[~is_nan])
