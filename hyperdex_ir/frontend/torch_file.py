"""Files in torch's own format, as tensors that are read by rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hyperdex_ir.frontend.tensors import ELEMENTS
from hyperdex_ir.torch_weights import element_type, is_mapped, let_go, load_tensors, raw_bytes


@dataclass(frozen=True, eq=False)
class TorchTensor:
    """A tensor that torch holds. mapped: it is in its file, and takes no memory but for the rows that are read."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    values: Any
    mapped: bool

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows start..stop-1 of the first dimension."""
        part = self.values[start:stop] if self.shape else self.values[None]
        data = raw_bytes(part)
        if self.mapped:
            data = data.copy()
            let_go(part)
        return data.view(ELEMENTS[self.dtype]).reshape(tuple(part.shape))


def read_torch_file(path: Path) -> dict[str, TorchTensor]:
    """The tensors of a file, by name. Raises CheckpointError when torch cannot read it without running code of it."""
    mapped = is_mapped(path)
    return {
        name: TorchTensor(name, element_type(path, name, tensor), tuple(tensor.shape), tensor, mapped)
        for name, tensor in load_tensors(path).items()
    }
