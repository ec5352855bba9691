"""Spoiled files, forged or not, at every place that reads one: the result is one clear line or a correct run.

No other exception, no crash or hang, and no more memory than `support/hostile/file_worker.py` allows. The native
executor gives the interpreter's bits. 2,000 cases, and 100,000 in a soak.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import SOAK, TESTS

pytestmark = pytest.mark.slow

CASES = 100_000 if SOAK else 1_000

#: What is spoiled -> how, and its share of the cases, of 100.
SURFACES: dict[str, tuple[str, int]] = {
    "program": ("program", 30),
    "program header": ("bytes", 5),
    "image header": ("bytes", 5),
    "model header": ("bytes", 3),
    "memory map": ("json", 10),
    "origins": ("json", 5),
    "manifest": ("json", 6),
    "layout": ("json", 4),
    "state": ("json", 3),
    "marker": ("json", 1),
    "config": ("json", 4),
    "generation config": ("json", 1),
    "index": ("json", 4),
    "safetensors": ("json", 10),
    "torch": ("bytes", 4),
    "gguf": ("bytes", 5),
}

positions = st.one_of(st.integers(0, 63), st.integers(0, 1 << 20))
bits = st.one_of(st.integers(0, 47), st.integers(0, (1 << 64) - 1))
words = st.tuples(
    st.sampled_from(["field"] * 4 + ["flat"] * 3 + ["put", "bit", "swap", "copy", "drop", "double", "opcode"]),
    positions,
    positions,
    bits,
)
nodes = st.tuples(
    st.sampled_from(["set", "set", "near", "delete", "double", "rename"]),
    st.lists(positions, max_size=5),
    positions,
)
plain = st.one_of(
    st.tuples(st.sampled_from(["bit", "byte", "number", "number8", "cut", "drop"]), positions, bits),
    st.tuples(st.just("insert"), positions, st.text(st.characters(max_codepoint=255), max_size=9)),
)
edits = {"program": words, "json": nodes, "bytes": plain}


class Worker:
    """The process that tries the cases; `answers` counts what came of them."""

    def __init__(self, folder: Path):
        self._log = folder / "worker.log"
        self._process = subprocess.Popen(
            [sys.executable, TESTS / "support/hostile/file_worker.py", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log.open("w"),
            text=True,
            env={**os.environ, "PYTHONPATH": str(TESTS), "MALLOC_ARENA_MAX": "2"},
        )
        self.answers: Counter[str] = Counter()
        self.surfaces: list[str] = self._read()["ready"]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the process has ended: {self._process.wait()}\n{self._log.read_text()[-4000:]}"
        return json.loads(line)

    def ask(self, case: dict[str, Any]) -> dict[str, Any]:
        """What came of a case. Fails when the process does not survive it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(case) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        self.answers[answer["outcome"]] += 1
        return answer

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    started = Worker(tmp_path_factory.mktemp("hostile"))
    yield started
    started.close()


def test_every_surface_is_tried(worker: Worker) -> None:
    assert list(SURFACES) == worker.surfaces
    assert sum(share for _, share in SURFACES.values()) == 100
    for name in SURFACES:
        unspoiled = {"surface": name, "edits": ["own"], "forge": True, "threads": 2}
        answer = worker.ask(unspoiled)
        assert answer["outcome"] == "runs", f"{name}: {answer['text']}"


@pytest.mark.parametrize("surface", list(SURFACES))
def test_spoiled_files(worker: Worker, surface: str) -> None:
    kind, share = SURFACES[surface]
    own, raw = (st.lists(edits[name], min_size=1, max_size=4) for name in (kind, "bytes"))
    chosen = st.one_of(*[own.map(lambda some: ["own", *some])] * 5, raw.map(lambda some: ["bytes", *some]))
    chosen = raw.map(lambda some: ["bytes", *some]) if kind == "bytes" else chosen

    @settings(max_examples=CASES * share // 100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(chosen, st.sampled_from([True] * 6 + [False]), st.sampled_from([1, 1, 2]))
    def spoil(edits: list[Any], forge: bool, threads: int) -> None:
        case = {"surface": surface, "edits": edits, "forge": forge, "threads": threads}
        answer = worker.ask(case)
        assert answer["outcome"] != "bug", f"{json.dumps(case)}\n{answer['text']}"

    spoil()
