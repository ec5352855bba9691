"""The Hub that tests of this folder ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes.hub_models import FILES
from support.processes.hub_server import HubState, hub_of_tests


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubState]:
    with hub_of_tests(dict(FILES), tmp_path, monkeypatch) as state:
        yield state
