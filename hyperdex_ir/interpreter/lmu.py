"""The LMU: the on-chip scratchpad of 32-bit words, each either written or not."""

from __future__ import annotations

from math import prod

import numpy as np

from hyperdex_ir.isa.faults import Fault, Forbidden

_WORD = 4  # bytes


class Lmu:
    """`size` words of float32."""

    def __init__(self, size: int):
        self.size = size
        self._words = np.zeros(size, np.float32)
        self._written = np.zeros(size, bool)

    def forget(self) -> None:
        """Marks all words as not written: the state before a step."""
        self._written[:] = False

    def read(
        self, start: int, shape: tuple[int, ...], strides: tuple[int, ...], used: np.ndarray | None = None
    ) -> np.ndarray:
        """Words start + index . strides, float32 of `shape`, sharing memory; all (or those `used`) must be written.

        Raises Forbidden outside the LMU and for a word that has not been written.
        """
        self.check(start, shape, strides)
        written = np.ndarray(shape, bool, self._written.data, start, strides)
        unwritten = ~written if used is None else used & ~written
        if unwritten.any():
            first = np.unravel_index(int(np.argmax(unwritten)), shape)
            word = start + sum(int(i) * s for i, s in zip(first, strides, strict=True))
            raise Forbidden(Fault.LMU_UNWRITTEN, word=word)
        return self._view(start, shape, strides)

    def word(self, address: int) -> float:
        """One word, for control. Raises Forbidden as `read`."""
        return float(Lmu.read(self, address, (1,), (1,))[0])

    def write(self, start: int, strides: tuple[int, ...], data: np.ndarray, used: np.ndarray | None = None) -> None:
        """Writes data (where `used`) to words start + index . strides; of several indices with the same word the last
        one wins.

        Raises Forbidden outside the LMU.
        """
        self.check(start, data.shape, strides)
        if not _apart(data.shape, strides):
            self._write_in_order(start, strides, data, used)
            return
        words = self._view(start, data.shape, strides)
        written = np.ndarray(data.shape, bool, self._written.data, start, strides)
        if used is None:
            words[...], written[...] = data, True
        else:
            words[used], written[used] = data[used], True

    def _write_in_order(self, start: int, strides: tuple[int, ...], data: np.ndarray, used: np.ndarray | None) -> None:
        """NumPy defines which of several values for a word stays when it is given a list of indices, not for a view."""
        words = np.full(data.shape, start, np.int64)
        for axis, (extent, stride) in enumerate(zip(data.shape, strides, strict=True)):
            words += np.expand_dims(np.arange(extent) * stride, tuple(set(range(data.ndim)) - {axis}))
        chosen = np.ones(data.shape, bool) if used is None else used
        self._words[words[chosen]], self._written[words[chosen]] = data[chosen], True

    def _view(self, start: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
        return np.ndarray(shape, np.float32, self._words.data, start * _WORD, tuple(s * _WORD for s in strides))

    def check(self, start: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        """Raises Forbidden when words start + index . strides are not all in the LMU, or more than it has.

        The second case arises where strides let elements share words; the check bounds the work of one instruction.
        Without words, the start is in the LMU or right behind it.
        """
        count = prod(shape)
        distance = sum((extent - 1) * stride for extent, stride in zip(shape, strides, strict=True)) if count else -1
        if start < 0 or start + distance >= self.size:
            raise Forbidden(Fault.LMU, first=start, last=start + distance, words=self.size)
        self.check_count(count)

    def check_count(self, count: int) -> None:
        """Raises Forbidden when an operand has more elements than the LMU words."""
        if count > self.size:
            raise Forbidden(Fault.LMU_ELEMENTS, elements=count, words=self.size)


def _apart(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Test that no two indices have the same word. False may be wrong where axes interleave."""
    reach = 0
    for stride, extent in sorted(zip(strides, shape, strict=True)):
        if extent > 1 and stride <= reach:
            return False
        reach += (extent - 1) * stride
    return True
