"""Division of a model's parameters over its devices, term by term.

    bytes of a device = total / n + replication + padding

total: every stored element, once. replication: further copies of elements, a device's share of them: tensors that
every device holds whole, parts that several devices hold (KV heads), tensors stored in two forms (a tied embedding).
padding: zeros after a device's part, when sizes do not divide, and up to whole tiles and stripes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from hyperdex_ir.errors import COMPILE_AGAIN, FileFormatError
from hyperdex_ir.isa.formats import ELEMENTS
from hyperdex_ir.memory.layout import ModelLayout, Parameter, Shard
from hyperdex_ir.memory.map import MemoryMap, parameter_bytes
from hyperdex_ir.targets import Target

#: Limit for the stored ranges of a tensor's rows or columns: those of each parameter are compared with all before.
_MOST_PIECES = 1 << 10


@dataclass
class Division:
    """Bytes over all devices together. device: bytes on one device, the same for each.

    total: every element once. whole: further copies of tensors that every device holds. shared: further copies of parts
    that several devices hold. twice: tensors in a second form. parts: zeros after parts. tiles: zeros up to whole tiles
    and stripes.
    """

    devices: int
    total: int = 0
    whole: int = 0
    shared: int = 0
    twice: int = 0
    parts: int = 0
    tiles: int = 0
    device: int = 0

    @property
    def replication(self) -> int:
        return self.whole + self.shared + self.twice

    @property
    def padding(self) -> int:
        return self.parts + self.tiles


def divide_parameters(layout: ModelLayout, memory_map: MemoryMap, devices: int) -> Division:
    """Computes the terms for a model each of whose devices stores `layout`.

    Raises FileFormatError unless the layout is for `devices` devices, and the terms add up to the bytes in the memory
    map.
    """
    layout.check_devices(devices)
    division = Division(devices, device=memory_map.parameter_end)
    seen: dict[str, list[range]] = {}
    for parameter in layout.parameters():
        _add(division, parameter, seen, memory_map.target)
    found = division.total + division.replication + division.padding
    if found != devices * division.device:
        raise FileFormatError(
            f"{found} bytes of parameters on {devices} devices, the memory map says {division.device} on each",
            COMPILE_AGAIN,
        )
    return division


def _add(division: Division, parameter: Parameter, seen: dict[str, list[range]], target: Target) -> None:
    devices, item = division.devices, ELEMENTS[parameter.dtype].dtype.itemsize
    stored = prod(parameter.shape) * item
    division.tiles += devices * (parameter_bytes(parameter, target) - stored)
    if parameter.shards is None:
        new = 0 if "+".join(parameter.keys) in seen else stored
        seen["+".join(parameter.keys)] = []
        division.total += new
        division.twice += stored - new
        division.whole += (devices - 1) * stored
        return
    for key, shard in zip(parameter.keys, parameter.shards, strict=True):
        # With dimension 1, only the columns of each tensor are divided; its rows are those of the parameter.
        width = item * prod(parameter.shape[1:] if shard.dim == 0 else (parameter.shape[0], *parameter.shape[2:]))
        held = sum(len(shard.held(device)) for device in range(devices)) * width
        pieces = _union([shard.held(device) for device in range(devices)])
        once = sum(map(len, pieces)) * width
        again = _known(seen, key, shard, pieces, width)
        division.total += once - again
        division.twice += again
        division.shared += held - once
        division.parts += devices * shard.size * width - held


def _union(ranges: Sequence[range]) -> list[range]:
    """The same numbers as sorted ranges that do not overlap."""
    merged: list[range] = []
    for one in sorted(filter(len, ranges), key=lambda one: one.start):
        if merged and one.start <= merged[-1].stop:
            merged[-1] = range(merged[-1].start, max(merged[-1].stop, one.stop))
        else:
            merged.append(one)
    return merged


def _known(seen: dict[str, list[range]], key: str, shard: Shard, pieces: list[range], width: int) -> int:
    """Bytes of a key's pieces that another parameter stores, too; records the pieces.

    Another parameter that is divided along the other dimension has the whole tensor.
    """
    same, other = f"{key}@{shard.dim}", f"{key}@{1 - shard.dim}"
    known = seen.get(same, [])
    seen[same] = _union([*known, *pieces])
    if len(seen[same]) > _MOST_PIECES:
        raise FileFormatError(f"{key}: in {len(seen[same])} pieces, the most is {_MOST_PIECES}", COMPILE_AGAIN)
    if other in seen:
        return sum(map(len, pieces)) * width
    return sum(len(range(max(a.start, b.start), min(a.stop, b.stop))) for a in known for b in pieces) * width
