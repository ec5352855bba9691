"""What of mapped files is in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

_STATUS = Path("/proc/self/status")
needs_proc = pytest.mark.skipif(not _STATUS.is_file(), reason="no /proc, which says what is resident")


def mapped_bytes() -> int:
    """How much of the files that this process has mapped is resident."""
    return next(int(line.split()[1]) << 10 for line in _STATUS.read_text().splitlines() if line.startswith("RssFile:"))
