"""The IEEE operations of `interpreter/ops.py` over LLVM values, so that `functions.py` defines the native executor too.

No instruction carries a fast-math flag, and none may be contracted: each is one IEEE operation, as the protocol asks.
"""

from __future__ import annotations

import struct
from typing import Any

from llvmlite import ir

from hyperdex_ir.native.emit import F32, I32, V, vector


def float_of_bits(bits: int) -> float:
    """The float32 with these bits. NaN keeps no payload: functions have no NaN constants."""
    return struct.unpack("<f", struct.pack("<I", bits & 0xFFFFFFFF))[0]


class LlvmOps:
    """`Ops` on `lanes` float32 or int32 values at a time: vectors, or scalars where lanes is 1."""

    def __init__(self, builder: ir.IRBuilder, lanes: int):
        self._builder: Any = builder
        self._lanes = lanes
        self._float = F32 if lanes == 1 else vector(F32, lanes)
        self._integer = I32 if lanes == 1 else vector(I32, lanes)

    def constant(self, bits: int) -> V:
        return self._constant(self._float, float_of_bits(bits))

    def integer(self, value: int) -> V:
        return self._constant(self._integer, value)

    def add(self, a: V, b: V) -> V:
        return self._builder.fadd(a, b)

    def sub(self, a: V, b: V) -> V:
        return self._builder.fsub(a, b)

    def mul(self, a: V, b: V) -> V:
        return self._builder.fmul(a, b)

    def div(self, a: V, b: V) -> V:
        return self._builder.fdiv(a, b)

    def sqrt(self, a: V) -> V:
        name = "llvm.sqrt.f32" if self._lanes == 1 else f"llvm.sqrt.v{self._lanes}f32"
        kind = ir.FunctionType(self._float, [self._float])
        module = self._builder.module
        function = module.globals.get(name) or ir.Function(module, kind, name)
        return self._builder.call(function, [a])

    def greater(self, a: V, b: V) -> V:
        return self._builder.fcmp_ordered(">", a, b)

    def select(self, condition: V, a: V, b: V) -> V:
        return self._builder.select(condition, a, b)

    def bits(self, a: V) -> V:
        return self._builder.bitcast(a, self._integer)

    def float_of(self, a: V) -> V:
        return self._builder.bitcast(a, self._float)

    def iadd(self, a: V, b: V) -> V:
        return self._builder.add(a, b)

    def isub(self, a: V, b: V) -> V:
        return self._builder.sub(a, b)

    def iand(self, a: V, b: V) -> V:
        return self._builder.and_(a, b)

    def ior(self, a: V, b: V) -> V:
        return self._builder.or_(a, b)

    def ixor(self, a: V, b: V) -> V:
        return self._builder.xor(a, b)

    def shift_left(self, a: V, count: int) -> V:
        return self._builder.shl(a, self.integer(count))

    def shift_right(self, a: V, count: int) -> V:
        return self._builder.ashr(a, self.integer(count))

    def _constant(self, kind: Any, value: float) -> V:
        return ir.Constant(kind, value if self._lanes == 1 else [value] * self._lanes)
