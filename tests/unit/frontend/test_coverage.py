"""Table of transformers' causal language models: each is supported or has the mechanism that it needs."""

from __future__ import annotations

import pytest
import transformers
from support import ROOT

from hyperdex_ir.frontend.coverage import MISSING, causal_types, coverage_table, supported_types

pytestmark = pytest.mark.skipif(
    f"\ntransformers=={transformers.__version__} " not in (ROOT / "requirements.lock").read_text(),
    reason="the table is that of the locked version of transformers",
)


def test_each_type_stands_in_one_place() -> None:
    listed = [*supported_types(), *(name for names in MISSING.values() for name in names)]
    assert sorted(listed) == sorted(causal_types())


def test_at_least_70_are_supported() -> None:
    assert len(supported_types()) >= 70


def test_the_page_has_the_table() -> None:
    assert coverage_table() in (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
