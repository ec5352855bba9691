"""Types of numbers: one entry for each, from which every other module takes names, sizes and conversions.

`FORMATS` are those that the MAC trees stream. docs/decisions/0018-matrix-formats.md says how to add a narrow one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from hyperdex_ir.targets import BEAT_BYTES, LANES, STREAM_LANES

if TYPE_CHECKING:  # the tools for IR and instructions start without NumPy
    import numpy as np


@dataclass(frozen=True)
class ElementType:
    """A type of numbers in files and in memory.

    name: the name in the IR and in our files. torch: the name in torch, and in config.json. code: NumPy's type of
    arrays as they are read and written, little-endian; unsigned integers that hold the bits where NumPy lacks the type.
    """

    name: str
    torch: str
    code: str

    @cached_property
    def dtype(self) -> np.dtype:
        """The type of arrays."""
        import numpy as np

        return np.dtype(self.code)

    @property
    def item_bytes(self) -> int:
        """Bytes of an element."""
        return int(self.code[2:])

    @property
    def published(self) -> str:
        """The name in safetensors and in GGUF."""
        return self.name.upper()

    @property
    def stored(self) -> np.dtype:
        """NumPy type of its elements in HBM."""
        return self.dtype

    def bytes_of(self, count: int) -> int:
        """Bytes of neighbouring elements."""
        return count * self.item_bytes

    def load(self, stored: np.ndarray) -> np.ndarray:
        """Elements as float32: exact, except that wider ones are rounded."""
        import numpy as np

        return stored.astype(np.float32, copy=False)

    def round(self, x: np.ndarray) -> np.ndarray:
        """float32 as elements, type `stored`: to nearest, ties to even. Overflow gives infinity."""
        return x.astype(self.dtype, copy=False)

    def is_finite(self, stored: np.ndarray) -> np.ndarray:
        """Elementwise: neither NaN nor infinity."""
        import numpy as np

        return np.isfinite(stored)


@dataclass(frozen=True)
class MatrixFormat(ElementType):
    """Elements of matrices, in HBM in tile order (memory/map.py): sign, exponent and mantissa, as IEEE 754 has them.

    `load` gives a new contiguous array and is exact.
    """

    exponent_bits: int
    mantissa_bits: int

    @property
    def stored(self) -> np.dtype:
        """Unsigned integers that hold the bits."""
        import numpy as np

        return np.dtype(f"<u{self.item_bytes}")

    @property
    def bits(self) -> int:
        """Bits of an element."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def part_bytes(self) -> int:
        """Bytes of one step that a tree takes from one of its channels."""
        return STREAM_LANES * self.bits // 8

    def stripes(self, columns: int) -> int:
        """Stripes of one group of rows, a row for each tree: all steps of a row, whole beats of each channel."""
        return -(-(-(-columns // LANES) * self.part_bytes) // BEAT_BYTES)

    @property
    def bias(self) -> int:
        """The largest exponent of a finite number; its bits are the exponent plus this."""
        return (1 << self.exponent_bits - 1) - 1

    @property
    def infinity(self) -> int:
        """The bits of +infinity: all of the exponent's."""
        return (1 << self.exponent_bits) - 1 << self.mantissa_bits

    @property
    def nan(self) -> int:
        """The bits of a quiet NaN."""
        return self.infinity | 1 << self.mantissa_bits - 1

    @property
    def largest(self) -> float:
        """The largest finite value."""
        return (2 - 2.0**-self.mantissa_bits) * 2.0**self.bias

    def is_finite(self, stored: np.ndarray) -> np.ndarray:
        return (stored.view(self.stored) & self.infinity) != self.infinity

    def exponent(self, magnitude: int) -> int:
        """The exponent e of a number by its bits but the sign: it is below 2^(e + 1), its last bit is 2^(e - m)."""
        return max(magnitude >> self.mantissa_bits, 1) - self.bias

    def fits(self, lowest: int, highest: int) -> bool:
        """True if every product whose factors' exponents add up to `lowest` to `highest` is a float32."""
        return lowest - 2 * self.mantissa_bits >= -149 and highest + 2 <= 128

    @property
    def exact_products(self) -> bool:
        """True if the product of any two finite elements is a float32."""
        return self.fits(2 * (1 - self.bias), 2 * self.bias)


class _F16(MatrixFormat):
    def load(self, stored: np.ndarray) -> np.ndarray:
        import numpy as np

        bits, result = stored.view(self.stored), np.empty(stored.shape, np.float32)
        if bits.size and (bits & self.infinity).max() == self.infinity:  # infinity or NaN
            np.copyto(result, bits.view(np.float16))
            return result
        # Three times faster than astype: the bits where float32 has them, then the exponent bias corrected, exactly.
        integers = result.view(np.int32)
        np.copyto(integers, bits.view(np.int16))
        np.left_shift(integers, 13, out=integers)
        np.bitwise_and(integers, np.int32(-0x70002000), out=integers)
        return np.multiply(result, np.float32(2.0**112), out=result)

    def round(self, x: np.ndarray) -> np.ndarray:
        return x.astype(self.dtype).view(self.stored)


class _BF16(MatrixFormat):
    def load(self, stored: np.ndarray) -> np.ndarray:
        import numpy as np

        integers = np.empty(stored.shape, np.int32)
        np.copyto(integers, stored.view(np.int16))
        return np.left_shift(integers, 16, out=integers).view(np.float32)

    def round(self, x: np.ndarray) -> np.ndarray:
        import numpy as np

        bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
        rounded = bits >> 16
        rounded &= 1
        rounded += bits
        rounded += 0x7FFF
        rounded >>= 16
        if np.isnan(np.max(x, initial=0)):
            rounded = np.where(np.isnan(x), self.nan, rounded)
        return rounded.astype(self.stored)


F16 = _F16("f16", "float16", "<f2", 5, 10)
BF16 = _BF16("bf16", "bfloat16", "<u2", 8, 7)
F32 = ElementType("f32", "float32", "<f4")
F64 = ElementType("f64", "float64", "<f8")
_INTEGERS = tuple(
    ElementType(f"{kind[0]}{bits}", f"{kind}{bits}", f"<{kind[0]}{bits // 8}")
    for kind in ("int", "uint")
    for bits in (64, 32, 16, 8)
)
_BYTES = (("bool", "bool"), ("f8_e4m3", "float8_e4m3fn"), ("f8_e5m2", "float8_e5m2"))

#: Formats that the MAC trees stream, by name, in the order in which instructions count them.
FORMATS = {entry.name: entry for entry in (F16, BF16)}
#: Bytes of an element that the trees multiply and that KV caches hold: f16 or bf16, whatever format it is loaded from.
ITEM_BYTES = F16.bytes_of(1)
#: Types that a checkpoint may have parameters in, by their published names.
FLOATS = tuple(entry.published for entry in (*FORMATS.values(), F32, F64))
#: All types, by our names and by published ones.
ELEMENTS = {entry.name: entry for entry in (F64, F32, *FORMATS.values(), *_INTEGERS)}
ELEMENTS |= {name: ElementType(name, torch, "<u1") for name, torch in _BYTES}
PUBLISHED = {entry.published: entry for entry in ELEMENTS.values()}


def matrix_type_of(called: object) -> str:
    """The format to which weights are converted by default. called: any name of the type that they have."""
    names = ((kind.name, kind.published, kind.torch) for kind in FORMATS.values())
    return next((name for name, *others in names if called in (name, *others)), F16.name)
