"""The IR tests of tests/filecheck, run by lit, one folder a test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support import TESTS

ROOT = TESTS / "filecheck"
FOLDERS = sorted({path.parent for path in ROOT.rglob("*.mlir")})


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.relative_to(ROOT).as_posix())
def test_filecheck(folder: Path) -> None:
    lit = Path(sys.executable).with_name("lit")
    result = subprocess.run([lit, "-v", "-j1", folder], capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
