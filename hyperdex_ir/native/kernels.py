"""Parts that kernels share: functions of the module that several instructions call, loops over words, the watch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from hyperdex_ir.native.emit import F32, I32, I64, POINTER, Emitter, Local, V, define, vector
from hyperdex_ir.targets import LANES


def kernel(e: Emitter, name: str, result: Any, parameters: Sequence[Any], body: Callable[..., V]) -> Any:
    """The function of that name in the module. It is written on first use: body(emitter, *arguments) gives its return
    value."""
    known = e.module.globals.get(name)
    if known is not None:
        return known
    function = define(e.module, name, result, tuple(parameters))
    inner = Emitter(function, e.features)
    inner.builder.ret(body(inner, *function.args))
    return function


class Most:
    """The largest magnitude bits of f32 values, lane by lane: 0x7F800000 or more when one was a NaN or an infinity."""

    def __init__(self, e: Emitter):
        self._e = e
        self._bits = e.local(vector(I32, e.features.lanes), e.zero(vector(I32, e.features.lanes)))

    def see(self, value: V, mask: V | None = None) -> None:
        """Counts the lanes of a vector, those that a mask allows."""
        e = self._e
        bits = e.magnitude_bits(value)
        if mask is not None:
            bits = e.builder.select(mask, bits, e.zero(bits.type))
        old = self._bits.get()
        self._bits.set(e.builder.select(e.builder.icmp_unsigned(">", bits, old), bits, old))

    @property
    def bits(self) -> V:
        """The largest bits of all lanes, i32."""
        return self._e.reduce_umax(self._bits.get())


def each_vector(e: Emitter, count: V, body: Callable[[V, V | None], None]) -> None:
    """body(at, None) for each full vector of `count` words, body(at, left) for the `left` words behind them."""
    lanes = e.features.lanes
    whole = e.mul(e.builder.udiv(count, I64(lanes)), lanes)
    with e.loop(0, whole, lanes) as at:
        body(at, None)
    with e.if_then(e.less(whole, count)):
        body(whole, e.sub(count, whole))


def load_row(e: Emitter, pointer: V, at: V) -> V:
    """A vector of f32 from word `at` on. Memory behind the row must be readable: LMU and scratch memory are."""
    return e.load(e.element(pointer, at, F32), vector(F32, e.features.lanes))


def store_row(e: Emitter, value: V, pointer: V, at: V, left: V | None, most: Most) -> None:
    """Stores the first `left` lanes of a vector from word `at` on, and counts them in `most`."""
    place = e.element(pointer, at, F32)
    if left is None:
        most.see(value)
        e.store(value, place)
        return
    most.see(value, e.first_lanes(left, value.type))
    e.store_first(value, place, left)


def load_words(e: Emitter, pointer: V) -> list[V]:
    """64 words of f32, as vectors."""
    lanes = e.features.lanes
    return [e.load(e.element(pointer, start, F32), vector(F32, lanes)) for start in range(0, LANES, lanes)]


def zero_lanes(e: Emitter) -> list[Local]:
    """64 accumulators, +0."""
    type_ = vector(F32, e.features.lanes)
    return [e.local(type_, e.zero(type_)) for _ in range(LANES // e.features.lanes)]


def choose(e: Emitter, number: V, cases: Sequence[Callable[[], None]]) -> None:
    """Runs the case of that number (i64)."""
    b = e.builder
    after = e.function.append_basic_block("chosen")
    blocks = [e.function.append_basic_block("case") for _ in cases]
    choice = b.switch(number, after)
    for index, (block, case) in enumerate(zip(blocks, cases, strict=True)):
        choice.add_case(I64(index), block)
        b.position_at_end(block)
        case()
        b.branch(after)
    b.position_at_end(after)


def is_null(e: Emitter, pointer: V) -> V:
    """i1"""
    return e.builder.icmp_unsigned("==", pointer, ir.Constant(POINTER, None))
