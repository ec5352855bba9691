"""docs/isa.md is generated, and current."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support import ROOT

from hyperdex_ir.isa.codec import operand_places, used_bits
from hyperdex_ir.isa.instructions import REGISTER_NAMES, SPECS, Spec
from hyperdex_ir.isa.reference import reference_page

PAGE = ROOT / "docs" / "isa.md"


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


def test_operands_say_what_is_read_and_written() -> None:
    page = reference_page()
    for spec in SPECS:
        section = page.split(f"\n### {spec.name}\n")[1].split("\n### ")[0]
        for operand in (*spec.lmu, *spec.hbm):
            row = next(line for line in section.splitlines() if f"| `{operand.fields()[0].name}` |" in line)
            assert ("| writes " if operand.writes else "| reads ") in row
    assert "| writes `groups` groups of one column |" in page
    assert "| reads `n` columns, each when its result is there; optional |" in page


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.operands], ids=lambda spec: spec.name)
def test_pictures_have_a_bar_at_the_lowest_bit_of_each_field(spec: Spec) -> None:
    section = reference_page().split(f"\n### {spec.name}\n")[1].split("```text\n")[1].split("```")[0]
    lines = section.splitlines()
    assert [int(line[:3]) for line in lines] == list(range(0, 32 * len(lines), 32))
    bars = {32 * row + at / 2 for row, line in enumerate(lines) for at, bar in enumerate(line[4:]) if bar == "|"}
    lows = {0, *(place.low for one in operand_places(spec) for place in (one.present, *one.fields) if place)}
    assert bars == lows | {used_bits(spec)} - {32 * len(lines)}
