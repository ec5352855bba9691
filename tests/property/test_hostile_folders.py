"""Hostile folders through every command: nothing outside changes, no process starts, one error line, bounded time.

A folder with each fault of `support/hostile/folders.py` through an eighth of the commands in turn; in a soak 500
folders, with several faults, through every command. `folder_worker.py` watches the processes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support import SOAK, TESTS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the watch needs /proc and prctl of Linux"),
]

SHARES = 16
PARTS = 4 if SOAK else 1


class Worker:
    """The process that makes the folders and runs the commands. facts: what it knows."""

    def __init__(self, folder: Path):
        home = folder / "home"
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        own = {"PYTHONPATH": str(TESTS), "HYPERDEX_HOME": str(home), "HF_HOME": str(home / "hf"), "HF_HUB_OFFLINE": "1"}
        self._log = folder / "worker.log"
        self._process = subprocess.Popen(
            [sys.executable, TESTS / "support/hostile/folder_worker.py", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log.open("w"),
            text=True,
            env={**os.environ, **threads, **own, "TOKENIZERS_PARALLELISM": "false", "MALLOC_ARENA_MAX": "2"},
        )
        self.facts: dict[str, Any] = self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the process has ended: {self._process.wait()}\n{self._log.read_text()[-4000:]}"
        return json.loads(line)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request. Fails when the process has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()


@pytest.mark.parametrize("part", range(PARTS))
def test_hostile_folders(part: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One test, so that only one of pytest's workers starts the process, which imports everything; a soak has four."""
    worker = Worker(tmp_path)
    check_every_command_is_run(worker)
    check_misdeeds_are_noticed(worker)
    total = 500 if SOAK else len(worker.facts["faults"])
    run_folders(worker, range(total * part // PARTS, total * (part + 1) // PARTS), capsys)
    worker.close()


def check_every_command_is_run(worker: Worker) -> None:
    tried = {name.split()[0] for name in worker.facts["commands"]}
    assert sorted(tried | set(worker.facts["others"])) == worker.facts["registered"]


def check_misdeeds_are_noticed(worker: Worker) -> None:
    for name in worker.facts["probes"]:
        answer = worker.ask({"probe": name})
        assert bool(answer["findings"]) == (name != "nothing"), f"{name}: {answer}"


def run_folders(worker: Worker, numbers: range, capsys: pytest.CaptureFixture[str]) -> None:
    outcomes: Counter[str] = Counter()
    findings: list[str] = []
    commands, asked = worker.facts["commands"], 0
    for number in numbers:
        chosen = commands if SOAK else commands[number % SHARES :: SHARES]
        answer = worker.ask({"number": number, "commands": chosen})
        asked += len(chosen)
        outcomes.update(answer["outcomes"])
        found = [f"{number}: {one}  {answer['faults']}" for one in answer["findings"]]
        findings += found
        if found:  # a soak is long: its first finding is wanted now
            say(capsys, *found)
    devices = "" if worker.facts["devices"] else " (no device files: mknod is not permitted here)"
    done = dict(sorted(outcomes.items()))
    say(capsys, f"hostile folders {numbers.start} to {numbers.stop - 1}{devices}, {asked} commands: {done}")
    assert sum(outcomes.values()) == asked
    assert not findings, "\n".join([f"{len(findings)} findings", *findings])


def say(capsys: pytest.CaptureFixture[str], *lines: str) -> None:
    with capsys.disabled():
        print("", *lines, sep="\n", flush=True)
