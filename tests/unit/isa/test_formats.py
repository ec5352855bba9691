"""Matrix formats against torch, which knows the same types, and the names by which others call types of numbers."""

from __future__ import annotations

import runpy
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch

from hyperdex_ir.interpreter.arithmetic import quiet
from hyperdex_ir.isa.formats import ELEMENTS, FLOATS, FORMATS, PUBLISHED, MatrixFormat, matrix_type_of
from hyperdex_ir.native import convert
from hyperdex_ir.targets import BEAT_BYTES, STREAM_LANES, TREE_CHANNELS

ALL = pytest.mark.parametrize("kind", FORMATS.values(), ids=FORMATS)
PATTERNS = np.arange(1 << 16, dtype=np.uint16)


def torch_load(kind: MatrixFormat, bits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(bits.view(np.int16)).view(getattr(torch, kind.torch)).float().numpy()


def torch_round(kind: MatrixFormat, x: np.ndarray) -> np.ndarray:
    return torch.from_numpy(x).to(getattr(torch, kind.torch)).view(torch.int16).numpy().view(np.uint16)


def neighbours(x: np.ndarray) -> np.ndarray:
    """Numbers, and the float32 right below and above each."""
    bits = x.view(np.uint32)
    return np.concatenate([bits - 1, bits, bits + 1]).view(np.float32)


@ALL
def test_every_pattern_loads_as_torch_has_it(kind: MatrixFormat) -> None:
    expected, found = torch_load(kind, PATTERNS), kind.load(PATTERNS)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    numbers = ~np.isnan(expected)
    assert (found.view(np.uint32) == expected.view(np.uint32))[numbers].all()
    assert np.isnan(found[~numbers]).all()
    assert (~numbers).sum() == 2 * ((1 << kind.mantissa_bits) - 1)
    assert (kind.is_finite(PATTERNS) == np.isfinite(expected)).all()
    finite = PATTERNS[np.isfinite(expected)]  # which are loaded in another way than those with a NaN among them
    assert (kind.load(finite[::-1]).view(np.uint32) == torch_load(kind, finite)[::-1].view(np.uint32)).all()


@ALL
def test_rounds_to_nearest_even_as_torch_does(kind: MatrixFormat) -> None:
    magnitudes = torch_load(kind, np.arange(kind.infinity, dtype=np.uint16))
    halfway = (magnitudes[:-1].astype(np.float64) + magnitudes[1:]) / 2  # exact in float32
    ties = halfway.astype(np.float32)
    assert (ties == halfway).all()
    overflow = np.float32(kind.largest) + np.float32(kind.largest - float(magnitudes[-2])) / 2
    x = neighbours(np.concatenate([magnitudes[1:], ties, [overflow]]).astype(np.float32))
    x = np.concatenate([x, -x, np.float32([0.0, -0.0, np.inf, -np.inf])])
    with quiet():
        found = kind.round(x)
    assert found.dtype == kind.stored
    assert (found == torch_round(kind, x)).all()
    even = kind.round(ties)
    assert not (even & 1).any()


@ALL
def test_rounds_any_float32_as_torch_does(kind: MatrixFormat) -> None:
    x = np.random.default_rng(7).integers(0, 1 << 32, 1 << 18, np.uint32).view(np.float32)
    with quiet():
        found, expected = kind.round(x), torch_round(kind, x)
    numbers = ~np.isnan(x)
    assert (found == expected)[numbers].all()
    assert np.isnan(kind.load(found[~numbers])).all()
    assert (~numbers).any()


@ALL
def test_range(kind: MatrixFormat) -> None:
    facts = torch.finfo(getattr(torch, kind.torch))
    assert (kind.bits, kind.largest) == (facts.bits, facts.max)
    assert kind.load(np.array([kind.infinity], np.uint16))[0] == np.inf
    assert np.isnan(kind.load(np.array([kind.nan], np.uint16))).all()
    with quiet():
        assert kind.round(np.array([kind.largest], np.float32))[0] == kind.infinity - 1
        assert not kind.is_finite(kind.round(np.float32([np.finfo(np.float32).max, np.inf, np.nan]))).any()


@ALL
def test_products_are_exact_where_the_format_says_so(kind: MatrixFormat) -> None:
    finite = kind.load(PATTERNS[kind.is_finite(PATTERNS)])
    extremes = np.sort(np.abs(finite[finite != 0]))[[0, 1, -2, -1]].astype(np.float64)
    products = np.outer(extremes, extremes)
    with quiet():
        exact = (products.astype(np.float32) == products).all()
    assert exact == kind.exact_products


@ALL
def test_a_step_of_a_tree_is_a_beat_of_each_of_its_channels(kind: MatrixFormat) -> None:
    assert kind.part_bytes == kind.bytes_of(STREAM_LANES) == STREAM_LANES * kind.bits // 8
    per_beat = BEAT_BYTES // kind.part_bytes
    assert [kind.stripes(columns) for columns in (1, 64 * per_beat, 64 * per_beat + 1)] == [1, 1, 2]
    assert kind.stored.itemsize * STREAM_LANES * TREE_CHANNELS == kind.bytes_of(64)


def test_names_are_those_of_safetensors_and_torch() -> None:
    assert len(PUBLISHED) == len(ELEMENTS)
    for name, kind in PUBLISHED.items():
        torch_type = getattr(torch, kind.torch)
        assert safetensors.torch._TYPES[name] == torch_type
        assert torch.empty((), dtype=torch_type).element_size() == kind.dtype.itemsize
        assert ELEMENTS[kind.name] is kind


def test_weights_of_a_type_that_is_no_format_become_f16() -> None:
    assert [matrix_type_of(name) for name in FLOATS] == ["f16", "bf16", "f16", "f16"]
    assert [matrix_type_of(name) for name in ("bfloat16", "float16", "float32", None, [])] == ["bf16", *["f16"] * 4]


def test_a_format_without_native_code_or_the_other_way_round_fails_at_import(monkeypatch: pytest.MonkeyPatch) -> None:
    runpy.run_path(str(convert.__file__))
    monkeypatch.setitem(FORMATS, "f12", replace(FORMATS["f16"], name="f12"))
    with pytest.raises(ImportError, match="there are f16, bf16, f12"):
        runpy.run_path(str(convert.__file__))
    monkeypatch.undo()
    monkeypatch.delitem(FORMATS, "bf16")
    with pytest.raises(ImportError, match="f16, bf16, there are f16"):
        runpy.run_path(str(convert.__file__))
