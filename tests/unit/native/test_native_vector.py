"""The native executor's vector kernels and instructions against the interpreter: the same bits, flags and faults."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import SOAK
from support.programs.kernels import CHUNK, FEATURES, SPECIAL, WORDS, assert_same, compile_kernels, numbers, same_bits
from support.programs.machine_programs import WIDTH, memory_map, op

from hyperdex_ir.interpreter import arithmetic, functions
from hyperdex_ir.isa.instructions import BINARY, REDUCTIONS, ROTARY_STYLES, UNARY
from hyperdex_ir.isa.operands import HbmRef, LmuRef, ViewRef
from hyperdex_ir.native import features as engine_features
from hyperdex_ir.native import rows as kernels
from hyperdex_ir.native.emit import F32, I64, POINTER, Emitter
from hyperdex_ir.native.kernels import kernel
from hyperdex_ir.native.llvm_ops import LlvmOps

COUNT = 1_000_000 if SOAK else 40_000
NOT_FINITE = 0x7F800000


def samples(rng: np.random.Generator) -> np.ndarray:
    """Random bits, numbers in the ranges where functions change, subnormals; each special number next to each other."""
    bits = rng.integers(0, 1 << 32, COUNT, dtype=np.uint64).astype(np.uint32).view(np.float32)
    limits = ((-110, 95), (-6, 6), (-1e-38, 1e-38))
    ranges = [rng.uniform(low, high, COUNT).astype(np.float32) for low, high in limits]
    return np.concatenate([bits, *ranges, np.repeat(SPECIAL, len(SPECIAL))])


def partners(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    special = len(SPECIAL) ** 2
    return np.concatenate([rng.permutation(x[:-special]), np.tile(SPECIAL, len(SPECIAL))])


@pytest.mark.parametrize("name", FEATURES)
def test_functions_have_the_bits_of_numpy_on_every_kind_of_vector(name: str) -> None:
    features = engine_features.FEATURES[name]
    rng = np.random.default_rng(3)
    x = samples(rng)
    y = partners(rng, x)
    one = [lambda e, n=n: kernels.unary_row(e, n) for n in UNARY]
    two = [lambda e, n=n: kernels.binary_row(e, n) for n in BINARY]
    calls = compile_kernels(features, [*one, *two])
    room = np.zeros(64, np.float32)
    a, b = np.concatenate([x, room]), np.concatenate([y, room])
    with arithmetic.quiet():
        for function in UNARY:
            result = np.empty_like(x)
            bits = calls[f"unary_{function}"](result, a, x.size)
            expected = arithmetic.unary(function, x)
            assert same_bits(result, expected), function
            assert (bits < NOT_FINITE) == bool(np.isfinite(expected).all())
        for function in BINARY:
            result = np.empty_like(x)
            calls[f"binary_{function}"](result, a, b, x.size)
            assert same_bits(result, arithmetic.binary(function, x, y)), function


def _scalar_kernel(e: Emitter, name: str) -> Any:
    """void f(ptr dst, ptr a, i64 count), one number at a time."""

    def body(e: Emitter, dst: Any, a: Any, count: Any) -> Any:
        ops = LlvmOps(e.builder, 1)
        with e.loop(0, count) as index:
            value = functions.UNARY[name](ops, e.load(e.element(a, index, F32), F32))
            e.store(value, e.element(dst, index, F32))
        return I64(0)

    return kernel(e, f"scalar_{name}", I64, (POINTER, POINTER, I64), body)


@pytest.mark.parametrize("name", FEATURES)
def test_functions_have_the_same_bits_on_single_numbers(name: str) -> None:
    calls = compile_kernels(
        engine_features.FEATURES[name], [lambda e, n=n: _scalar_kernel(e, n) for n in ("rsqrt", "gelu", "gelu_tanh")]
    )
    x = samples(np.random.default_rng(4))
    with arithmetic.quiet():
        for function in ("rsqrt", "gelu", "gelu_tanh"):
            result = np.empty_like(x)
            calls[f"scalar_{function}"](result, x, x.size)
            assert same_bits(result, arithmetic.unary(function, x))


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("count", [1, 3, 16, 63, 64, 65, 576, 1000])
def test_sums_norms_and_maxima_of_a_row(features: str, count: int) -> None:
    rng = np.random.default_rng(count)
    calls = compile_kernels(
        engine_features.FEATURES[features],
        [kernels.row_sum, kernels.row_mean, kernels.row_max, kernels.rms_norm_row, kernels.layer_norm_row],
    )
    for wild in (False, True):
        a, weight, bias = (numbers(rng, (count + 64,), wild) for _ in range(3))
        row = a[None, :count]
        with arithmetic.quiet():
            for function in REDUCTIONS:
                name = function if function == "row_max" else f"row_{function}"
                result = np.array([calls[name](a, count)], np.float32)
                assert same_bits(result, arithmetic.REDUCTIONS[function](row)[0])
            for offset in (False, True):
                expected = arithmetic.rms_norm(row, weight[:count], 1e-5, offset)[0]
                result = np.empty(count, np.float32)
                bits = calls["rms_norm_row"](result, a, count, weight, None, 1e-5, offset)
                assert same_bits(result, expected)
                assert (bits < NOT_FINITE) == bool(np.isfinite(expected).all())
            expected = arithmetic.layer_norm(row, weight[:count], bias[:count], 1e-5)[0]
            in_place = a.copy()
            calls["layer_norm_row"](in_place, in_place, count, weight, bias, 1e-5, False)
            assert same_bits(in_place[:count], expected)


# ---------------------------------------------------------------------------------------------------- instructions


def words(wild: bool = False) -> np.ndarray:
    return numbers(np.random.default_rng(5), (WORDS,), wild)


def check(*instructions: Any, rows: int = 3, wild: bool = False) -> None:
    for threads in (1, 3):
        assert_same([*instructions, op("halt")], words(wild), rows, threads=threads)


VIEWS = {
    "rows": ViewRef(0, 40, 0, 1),
    "groups": ViewRef(0, 120, 40, 1),
    "groups outside": ViewRef(0, 40, 400, 1),
    "every second column": ViewRef(0, 300, 90, 2),
    "columns three apart": ViewRef(1, 400, 130, 3),
    "one number a group": ViewRef(5, 3, 1, 0),
}


@pytest.mark.parametrize("layout", [name for name in VIEWS if not name.startswith("one")])
@pytest.mark.parametrize("source", list(VIEWS))
@pytest.mark.parametrize("wild", [False, True])
def test_views_of_every_shape(layout: str, source: str, wild: bool) -> None:
    groups = 1 if "rows" in (layout, source) else 3
    target = VIEWS[layout]
    dst = ViewRef(3000, target.stride, target.group_stride, target.column_stride)
    values = {"dst": dst, "groups": groups, "columns": 37, "rows": 1}
    b = ViewRef(1500, 0, 0, 1)
    check(op("unary", function="gelu", a=VIEWS[source], **values), wild=wild)
    check(op("binary", function="div", a=VIEWS[source], b=b, **values), wild=wild)
    check(op("binary_scalar", function="sub", a=VIEWS[source], b=0.3, reversed=1, **values), wild=wild)


@pytest.mark.parametrize("shift", [-41, -1, 0, 1, 39, 40])
def test_what_is_read_is_read_before_anything_is_written(shift: int) -> None:
    a, dst = ViewRef(100, 40), ViewRef(100 + shift, 40)
    values = {"dst": dst, "a": a, "columns": 40, "rows": 1}
    check(op("unary", function="neg", **values))
    check(op("binary", function="sub", b=ViewRef(60, 40), **values))
    check(op("rms_norm", weight=HbmRef(memory_map().addresses["row"]), epsilon=1e-5, **values))
    check(op("layer_norm", epsilon=1e-5, unit_offset=1, weight=HbmRef(memory_map().addresses["row"]), **values))
    check(op("reduce", function="mean", **values))
    tables = {"cos": LmuRef(2000, 40), "sin": LmuRef(2300, 40)}
    check(op("rotary", style="half", turned=40, **tables, **values))
    check(op("rotary", style="half", turned=40, cos=LmuRef(110, 40), sin=LmuRef(2300, 40), **values))


@pytest.mark.parametrize("columns", [1, 511, 512, 513, 2000])
def test_one_long_row_is_shared_out_by_columns(columns: int) -> None:
    values = {"dst": ViewRef(4000), "a": ViewRef(17), "columns": columns, "rows": 1}
    check(op("unary", function="silu", **values), rows=1)
    check(op("binary", function="max", b=ViewRef(1000), **values), rows=1, wild=True)


@pytest.mark.parametrize("style", ROTARY_STYLES)
@pytest.mark.parametrize(("turned", "columns"), [(0, 8), (2, 2), (24, 24), (24, 40), (64, 64), (66, 70)])
def test_rotary_styles(style: str, turned: int, columns: int) -> None:
    values = {
        "a": ViewRef(0, 300, 75), "cos": LmuRef(2000, 70), "sin": LmuRef(2500, 70), "style": style, "turned": turned,
        "groups": 3, "columns": columns, "rows": 1,
    }  # fmt: skip
    check(op("rotary", dst=ViewRef(0, 300, 75), **values))
    check(op("rotary", dst=ViewRef(4000, 300, 75), **values), wild=True)


@pytest.mark.parametrize("function", REDUCTIONS)
def test_reductions(function: str) -> None:
    values = {"function": function, "groups": 2, "columns": 130, "rows": 1}
    check(op("reduce", dst=ViewRef(5000, 2, 1), a=ViewRef(0, 400, 140), **values), wild=True)
    check(op("reduce", dst=ViewRef(0, 400, 140), a=ViewRef(0, 400, 140), **values))


def test_rows_that_are_written_to_one_place_leave_the_last() -> None:
    check(op("unary", function="copy", dst=ViewRef(4000, 0), a=ViewRef(0, 50), columns=50, rows=1))


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": 9},
        {"dst": ViewRef(WORDS - 79, 40)},
        {"a": ViewRef(0, 40, 0, 1, 9)},
        {"a": ViewRef(WORDS, 40)},
        {"columns": WORDS},
    ],
)
def test_faults_have_the_interpreters_words(changes: dict[str, Any]) -> None:
    values: dict[str, Any] = {"dst": ViewRef(4000, 40), "a": ViewRef(0, 40), "columns": 40, "rows": 1}
    check(op("unary", function="exp", **{**values, **changes}))


def test_faults_of_other_operands() -> None:
    values: dict[str, Any] = {"dst": ViewRef(4000, 40), "a": ViewRef(0, 40), "columns": 40, "rows": 1}
    tables = {"cos": LmuRef(2000, 40), "sin": LmuRef(WORDS, 40)}
    check(op("rotary", style="half", turned=40, **tables, **values))
    check(op("rotary", style="half", turned=41, **tables, **values))
    check(op("rotary", style="half", turned=7, **tables, **values))
    check(op("rms_norm", weight=HbmRef(memory_map().end - 8), epsilon=1e-5, **values))
    check(op("rms_norm", weight=HbmRef(2), epsilon=1e-5, **values))


def test_the_flag_names_the_first_instruction() -> None:
    data = numbers(np.random.default_rng(6), (WORDS,), wild=False)
    data[3 * WIDTH] = np.inf
    exp = op("unary", function="exp", dst=ViewRef(4000, WIDTH), a=ViewRef(0, WIDTH), columns=WIDTH, rows=1)
    copy = op("unary", function="copy", dst=ViewRef(5000, WIDTH), a=ViewRef(0, WIDTH), columns=WIDTH, rows=1)
    for rows in (3, 4, CHUNK):
        assert_same([exp, copy, op("halt")], data, rows)
