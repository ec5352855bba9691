"""The IEEE operations that functions of the vector engine are sequences of.

`functions.py` is written over `Ops`, so that one definition serves every executor: NumPy here, and anything else that
can add, multiply and shift. F stands for float32 values, I for 32-bit integers (two's complement, wrapping), B for
booleans. Every float operation is one IEEE operation, rounded to nearest, ties to even; comparisons with NaN are false.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

F = I = B = Any  # noqa: E741


class Ops(Protocol):
    """Operations of one executor."""

    def constant(self, bits: int, /) -> F:
        """The float32 with these bits."""
        ...

    def integer(self, value: int, /) -> I: ...
    def add(self, a: F, b: F, /) -> F: ...
    def sub(self, a: F, b: F, /) -> F: ...
    def mul(self, a: F, b: F, /) -> F: ...
    def div(self, a: F, b: F, /) -> F: ...
    def sqrt(self, a: F, /) -> F: ...
    def greater(self, a: F, b: F, /) -> B: ...
    def select(self, condition: B, a: F, b: F, /) -> F:
        """condition ? a : b, bits unchanged."""
        ...

    def bits(self, a: F, /) -> I:
        """The bits of a float as an integer."""
        ...

    def float_of(self, a: I, /) -> F:
        """The float with these bits."""
        ...

    def iadd(self, a: I, b: I, /) -> I: ...
    def isub(self, a: I, b: I, /) -> I: ...
    def iand(self, a: I, b: I, /) -> I: ...
    def ior(self, a: I, b: I, /) -> I: ...
    def ixor(self, a: I, b: I, /) -> I: ...
    def shift_left(self, a: I, count: int, /) -> I: ...
    def shift_right(self, a: I, count: int, /) -> I:
        """Arithmetic shift: copies of the sign move in."""
        ...


class NumpyOps:
    """`Ops` on float32, int32 and bool arrays of any shape."""

    def constant(self, bits: int) -> np.float32:
        return np.uint32(bits).view(np.float32)

    def integer(self, value: int) -> np.int32:
        return np.int32(value)

    add = staticmethod(np.add)
    sub = staticmethod(np.subtract)
    mul = staticmethod(np.multiply)
    div = staticmethod(np.divide)
    sqrt = staticmethod(np.sqrt)
    greater = staticmethod(np.greater)
    select = staticmethod(np.where)
    iadd = staticmethod(np.add)
    isub = staticmethod(np.subtract)
    iand = staticmethod(np.bitwise_and)
    ior = staticmethod(np.bitwise_or)
    ixor = staticmethod(np.bitwise_xor)

    def bits(self, a: np.ndarray) -> np.ndarray:
        return np.asarray(a, np.float32).view(np.int32)

    def float_of(self, a: np.ndarray) -> np.ndarray:
        return np.asarray(a, np.int32).view(np.float32)

    def shift_left(self, a: np.ndarray, count: int) -> np.ndarray:
        return np.left_shift(a, np.int32(count))

    def shift_right(self, a: np.ndarray, count: int) -> np.ndarray:
        return np.right_shift(a, np.int32(count))


NUMPY = NumpyOps()
