"""Memory that `sample` reads from HBM: 64 bytes of settings, then one byte for each token of the vocabulary.

Little-endian: i64 mode, i64 top_k, u64 seed, f32 temperature, f32 top_p, f32 repetition_penalty, zeros; from byte 64
on, a byte that is not 0 for each token that the text holds so far. Section 9 of docs/arithmetic.md says what they mean.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

#: Bytes of the settings, which lie before the tokens' bytes.
SETTINGS_BYTES = 64
#: The values of `mode`.
GREEDY, SAMPLE = 0, 1

#: Settings that the machine refuses, in the order in which it checks them.
REFUSALS = (
    "a mode other than 0 and 1",
    "a negative top_k",
    "a temperature that is not positive and finite",
    "a top_p outside 0 to 1",
    "a repetition penalty that is not positive and finite",
)

_RECORD = struct.Struct("<qqQfff28x")


@dataclass(frozen=True)
class Settings:
    """The settings as the machine has them. temperature, top_p and repetition_penalty are float32 numbers."""

    mode: int = GREEDY
    top_k: int = 0  # 0: all
    seed: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0

    def pack(self) -> bytes:
        """The 64 bytes; floats are rounded to float32. Raises OverflowError or struct.error beyond a field's range."""
        floats = self.temperature, self.top_p, self.repetition_penalty
        return _RECORD.pack(self.mode, self.top_k, self.seed, *floats)

    @classmethod
    def unpack(cls, data: bytes) -> Settings:
        """The settings in 64 bytes."""
        return cls(*_RECORD.unpack(data))

    def refusal(self) -> int | None:
        """The number in `REFUSALS` of the first reason to refuse the settings; None when the machine accepts them."""
        checks = (
            self.mode in (GREEDY, SAMPLE),
            self.top_k >= 0,
            0 < self.temperature < math.inf,
            0 <= self.top_p <= 1,
            0 < self.repetition_penalty < math.inf,
        )
        return None if all(checks) else checks.index(False)
