"""Routes from the rows of `hyperdex_model.bin` to the parameters that hold some of them, on every device.

The source's tensors are those of a compile for one device, where the rows of several keys may be one tensor. A divided
model may merge other keys, and a tensor may go to two parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np

from hyperdex_ir.backend.image_writer import Assembler
from hyperdex_ir.backend.payload import PlacedWriter
from hyperdex_ir.errors import FileFormatError
from hyperdex_ir.isa.formats import ELEMENTS
from hyperdex_ir.memory.layout import ModelLayout, Shard
from hyperdex_ir.memory.map import MemoryMap
from hyperdex_ir.memory.shards import local_part

_FORCE = "compile with --force"


@dataclass(frozen=True)
class _Route:
    """The route from a source tensor's rows to a parameter's rows on one device, from `row` on; or, where several
    parts of each row stand side by side, to its columns from `column` on."""

    assembler: Assembler
    row: int
    shard: Shard | None
    device: int
    column: int | None = None

    def put(self, first: int, rows: np.ndarray) -> None:
        """Takes the device's share of rows `first`, `first + 1`, ... of the source."""
        if self.shard is None:
            self.assembler.put_rows(self.row + first, rows)
        elif self.shard.dim == 0:
            held = self.shard.held(self.device)
            start, stop = max(first, held.start), min(first + len(rows), held.stop)
            if start < stop:
                self.assembler.put_rows(self.row + start - held.start, rows[start - first : stop - first])
        elif self.column is not None:
            self.assembler.put_columns(first, self.column, local_part(rows, self.shard, self.device))
        else:
            self.assembler.put_rows(self.row + first, local_part(rows, self.shard, self.device))


class Routes:
    """The destinations of each source tensor's rows. Values that the compiler provides, and padding, are put at once.

    tensors: the source's, as `hyperdex_config.json` lists them. devices: the writers of each device's channels.
    """

    def __init__(
        self,
        layout: ModelLayout,
        tensors: Sequence[Mapping[str, Any]],
        memory_map: MemoryMap,
        devices: Sequence[Sequence[PlacedWriter]],
    ):
        self._routes: dict[tuple[str, ...], list[_Route]] = {}  # by all keys of a source tensor, or one of them
        self._rows = _rows_of_keys(layout, tensors)
        self._assemblers = [
            Assembler(parameter, memory_map.addresses[parameter.name], memory_map.target, writers)
            for parameter in layout.parameters()
            for writers in devices
        ]
        whole = {tuple(tensor["keys"]) for tensor in tensors}
        for number, assembler in enumerate(self._assemblers):
            self._plan(assembler, number % len(devices), whole)

    def _plan(self, assembler: Assembler, device: int, whole: set[tuple[str, ...]]) -> None:
        parameter = assembler.parameter
        if parameter.values is not None:
            assembler.put_rows(0, np.array(parameter.values, ELEMENTS[parameter.dtype].dtype))
        elif parameter.shards is None and parameter.keys in whole:
            self._add(parameter.keys, _Route(assembler, 0, None, device))
        else:
            self._plan_keys(assembler, device)

    def _plan_keys(self, assembler: Assembler, device: int) -> None:
        """Plans each key of a parameter by itself, one after another, and zeros behind the device's share of it."""
        parameter, row = assembler.parameter, 0
        if parameter.shards is not None and len(parameter.shards) > 1 and parameter.shards[0].dim == 1:
            self._plan_columns(assembler, device, parameter.keys[0], parameter.shards)
            return
        for key, shard in zip(parameter.keys, parameter.shards or (None,) * len(parameter.keys), strict=True):
            self._add((key,), _Route(assembler, row, shard, device))
            if shard is None or shard.dim != 0:
                row += self._rows_of(key)
                continue
            held = len(shard.held(device))
            assembler.put_zeros(row + held, shard.size - held)
            row += shard.size

    def _plan_columns(self, assembler: Assembler, device: int, key: str, shards: Sequence[Shard]) -> None:
        """Plans several parts of each row of one tensor, side by side."""
        for shard, column in zip(shards, accumulate((shard.size for shard in shards), initial=0), strict=False):
            self._add((key,), _Route(assembler, 0, shard, device, column))

    def _add(self, keys: tuple[str, ...], route: _Route) -> None:
        self._routes.setdefault(keys, []).append(route)

    def put(self, tensor: Mapping[str, Any], first: int, rows: np.ndarray) -> None:
        """Takes rows `first`, `first + 1`, ... of a source tensor, [rows, ...].

        Raises FileFormatError when the table does not fit the layout.
        """
        keys = tuple(tensor["keys"])
        self._pass(keys, tensor, first, rows)
        if len(keys) == 1 or not any((key,) in self._routes for key in keys):
            return
        starts = [*accumulate(map(self._rows_of, keys), initial=0)]
        if starts[-1] != tensor["shape"][0]:
            raise FileFormatError(f"{tensor['name']}: {tensor['shape'][0]} rows, its keys have {starts[-1]}", _FORCE)
        for key, start, stop in zip(keys, starts, starts[1:], strict=False):
            low, high = max(first, start), min(first + len(rows), stop)
            if low < high:
                self._pass((key,), tensor, low - start, rows[low - first : high - first])

    def _pass(self, keys: tuple[str, ...], tensor: Mapping[str, Any], first: int, rows: np.ndarray) -> None:
        for route in self._routes.get(keys, ()):
            if route.assembler.parameter.dtype != tensor["dtype"]:
                raise FileFormatError(f"{tensor['name']}: is {tensor['dtype']}, not what the layout says", _FORCE)
            route.put(first, rows)

    def _rows_of(self, key: str) -> int:
        if key not in self._rows:
            raise FileFormatError(f"{key}: nothing says how many rows it has", _FORCE)
        return self._rows[key]

    def finish(self) -> None:
        """Raises FileFormatError unless every parameter is complete."""
        for assembler in self._assemblers:
            if assembler.missing:
                name = assembler.parameter.name
                raise FileFormatError(f"{name}: not all of it is in the converted checkpoint", _FORCE)


def _rows_of_keys(layout: ModelLayout, tensors: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Number of rows of each key's tensor, known where the key stands by itself, or is divided."""
    rows = {tensor["keys"][0]: prod(tensor["shape"][:1]) for tensor in tensors if len(tensor["keys"]) == 1}
    for parameter in layout.parameters():
        for key, shard in zip(parameter.keys, parameter.shards or (None,) * len(parameter.keys), strict=True):
            if shard is not None and shard.dim == 0:
                rows[key] = max(rows.get(key, 0), shard.extent)
            elif len(parameter.keys) == 1:
                rows[key] = prod(parameter.shape[:1])
    return rows
