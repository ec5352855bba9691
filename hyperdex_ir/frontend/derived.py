"""Parameters that are in no checkpoint: computed here as transformers computes them, and carried like weights."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from hyperdex_ir.errors import UnsupportedModelError

#: Positions computed at a time.
_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class RotaryTable:
    """Cosine and sine of every position, [length, 2, size] of float32; row p is cos(p), then sin(p).

    frequency: [size / 2] of float32, the angle of a position. column: which frequency each column takes, [size].
    scaling: multiplies the cosines and sines, in float32. kind: the name of the frequencies' rule.
    """

    key: str
    length: int
    size: int
    frequency: np.ndarray
    column: np.ndarray
    scaling: np.float32
    kind: str

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.length, 2, self.size

    @classmethod
    def of_module(cls, path: str, module: torch.nn.Module, length: int) -> RotaryTable:
        """What a rotary module of a model (its path given, on any device) computes for a forward of `length` tokens.

        Raises UnsupportedModelError, naming the module, when it is not cos and sin of frequency times position.
        """
        name = f"{path} ({type(module).__name__})"
        if list(inspect.signature(module.forward).parameters) != ["x", "position_ids"]:
            raise UnsupportedModelError(f"{name}: a rotary module that takes other than positions is not supported")
        config = getattr(module, "config", None)
        if config is None:
            raise UnsupportedModelError(f"{name}: a rotary module without a configuration is not supported")
        # The forward at the last position makes types that depend on the length choose their frequencies;
        # the fraction tells the columns' layout apart even when that position is 0.
        probed = torch.tensor([[length - 1, 0.5]])
        with torch.device("cpu"), torch.no_grad():
            real: Any = type(module)(config)
            cos, sin = real(torch.zeros(1), probed)
        frequency = real.inv_freq.float().numpy().copy()
        scaling = np.float32(real.attention_scaling)
        kind = str(getattr(real, "rope_type", "default"))
        waves = np.stack([cos[0].numpy(), sin[0].numpy()], axis=1)
        for column in _layouts(len(frequency)):
            table = cls(f"{path}.table", length, waves.shape[-1], frequency, column, scaling, kind)
            if len(column) == table.size and np.allclose(table._at(probed[0].numpy()), waves, rtol=1e-5, atol=1e-5):
                return table
        raise UnsupportedModelError(f"{name}: does not compute cosine and sine of frequency times position")

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows start..stop-1: [stop - start, 2, size] of float32."""
        return self._at(np.arange(start, stop, dtype=np.float32))

    def values(self) -> np.ndarray:
        """The whole table, [length, 2, size] of float32."""
        table = np.empty(self.shape, np.float32)
        for start in range(0, self.length, _BLOCK):
            stop = min(start + _BLOCK, self.length)
            table[start:stop] = self.rows(start, stop)
        return table

    def _at(self, position: np.ndarray) -> np.ndarray:
        # The product is rounded to float32, as transformers does; cosine and sine are then rounded once.
        angle = (self.frequency[None, :] * position[:, None]).astype(np.float64)
        waves = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
        return waves[:, :, self.column] * self.scaling


def _layouts(count: int) -> Iterator[np.ndarray]:
    """How `count` frequencies may lie in the columns: twice after another, each twice, or once."""
    one = np.arange(count)
    yield np.concatenate([one, one])
    yield np.repeat(one, 2)
    yield one


def rotary_modules(model: PreTrainedModel) -> Iterator[tuple[str, torch.nn.Module]]:
    """The model's rotary modules and their paths, in order."""
    for path, module in model.named_modules():
        if type(module).__name__.endswith("RotaryEmbedding"):
            yield path, module
