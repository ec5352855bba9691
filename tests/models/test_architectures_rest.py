"""The other half of the table: what pytest finds here of test_architectures.py, it runs with the NAMES of here."""

# ruff: noqa: F401

import pytest
from architectures import CASES
from test_architectures import (
    compiled,
    pytest_generate_tests,
    test_nearer_to_float32_than_transformers,
    test_the_same_bits_by_the_interpreter,
    test_the_same_bits_for_every_prefill_chunk,
    test_the_same_bits_on_two_devices,
    test_the_same_bits_without_optimizations,
)

NAMES = list(CASES)[1::2]

pytestmark = pytest.mark.slow
