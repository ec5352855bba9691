"""The fuzzer's targets (tests/fuzz/): what they begin with, in every run; the fuzzer itself, where it is installed."""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_targets import TARGETS, Check
from support import SOAK, TESTS

from hyperdex_ir.errors import HyperdexError

FUZZ = TESTS / "fuzz"
#: Calls of each target; parsing a module takes milliseconds, running a program too.
RUNS = dict.fromkeys(("ir", "programs"), 20_000 if SOAK else 200)
OTHER_RUNS = 500_000 if SOAK else 2_000


def answer(check: Check, data: bytes) -> str:
    """What is wrong with the bytes, in one line; empty when nothing is."""
    try:
        check(data)
    except HyperdexError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", list(TARGETS))
def test_what_the_fuzzer_begins_with(name: str) -> None:
    """At least one of the contents is accepted; they, and pieces of them, are answered."""
    if name == "programs" and not sys.platform.startswith("linux"):
        pytest.skip("guard pages are made with Linux's mmap and memfd")
    check, seeds = TARGETS[name]()
    assert any(answer(check, seed) == "" for seed in seeds)
    for seed in seeds:
        for stop in random.Random(len(seed)).sample(range(len(seed)), 3):
            assert answer(check, seed[:stop]).isprintable()


def test_the_makefile_runs_all_targets() -> None:
    text = (FUZZ.parents[1] / "Makefile").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith("FUZZ_TARGETS := "))
    assert line.split()[2:] == list(TARGETS)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed: make fuzz does that")
@pytest.mark.parametrize("name", list(TARGETS))
def test_fuzzer(name: str, tmp_path: Path) -> None:
    count = RUNS.get(name, OTHER_RUNS)
    run = subprocess.run(
        [sys.executable, FUZZ / "fuzz.py", name, f"-runs={count}", "-seed=1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert f"Done {count} runs" in run.stderr
