"""Modules that several tests use, and scripts that tests run in processes of their own."""

import os
from pathlib import Path

#: The folder `tests/`, which is on the path of whatever imports this package.
TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
#: True in `make soak`: full counts, new random examples.
SOAK = os.environ.get("SOAK") == "1"
