"""The ceiling on a compile's memory: its expected need, the size of its blocks, and checks while it works.

Resident memory counts, imported libraries and mapped pages included. A compile is one process.
"""

from __future__ import annotations

import os
import re
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path

from hyperdex_ir.backend.payload import BLOCK_BYTES
from hyperdex_ir.errors import MemoryCeilingError, OptionError
from hyperdex_ir.memory.layout import ModelLayout

MIB = 1 << 20
_UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", re.ASCII)
#: The libraries and the trace of a model, as measured (332 and 60 MiB for 24 layers of OPT), and some to spare.
_LIBRARIES = 368 * MIB
_TRACE = 80 * MIB
#: Copies of a block in memory: as read, converted and checked; its tiles and their beats; and those made by sorting.
_COPIES = 8
_SMALLEST_BLOCK = 64 << 10
_OTHER_BUFFERS = 24 * MIB  # buffers for turning matrices, and for reading files back
_WIDEST_ITEM = 4  # bytes: a checkpoint's float32 becomes a matrix of fewer


def parse_size(value: object) -> int:
    """Bytes from a number of bytes, or a text such as `1536MiB` or `1.5 GiB`. Raises OptionError."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    unit = _UNITS.get(match[2].upper()) if match else None
    size = 0 if match is None or unit is None or len(match[1]) > 20 else int(float(match[1]) * unit)
    if size < 1:
        raise OptionError(f"max_ram is {value!r}: must be a size such as 1536MiB", "units are KiB, MiB, GiB and bytes")
    return size


def peak_bytes() -> int:
    """The most memory that this process has had resident so far (VmHWM)."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):  # not Linux
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return largest if sys.platform == "darwin" else largest << 10


def resident_bytes() -> int:
    """Bytes that are resident now; where the system does not say, the most that were."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return peak_bytes()


def largest_row(layout: ModelLayout) -> int:
    """Bytes of the largest row in a checkpoint. A row is never split; for experts, a row is the matrix of one."""
    return max((prod(parameter.shape[1:]) * _WIDEST_ITEM for parameter in layout.parameters()), default=0)


def base_bytes() -> int:
    """Memory of a compile before it reads a weight: resident bytes, and those of imports and a trace still to come."""
    return resident_bytes() + _TRACE + (0 if "torch" in sys.modules else _LIBRARIES - min(resident_bytes(), 40 * MIB))


def needed_bytes(layout: ModelLayout) -> int:
    """A ceiling that a new process will not exceed while it compiles the model, with the usual blocks."""
    return _LIBRARIES + _TRACE + _OTHER_BUFFERS + _COPIES * max(BLOCK_BYTES, largest_row(layout))


@dataclass(frozen=True)
class Ceiling:
    """The most bytes that a compile may have resident; None: as many as it needs."""

    limit: int | None = None

    def check_base(self) -> None:
        """Raises MemoryCeilingError when not even small blocks fit. Call it before any work."""
        self._check(base_bytes() + _OTHER_BUFFERS + _COPIES * _SMALLEST_BLOCK, "libraries and trace")

    def block_bytes(self, layout: ModelLayout) -> int:
        """The size of the blocks in which weights are read. Call it when the model is traced.

        Raises MemoryCeilingError, with the numbers, when the largest row does not fit beside the resident memory.
        """
        if self.limit is None:
            return BLOCK_BYTES
        now, row = resident_bytes() + _OTHER_BUFFERS, largest_row(layout)
        self._check(now + _COPIES * max(row, _SMALLEST_BLOCK), f"{_COPIES} copies of rows of {row:,} bytes")
        return max(min((self.limit - now) // _COPIES, BLOCK_BYTES), _SMALLEST_BLOCK)

    def check(self) -> None:
        """Raises MemoryCeilingError when more is resident than allowed. Call it between two parts of the work."""
        self._check(resident_bytes(), "resident now")

    def check_room(self, count: int, what: str) -> None:
        """Raises MemoryCeilingError when `count` more bytes would be too much. Call it before they are taken."""
        self._check(resident_bytes() + count, what)

    def watched(self, advance: Callable[[int], None]) -> Callable[[int], None]:
        """A function that calls `advance`, and checks after each block."""
        if self.limit is None:
            return advance

        def step(count: int) -> None:
            advance(count)
            self.check()

        return step

    def _check(self, needed: int, what: str) -> None:
        if self.limit is not None and needed > self.limit:
            raise MemoryCeilingError(
                f"max_ram is {_mib(self.limit)}, the compile needs {_mib(needed)} ({what})",
                f"allow at least --max-ram {-(-needed // (64 * MIB)) * 64}MiB",
            )

    def report(self) -> str:
        """The most memory that the process has had resident, for the log."""
        allowed = "" if self.limit is None else f" of {_mib(self.limit)} allowed"
        return f"Peak memory: {_mib(peak_bytes())}{allowed}"


def _mib(count: int) -> str:
    return f"{-(-count // MIB):,} MiB"
