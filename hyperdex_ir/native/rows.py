"""Kernels of the vector engine: one row of words one after another, from memory to memory.

Each is a function of the module that returns the largest magnitude bits of the words it wrote, i32. The result may be
the operand itself, but not overlap it otherwise. docs/arithmetic.md, sections 2 and 5 to 7, defines what they compute.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hyperdex_ir.interpreter import functions
from hyperdex_ir.native.emit import F32, I1, I32, I64, POINTER, Emitter, V
from hyperdex_ir.native.fold import add_halves, finish
from hyperdex_ir.native.kernels import Most, each_vector, is_null, kernel, load_row, load_words, store_row, zero_lanes
from hyperdex_ir.native.llvm_ops import LlvmOps
from hyperdex_ir.targets import LANES

_MINUS_INFINITY = 0xFF800000


def unary_row(e: Emitter, name: str) -> Any:
    """i32 f(ptr dst, ptr a, i64 count): dst = name(a)."""

    def body(e: Emitter, dst: V, a: V, count: V) -> V:
        ops, most = LlvmOps(e.builder, e.features.lanes), Most(e)

        def part(at: V, left: V | None) -> None:
            store_row(e, functions.UNARY[name](ops, load_row(e, a, at)), dst, at, left, most)

        each_vector(e, count, part)
        return most.bits

    return kernel(e, f"unary_{name}", I32, (POINTER, POINTER, I64), body)


def binary_row(e: Emitter, name: str) -> Any:
    """i32 f(ptr dst, ptr a, ptr b, i64 count): dst = a name b."""

    def body(e: Emitter, dst: V, a: V, b: V, count: V) -> V:
        ops, most = LlvmOps(e.builder, e.features.lanes), Most(e)

        def part(at: V, left: V | None) -> None:
            value = functions.BINARY[name](ops, load_row(e, a, at), load_row(e, b, at))
            store_row(e, value, dst, at, left, most)

        each_vector(e, count, part)
        return most.bits

    return kernel(e, f"binary_{name}", I32, (POINTER, POINTER, POINTER, I64), body)


def binary_scalar_row(e: Emitter, name: str, turned: bool) -> Any:
    """i32 f(ptr dst, ptr a, f32 b, i64 count): dst = a name b; turned: b name a."""

    def body(e: Emitter, dst: V, a: V, b: V, count: V) -> V:
        ops, most, scalar = LlvmOps(e.builder, e.features.lanes), Most(e), e.splat(b, e.features.lanes)

        def part(at: V, left: V | None) -> None:
            pair = (load_row(e, a, at), scalar)
            store_row(e, functions.BINARY[name](ops, *(pair[::-1] if turned else pair)), dst, at, left, most)

        each_vector(e, count, part)
        return most.bits

    suffix = "_turned" if turned else ""
    return kernel(e, f"binary_scalar_{name}{suffix}", I32, (POINTER, POINTER, F32, I64), body)


# ---------------------------------------------------------------------------------------------------- sums


def _lane_sum(e: Emitter, a: V, count: V, term: Callable[[V], V]) -> V:
    """The sum of term(x) over a row, f32: lane j of 64 adds elements j, 64 + j, ..; then the fold."""
    lanes, sums = e.features.lanes, zero_lanes(e)
    whole = e.mul(e.builder.udiv(count, I64(LANES)), LANES)
    with e.loop(0, whole, LANES) as at:
        for lane, x in zip(sums, load_words(e, e.element(a, at, F32)), strict=True):
            lane.set(e.fadd(lane.get(), term(x)))
    with e.if_then(e.less(whole, count)):
        for number, (lane, x) in enumerate(zip(sums, load_words(e, e.element(a, whole, F32)), strict=True)):
            left = e.maximum(e.sub(count, e.add(whole, number * lanes)), 0)
            term_or_zero = e.builder.select(e.first_lanes(left, x.type), term(x), e.zero(x.type))
            lane.set(e.fadd(lane.get(), term_or_zero))
    return e.extract(finish(e, [add_halves(e, [lane.get() for lane in sums])]), 0)


def row_sum(e: Emitter) -> Any:
    """f32 f(ptr a, i64 count): the sum."""
    return kernel(e, "row_sum", F32, (POINTER, I64), lambda e, a, count: _lane_sum(e, a, count, lambda x: x))


def sum_of_squares(e: Emitter) -> Any:
    """f32 f(ptr a, i64 count): the sum of a * a."""
    return kernel(
        e, "sum_of_squares", F32, (POINTER, I64), lambda e, a, count: _lane_sum(e, a, count, lambda x: e.fmul(x, x))
    )


def row_mean(e: Emitter) -> Any:
    """f32 f(ptr a, i64 count): the sum divided by the count."""

    def body(e: Emitter, a: V, count: V) -> V:
        return e.builder.fdiv(e.call(row_sum(e), [a, count]), _float(e, count))

    return kernel(e, "row_mean", F32, (POINTER, I64), body)


def row_max(e: Emitter) -> Any:
    """f32 f(ptr a, i64 count): acc = a[0]; acc = acc > a[i] ? acc : a[i] for i = 1, 2, ..; the maximum of no elements
    is -infinity."""

    def body(e: Emitter, a: V, count: V) -> V:
        most = e.local(F32, e.f32_bits(_MINUS_INFINITY))
        with e.if_then(e.less(0, count)):
            most.set(e.load(a, F32))
        with e.loop(1, count) as index:
            most.set(functions.maximum(LlvmOps(e.builder, 1), most.get(), e.load(e.element(a, index, F32), F32)))
        return most.get()

    return kernel(e, "row_max", F32, (POINTER, I64), body)


def _float(e: Emitter, count: V) -> V:
    return e.builder.uitofp(count, F32)


# ---------------------------------------------------------------------------------------------------- norms


def rms_norm_row(e: Emitter) -> Any:
    """i32 f(ptr dst, ptr a, i64 count, ptr weight, ptr bias, f32 epsilon, i1 unit_offset):
    (a * rsqrt(mean(a * a) + epsilon)) * weight + bias; weight and bias may be null."""

    def body(e: Emitter, dst: V, a: V, count: V, weight: V, bias: V, epsilon: V, unit_offset: V) -> V:
        mean = e.builder.fdiv(e.call(sum_of_squares(e), [a, count]), _float(e, count))
        factor = functions.rsqrt(LlvmOps(e.builder, 1), e.fadd(mean, epsilon))
        most, scale = Most(e), e.splat(factor, e.features.lanes)
        has_weight, has_bias = (e.builder.not_(is_null(e, pointer)) for pointer in (weight, bias))

        def part(at: V, left: V | None) -> None:
            y = e.local(scale.type, e.fmul(load_row(e, a, at), scale))
            with e.if_then(has_weight):
                y.set(e.fmul(y.get(), _offset_weight(e, load_row(e, weight, at), unit_offset)))
            with e.if_then(has_bias):
                y.set(e.fadd(y.get(), load_row(e, bias, at)))
            store_row(e, y.get(), dst, at, left, most)

        each_vector(e, count, part)
        return most.bits

    return kernel(e, "rms_norm_row", I32, (POINTER, POINTER, I64, POINTER, POINTER, F32, I1), body)


def _offset_weight(e: Emitter, weight: V, unit_offset: V) -> V:
    one = e.splat(e.f32(1.0), e.features.lanes)
    return e.builder.select(unit_offset, e.fadd(one, weight), weight)


def layer_norm_row(e: Emitter) -> Any:
    """i32 f(ptr dst, ptr a, i64 count, ptr weight, ptr bias, f32 epsilon, i1 unit_offset): rms_norm_row of
    a - mean(a). The memory of the result holds a - mean(a) meanwhile."""

    def body(e: Emitter, dst: V, a: V, count: V, *rest: V) -> V:
        mean = e.splat(e.call(row_mean(e), [a, count]), e.features.lanes)
        ignored = Most(e)

        def centre(at: V, left: V | None) -> None:
            store_row(e, e.builder.fsub(load_row(e, a, at), mean), dst, at, left, ignored)

        each_vector(e, count, centre)
        return e.call(rms_norm_row(e), [dst, dst, count, *rest])

    return kernel(e, "layer_norm_row", I32, (POINTER, POINTER, I64, POINTER, POINTER, F32, I1), body)


# ---------------------------------------------------------------------------------------------------- rotary


def rotary_row(e: Emitter, style: str) -> Any:
    """i32 f(ptr dst, ptr a, ptr cos, ptr sin, i64 turned, i64 columns): a[i] * cos[i] + r(a)[i] * sin[i] for the first
    `turned` columns, the others copied."""

    def body(e: Emitter, dst: V, a: V, cos: V, sin: V, turned: V, columns: V) -> V:
        most = Most(e)
        turn = _turn_halves if style == "half" else _turn_neighbours
        turn(e, dst, a, cos, sin, turned, most)
        target, source = e.element(dst, turned, F32), e.element(a, turned, F32)

        def rest(at: V, left: V | None) -> None:
            store_row(e, load_row(e, source, at), target, at, left, most)

        each_vector(e, e.sub(columns, turned), rest)
        return most.bits

    return kernel(e, f"rotary_{style}", I32, (POINTER, POINTER, POINTER, POINTER, I64, I64), body)


def _turn_halves(e: Emitter, dst: V, a: V, cos: V, sin: V, turned: V, most: Most) -> None:
    """Rotates the pairs (i, i + turned / 2); both elements are read before either is written."""
    half = e.builder.lshr(turned, I64(1))

    def part(at: V, left: V | None) -> None:
        other = e.add(at, half)
        first, second = load_row(e, a, at), load_row(e, a, other)
        results = (
            _turned(e, first, e.builder.fneg(second), cos, sin, at),
            _turned(e, second, first, cos, sin, other),
        )
        for place, value in zip((at, other), results, strict=True):
            store_row(e, value, dst, place, left, most)

    each_vector(e, half, part)


def _turn_neighbours(e: Emitter, dst: V, a: V, cos: V, sin: V, turned: V, most: Most) -> None:
    """Rotates the pairs (2i, 2i + 1)."""
    lanes = e.features.lanes
    swapped = [lane ^ 1 for lane in range(lanes)]
    even = e.lanes(I1, [lane % 2 == 0 for lane in range(lanes)])

    def part(at: V, left: V | None) -> None:
        x = load_row(e, a, at)
        partner = e.shuffle(x, None, swapped)
        partner = e.builder.select(even, e.builder.fneg(partner), partner)
        store_row(e, _turned(e, x, partner, cos, sin, at), dst, at, left, most)

    each_vector(e, turned, part)


def _turned(e: Emitter, x: V, partner: V, cos: V, sin: V, at: V) -> V:
    return e.fadd(e.fmul(x, load_row(e, cos, at)), e.fmul(partner, load_row(e, sin, at)))
