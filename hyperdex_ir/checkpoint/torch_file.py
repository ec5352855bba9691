"""Files in torch's own format, as tensors that are read by rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hyperdex_ir.checkpoint.tensors import row_bytes
from hyperdex_ir.checkpoint.torch_weights import element_type, is_mapped, let_go, load_tensors, raw_bytes
from hyperdex_ir.isa.formats import PUBLISHED

#: Bytes of a mapped matrix that are in memory while columns are read from it.
_BLOCK_BYTES = 8 << 20


@dataclass(frozen=True, eq=False)
class TorchTensor:
    """A tensor that torch holds. mapped: True when it stays in its file, so that only rows being read take memory."""

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
        return self._read(self.values[start:stop] if self.shape else self.values[None])

    def columns(self, start: int, stop: int) -> np.ndarray:
        """Columns start..stop-1 of a matrix."""
        out = np.empty((self.shape[0], stop - start), PUBLISHED[self.dtype].dtype)
        step = max(_BLOCK_BYTES // max(row_bytes(self), 1), 1)
        for first in range(0, len(out), step):
            out[first : first + step] = self._read(self.values[first : first + step, start:stop])
        return out

    def _read(self, part: Any) -> np.ndarray:
        data = raw_bytes(part)
        if self.mapped:
            data = data.copy()
            let_go(part)
        return data.view(PUBLISHED[self.dtype].dtype).reshape(tuple(part.shape))


def read_torch_file(path: Path) -> dict[str, TorchTensor]:
    """The tensors of a file, by name. Raises CheckpointError when torch cannot read it without running its code."""
    mapped = is_mapped(path)
    return {
        name: TorchTensor(name, element_type(path, name, tensor), tuple(tensor.shape), tensor, mapped)
        for name, tensor in load_tensors(path).items()
    }
