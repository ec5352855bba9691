"""The helpers that the native executor's code is written with, on every instruction set of this computer."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hyperdex_ir.native.codegen import Library, build, new_module
from hyperdex_ir.native.emit import F32, I32, I64, POINTER, Emitter, V, byte_size, define, vector
from hyperdex_ir.native.features import Features, available

Body = Callable[[Emitter, list[V]], None]


@pytest.fixture(params=available(), ids=lambda item: item.name)
def features(request: pytest.FixtureRequest) -> Features:
    return request.param


class Function:
    """i64 f(ptr, ptr, i64) with a body, called with arrays."""

    def __init__(self, features: Features, body: Body):
        module = new_module(features)
        function = define(module, "f", I64, (POINTER, POINTER, I64), public=True)
        e = Emitter(function, features)
        body(e, list(function.args))
        if not e.builder.block.is_terminated:
            e.builder.ret(I64(0))
        self._library: Library = build(module, features)
        types = ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64
        self._call = ctypes.CFUNCTYPE(*types)(self._library.address("f"))

    def __call__(self, target: np.ndarray, source: np.ndarray, count: int) -> int:
        return self._call(target.ctypes.data, source.ctypes.data, count)


def test_partial_vectors_touch_nothing_else(features: Features) -> None:
    type_ = vector(F32, features.lanes)

    def body(e: Emitter, arguments: list[V]) -> None:
        target, source, count = arguments
        rest = e.splat(e.f32(7.0), features.lanes)
        e.store_first(e.load_first(source, type_, count, rest), target, e.add(count, 1))

    function = Function(features, body)
    source = np.arange(1, 20, dtype=np.float32)
    for count in (-3, 0, 1, features.lanes - 1, features.lanes, features.lanes + 5):
        target = np.zeros(20, np.float32)
        function(target, source, count)
        read, written = min(max(count, 0), features.lanes), min(max(count + 1, 0), features.lanes)
        expected = np.where(np.arange(features.lanes) < read, source[: features.lanes], np.float32(7))
        expected[written:] = 0
        assert target[: features.lanes].tolist() == expected.tolist()
        assert not target[features.lanes :].any()


def test_loops_conditions_and_variables(features: Features) -> None:
    """The sum of i * j over i < n, j in steps of 3 up to i, leaving when it passes 100."""

    def body(e: Emitter, arguments: list[V]) -> None:
        total = e.local(I64, I64(0))
        with e.loop(0, arguments[2]) as i, e.loop(0, i, 3) as j:
            total.set(e.add(total.get(), e.mul(i, j)))
            with e.if_then(e.less(100, total.get())):
                e.builder.ret(I64(-1))
        e.builder.ret(total.get())

    function = Function(features, body)
    empty = np.zeros(1)
    for count in range(9):
        expected = sum(i * j for i in range(count) for j in range(0, i, 3))
        assert function(empty, empty, count) == (expected if expected <= 100 else -1)


def test_endless_loops_are_left(features: Features) -> None:
    def body(e: Emitter, arguments: list[V]) -> None:
        count = e.local(I64, I64(0))
        with e.loop_while() as end:
            count.set(e.add(count.get(), 1))
            e.leave(end, e.less(arguments[2], e.mul(count.get(), count.get())))
        e.builder.ret(count.get())

    function = Function(features, body)
    assert [function(np.zeros(1), np.zeros(1), count) for count in (0, 1, 15, 16)] == [1, 2, 4, 5]


def test_vectors_are_cut_and_joined(features: Features) -> None:
    half = features.lanes // 2

    def body(e: Emitter, arguments: list[V]) -> None:
        value = e.load(arguments[1], vector(F32, features.lanes))
        swapped = e.join(e.slice(value, half, half), e.slice(value, 0, half))
        e.store(e.insert(swapped, e.extract(value, 1), 0), arguments[0])

    source, target = np.arange(features.lanes, dtype=np.float32), np.zeros(features.lanes, np.float32)
    Function(features, body)(target, source, 0)
    expected = np.concatenate([source[half:], source[:half]])
    expected[0] = 1
    assert target.tolist() == expected.tolist()


def test_magnitudes_tell_what_is_not_finite(features: Features) -> None:
    def body(e: Emitter, arguments: list[V]) -> None:
        bits = e.magnitude_bits(e.load(arguments[1], vector(F32, features.lanes)))
        largest = e.reduce_umax(bits)
        e.builder.ret(e.builder.zext(e.builder.icmp_unsigned(">=", largest, I32(0x7F800000)), I64))

    function = Function(features, body)
    for value, expected in ((1.0, 0), (-3.4e38, 0), (np.inf, 1), (-np.inf, 1), (np.nan, 1), (-np.nan, 1)):
        source = np.zeros(features.lanes, np.float32)
        source[-1] = value
        assert function(source, source, 0) == expected


def test_constants_keep_their_bits(features: Features) -> None:
    patterns = [0x80000000, 0x00000001, 0x7F7FFFFF, 0x3DCCCCCD, 0xFF800000]

    def body(e: Emitter, arguments: list[V]) -> None:
        for index, bits in enumerate(patterns):
            e.store(e.f32_bits(bits), e.element(arguments[0], index, F32))
        e.store(e.f32(0.1), e.element(arguments[0], len(patterns), F32))

    target = np.zeros(6, np.float32)
    Function(features, body)(target, target, 0)
    assert target.view(np.uint32).tolist() == [*patterns, 0x3DCCCCCD]


def test_misuse_is_refused(features: Features) -> None:
    module = new_module(features)
    e = Emitter(define(module, "f", I64, ()), features)
    with pytest.raises(ValueError, match="f has a body already"):
        Emitter(e.function, features)
    if not features.has_fma:
        one = e.f32(1.0)
        with pytest.raises(ValueError, match="no fused multiply-add"):
            e.fma(one, one, one)


@pytest.mark.parametrize(("type_", "size"), [(I32, 4), (F32, 4), (POINTER, 8), (vector(I64, 3), 24)])
def test_sizes(type_: Any, size: int) -> None:
    assert byte_size(type_) == size
