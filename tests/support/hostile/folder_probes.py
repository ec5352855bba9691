"""Misdeeds of a command that the watch on hostile folders has to notice."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hyperdex_ir.support.locations import hub_root
from support.hostile.case import Case


def _native_process(case: Case) -> None:
    """A process that no audit event tells of."""
    libc = ctypes.CDLL(None)
    libc.system(b"true")


def _orphan(case: Case) -> None:
    if os.fork() == 0:
        time.sleep(60)


def _write(path: Path) -> None:
    path.write_text("x")


def _touch(case: Case) -> None:
    os.utime(os.open(case.outside / "key", os.O_RDONLY), (1, 1))


def _raise(case: Case) -> None:
    raise ZeroDivisionError


def _fill(case: Case) -> None:
    kept = [bytearray(64 << 20) for _ in range(100)]
    del kept


def _spin(case: Case) -> None:
    while True:
        pass


#: Misdeeds that have to be noticed.
PROBES: dict[str, Callable[[Case], object]] = {
    "nothing": lambda case: None,
    "system": lambda case: os.system("true"),
    "native process": _native_process,
    "orphan": _orphan,
    "write outside": lambda case: _write(case.outside / "new"),
    "write through a descriptor": lambda case: os.close(
        os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=os.open(case.outside, os.O_RDONLY))
    ),
    "write into the working folder": lambda case: _write(case.cwd / "new"),
    "write of the same bytes": lambda case: (case.outside / "key").write_bytes((case.outside / "key").read_bytes()),
    "delete": lambda case: (case.outside / "key").unlink(),
    "mode": lambda case: os.chmod(case.outside / "key", 0o644),
    "time": _touch,
    "elsewhere": lambda case: _write(case.root / "new"),
    "hub": lambda case: (hub_root() / "other" / "model" / "kept").write_text("x"),
    "connection": lambda case: __import__("socket").getaddrinfo("localhost", 1),
    "escape": lambda case: print("\x1b[2J"),
    "C1": lambda case: print("\x9b2J"),
    "traceback": _raise,
    "memory": _fill,
    "no end": _spin,
    "two errors": lambda case: (print("error: a\nerror: b", file=sys.stderr), sys.exit(1)),
    "no error": lambda case: sys.exit(1),
    "exit code": lambda case: sys.exit(3),
}
