"""The length that a user has chosen, beside the model's own limit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hyperdex_ir.backend.length import note_length


@pytest.mark.parametrize(
    ("asked", "learned", "said"),
    [(None, False, False), (128, False, False), (129, False, True), (129, True, False)],
)
def test_a_length_beyond_the_limit_is_said(
    asked: int | None, learned: bool, said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Learned positions are left to the trace, which refuses more."""
    summary: Any = SimpleNamespace(max_positions=128, learned_positions=learned)
    note_length(asked, summary)
    assert ("max_length is 129: the model was made for 128 positions" in capsys.readouterr().err) == said
