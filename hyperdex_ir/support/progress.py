"""Output of a compile while it works: log lines and progress bars, all on stderr; bars on a terminal only."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from shutil import get_terminal_size

from hyperdex_ir import __version__
from hyperdex_ir.errors import printable

_REDRAW = 0.1  # seconds


def log(message: str) -> None:
    """Prints one log line."""
    print(f"[ INFO ] : {printable(message)}", file=sys.stderr, flush=True)


def log_banner() -> None:
    """Prints name, version and copyright."""
    log(f"** hyperdex-ir Model SDK Version {__version__} **")
    log("** Copyright (c) 2026 the hyperdex-ir authors, Apache-2.0 **")


def log_phase(number: int, title: str, *lines: str) -> None:
    """Prints the heading of a phase, and lines about its work."""
    log(f"** Phase-{number} : {title} **")
    for line in lines:
        log(line)


@contextmanager
def byte_progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar over `total` bytes; yields the function to call with each further count of bytes done."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)


@contextmanager
def file_progress(name: str, total: int | None, done: int) -> Iterator[Callable[[int], None]]:
    """The bar of a download, as the product page shows it; elsewhere than on a terminal a line when the file is there.

    total: bytes, None: not known. done: bytes of an earlier attempt. Yields the function to call with further bytes.
    """
    if not sys.stderr.isatty():
        yield lambda count: None
        log(f"{name}: {'all' if total is None else f'{total:,}'} bytes")
        return
    name, shown = printable(name), 0.0

    def advance(count: int) -> None:
        nonlocal done, shown
        done += count
        if time.monotonic() - shown >= _REDRAW or done == total:
            shown = time.monotonic()
            print(f"\r{_bar(name, done, total)}", end="", file=sys.stderr, flush=True)

    try:
        yield advance
    finally:
        print(f"\r{_bar(name, done, total)}", file=sys.stderr, flush=True)


def _bar(name: str, done: int, total: int | None) -> str:
    """`config.json: 100%|█████| 653/653`, as wide as the terminal; without a bar when the end is not known."""
    if total is None:
        return f"{name}: {short_size(done)}"
    part = done / total if total else 1.0
    left, right = f"{name}: {part:4.0%}|", f"| {short_size(done)}/{short_size(total)}"
    room = max(get_terminal_size().columns - len(left) - len(right) - 1, 1)
    filled = min(int(part * room), room)
    return f"{left}{'█' * filled}{' ' * (room - filled)}{right}"


def short_size(count: float) -> str:
    """Three digits and a unit of 1000: 653, 899k, 2.63G."""
    unit, units = "", iter("kMGT")
    while count >= (999.5 if unit else 1000) and unit != "T":
        count, unit = count / 1000, next(units)
    digits = 0 if not unit or count >= 99.95 else 1 if count >= 9.995 else 2
    return f"{count:.{digits}f}{unit}"
