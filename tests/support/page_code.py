"""The Python blocks of a page of documentation, as one program."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

from support import ROOT


def read_page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def python_blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def run_blocks(blocks: list[str]) -> SimpleNamespace:
    """The names that blocks define, one after another in one program."""
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    return SimpleNamespace(**names)
