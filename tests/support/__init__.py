"""Modules that several tests use, and scripts that tests run in processes of their own."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

#: The folder `tests/`, which is on the path of whatever imports this package.
TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
#: True in `make soak`: full counts, new random examples.
SOAK = os.environ.get("SOAK") == "1"

Case = TypeVar("Case")


def chosen(cases: Iterable[Case], *few: Case) -> list[Case]:
    """All cases in a soak, else the few that are named. Raises ValueError for one that is not among them."""
    cases = list(cases)
    for case in few:
        cases.index(case)
    return cases if SOAK else list(few)
