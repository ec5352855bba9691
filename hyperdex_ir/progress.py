"""What a compile says while it works: log lines and progress bars, all on stderr, no bars when it is not a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hyperdex_ir import __version__


def log(message: str) -> None:
    """One log line."""
    print(f"[ INFO ] : {message}", file=sys.stderr, flush=True)


def log_banner() -> None:
    """Name, version and copyright."""
    log(f"** hyperdex-ir Model SDK Version {__version__} **")
    log("** Copyright (c) 2026 the hyperdex-ir authors, Apache-2.0 **")


def log_phase(number: int, title: str, *lines: str) -> None:
    """The heading of a phase and what it is about to do."""
    log(f"** Phase-{number} : {title} **")
    for line in lines:
        log(line)


@contextmanager
def byte_progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar over `total` bytes; yields the function that is told of each further count of bytes done."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)
