"""Starts the processes of a distributed run as torchrun does, without what torchrun adds of its own."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import SOAK

WORKER = Path(__file__).with_name("ring_worker.py")
#: Longest time that a run may take to begin: torch is imported by every process.
START_SECONDS = 300.0
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


class Server:
    """A process that forks others; it ends with the tests."""

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("ring_server.py"))]
        # What the runtime sets before it imports torch.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "FATAL"}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)

    def ask(self, request: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


@functools.cache
def server() -> Server:
    """That of these tests, started when it is first needed."""
    return Server()


class Forked:
    """As subprocess.Popen, a process that the server has forked."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], out: Path, err: Path):
        request = {"command": command, "environment": environment, "path": sys.path, "out": str(out), "err": str(err)}
        self.pid: int = server().ask(request)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = server().ask(self.pid)
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        while self.poll() is None:
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode


class RingProcesses:
    """Processes of one run, by rank; all have ended when the block does."""

    def __init__(self, folder: Path):
        self._folder = folder
        self.processes: list[subprocess.Popen[bytes] | Forked] = []

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
        prefix: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
        anew: bool = SOAK,
    ) -> None:
        """Starts `python command` as a rank; `prefix` is what comes before python.

        Without one, and unless it is to be started `anew`, it is forked from a process that has imported torch.
        """
        environment = {
            **os.environ,
            **{"RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": address, "MASTER_PORT": str(port)},
            **{"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
            **(variables or {}),
        }
        out, err = (self._folder / f"{rank}.{name}" for name in ("out", "err"))
        if not prefix and not anew:
            self.processes.append(Forked(command, environment, out, err))
            return
        with out.open("wb") as stdout, err.open("wb") as stderr:
            line = [*prefix, sys.executable, *command]
            self.processes.append(subprocess.Popen(line, env=environment, stdout=stdout, stderr=stderr))

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
    anew: bool = SOAK,
) -> dict[int, Ended]:
    """Runs one command a rank to the end. anew: as of `RingProcesses.start`."""
    folder.mkdir(parents=True, exist_ok=True)
    with RingProcesses(folder) as ring:
        port = free_port()
        for rank, command in enumerate(commands):
            ring.start(command, rank, len(commands), port, variables=variables, anew=anew)
        return ring.wait(seconds)
