"""The IR tests of tests/filecheck, run by lit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support import TESTS


def test_filecheck() -> None:
    """All in one process of lit: it takes longer to start than most folders take to run."""
    lit = Path(sys.executable).with_name("lit")
    command = [lit, "-v", "-j1", TESTS / "filecheck"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Failed" not in result.stdout
