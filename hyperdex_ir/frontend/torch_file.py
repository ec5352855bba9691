"""Files in torch's own format, as tensors that are read by rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hyperdex_ir.frontend.tensors import ELEMENTS
from hyperdex_ir.torch_weights import element_type, load_tensors, raw_bytes


@dataclass(frozen=True, eq=False)
class TorchTensor:
    """A tensor that torch holds, most often mapped from its file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    values: Any

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows start..stop-1 of the first dimension."""
        part = self.values[start:stop] if self.shape else self.values[None]
        return raw_bytes(part).view(ELEMENTS[self.dtype]).reshape(tuple(part.shape))


def read_torch_file(path: Path) -> dict[str, TorchTensor]:
    """The tensors of a file, by name. Raises CheckpointError when torch cannot read it without running code of it."""
    return {
        name: TorchTensor(name, element_type(path, name, tensor), tuple(tensor.shape), tensor)
        for name, tensor in load_tensors(path).items()
    }
