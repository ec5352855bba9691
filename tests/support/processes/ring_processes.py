"""Starts the processes of a distributed run as torchrun does, without what torchrun adds of its own."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.processes.forked import ANEW, LIMIT_SECONDS, Forked, popen

WORKER = Path(__file__).with_name("ring_worker.py")
#: Longest time that a run may take to begin: torch is imported by every process.
START_SECONDS = LIMIT_SECONDS
#: The line of a run that was given no secret, by rank 0.
SECRET_LINE = re.compile(r"\A\[ INFO \] : a secret was made for this run; until all have it, it is in /\S+\n")


@dataclass
class Ended:
    """How a process ended: exit code, what it wrote (without `SECRET_LINE`), and when, by time.monotonic()."""

    code: int
    out: str
    err: str
    when: float


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class RingProcesses:
    """Processes of one run, by rank; all have ended when the block does."""

    def __init__(self, folder: Path):
        self._folder = folder
        self.processes: list[subprocess.Popen[str] | Forked] = []

    def __enter__(self) -> RingProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()  # one that is stopped, too
            process.wait()

    def start(
        self,
        command: Sequence[str],
        rank: int,
        count: int,
        port: int,
        address: str = "127.0.0.1",
        variables: Mapping[str, str] | None = None,
        anew: bool = ANEW,
    ) -> None:
        """Starts `python command` as a rank. anew: as of `popen`."""
        environment = {
            **os.environ,
            **{"RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": address, "MASTER_PORT": str(port)},
            **{"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
            **(variables or {}),
        }
        out, err = (self._folder / f"{rank}.{name}" for name in ("out", "err"))
        with out.open("wb") as stdout, err.open("wb") as stderr:
            self.processes.append(popen(command, anew=anew, env=environment, stdout=stdout, stderr=stderr))

    def wait(self, seconds: float, ranks: Sequence[int] | None = None) -> dict[int, Ended]:
        """How the processes ended. Raises TimeoutError when one runs on."""
        deadline = time.monotonic() + seconds
        left = list(range(len(self.processes)) if ranks is None else ranks)
        ended: dict[int, Ended] = {}
        while left:
            for rank in [rank for rank in left if self.processes[rank].poll() is not None]:
                left.remove(rank)
                out, err = ((self._folder / f"{rank}.{name}").read_text() for name in ("out", "err"))
                ended[rank] = Ended(self.processes[rank].wait(), out, SECRET_LINE.sub("", err), time.monotonic())
            if time.monotonic() > deadline:
                raise TimeoutError(f"still running after {seconds} s: {left}")
            time.sleep(0.01)
        return ended


def run_all(
    folder: Path,
    commands: Sequence[Sequence[str]],
    seconds: float = START_SECONDS,
    variables: Mapping[str, str] | None = None,
    anew: Container[int] = (),
) -> dict[int, Ended]:
    """Runs one command a rank to the end. anew: the ranks that are started anew."""
    folder.mkdir(parents=True, exist_ok=True)
    with RingProcesses(folder) as ring:
        port = free_port()
        for rank, command in enumerate(commands):
            ring.start(command, rank, len(commands), port, variables=variables, anew=ANEW or rank in anew)
        return ring.wait(seconds)
