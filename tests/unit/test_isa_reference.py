"""docs/isa.md is generated, and current."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hyperdex_ir.isa.instructions import REGISTER_NAMES, SPECS
from hyperdex_ir.isa.reference import reference_page

PAGE = Path(__file__).parents[2] / "docs" / "isa.md"


def test_page_is_current() -> None:
    made = subprocess.run(
        [sys.executable, "-m", "hyperdex_ir.isa.reference"], capture_output=True, text=True, check=True
    )
    assert PAGE.read_text() == made.stdout, "run: python -m hyperdex_ir.isa.reference > docs/isa.md"


def test_page_names_everything() -> None:
    page = reference_page()
    for spec in SPECS:
        assert f"\n### {spec.name}\n\nOpcode 0x{spec.opcode:02x}, group {spec.group.value}," in page
        assert spec.doc in page
    for field in (field for spec in SPECS for field in spec.fields()):
        assert f"| `{field.name}` |" in page
        assert all(f" {number} `{choice}`" in page for number, choice in enumerate(field.choices))
    assert all(f"| r{number} | `{name}` |" in page for number, name in REGISTER_NAMES.items())


def test_bit_ranges_of_one_instruction() -> None:
    section = reference_page().split("\n### sample\n")[1].split("\n### ")[0]
    rows = [line.split(" | ")[0].removeprefix("| ") for line in section.splitlines() if line.startswith("| ")]
    assert rows == ["bits", "---", "12:8", "36:13", "60:37", "65:61", "89:66", "94:90", "134:95", "139:135"]
