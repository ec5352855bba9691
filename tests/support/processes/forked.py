"""Python processes of tests, forked from one that has imported what takes long to import; in a soak started anew."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

from support import SOAK
from support.processes import fork_server

_SCRIPT = str(fork_server.__file__)
#: Whether processes are started anew; elsewhere than on Linux always.
ANEW = SOAK or not hasattr(os, "pidfd_open")
#: The folder of the servers, which all workers of a run share, is in this variable.
FOLDER_VARIABLE = "HYPERDEX_TESTS_FORK_SERVERS"
#: What libraries look at when they are imported, and Python when it starts: a server is for one setting of these.
_READ_AT_IMPORT = ("HF_", "HUGGING", "TRANSFORMERS_", "TORCH_", "HOME", "XDG_", "PYTHONHASHSEED")
#: The longest that a process may take.
LIMIT_SECONDS = 300.0
HYPERDEX = ("-m", "hyperdex_ir.cli.main")


def _server(environment: Mapping[str, str]) -> str:
    """The address of the server for processes with that environment.

    Where a Hub is named, which is each time another, the process imports itself what reads the name.
    """
    if "HF_ENDPOINT" in environment:
        return _held_server("light")
    settings = {name: value for name, value in environment.items() if name.startswith(_READ_AT_IMPORT)}
    settings.setdefault("PYTHONHASHSEED", "1")
    return _held_server(json.dumps(settings, sort_keys=True))


@functools.cache
def _held_server(settings: str) -> str:
    """The address of a server, which runs on until this process ends."""
    path = Path(os.environ[FOLDER_VARIABLE], f"fork-{hashlib.sha256(settings.encode()).hexdigest()[:8]}")
    with FileLock(f"{path}.lock"):
        try:
            _HOLDERS.append(fork_server.connect(str(path)))
        except OSError:
            _start(str(path), settings)
            _HOLDERS.append(fork_server.connect(str(path)))
    return str(path)


_HOLDERS: list[Any] = []


def _start(path: str, settings: str) -> None:
    kind, own = (["light"], {}) if settings == "light" else ([], json.loads(settings))
    kept = {name: value for name, value in os.environ.items() if not name.startswith((*_READ_AT_IMPORT, "PYTHON"))}
    # The last two: what the runtime sets before it imports torch.
    environment = {**kept, **own, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "FATAL"}
    reading, writing = os.pipe()
    command = [sys.executable, _SCRIPT, "serve", path, *kind]
    subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=writing, env=environment, start_new_session=True)
    os.close(writing)
    with open(reading, "rb") as answer:
        assert answer.readline() == b"ready\n"


class Forked:
    """As subprocess.Popen in text mode, a process that a server has forked. command: what comes after `python`."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: int | IO[Any] = subprocess.DEVNULL,
        stdout: int | IO[Any] = 1,
        stderr: int | IO[Any] = 2,
    ):
        environment = os.environ if env is None else env
        self.returncode: int | None = None
        with contextlib.ExitStack() as ends:
            _, given = _stream(stdin, ends)
            self.stdout, out = _stream(stdout, ends)
            self.stderr, err = _stream(stderr, ends)
            self._connection, self.pid = fork_server.start(
                _server(environment),
                list(map(os.fspath, command)),
                environment,
                os.fspath(cwd or os.getcwd()),
                (given, out, err),
            )

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float = LIMIT_SECONDS) -> int:
        """The exit status. Raises TimeoutExpired once the process, which took longer, has been killed."""
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                self.kill()
                raise subprocess.TimeoutExpired(f"python, process {self.pid}", timeout)
            self.returncode = fork_server.status(self._connection)
            self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = LIMIT_SECONDS) -> tuple[str, str]:
        """The output of the process until its end."""
        with ThreadPoolExecutor(2) as pool:
            texts = [pool.submit(stream.read if stream else str) for stream in (self.stdout, self.stderr)]
            self.wait(timeout)
        return texts[0].result(), texts[1].result()


def _stream(wanted: int | IO[Any], ends: contextlib.ExitStack) -> tuple[IO[str] | None, int]:
    """Of a pipe, the end to read from; and the descriptor that a process gets. `ends` closes what only that needs."""
    if not isinstance(wanted, int):
        return None, wanted.fileno()
    if wanted == subprocess.PIPE:
        reading, writing = os.pipe()
        ends.callback(os.close, writing)
        return open(reading, encoding="utf-8", errors="surrogateescape"), writing
    if wanted == subprocess.DEVNULL:
        wanted = os.open(os.devnull, os.O_RDWR)
        ends.callback(os.close, wanted)
    return None, wanted


def popen(command: Sequence[str], *, anew: bool = ANEW, **options: Any) -> Forked | subprocess.Popen[str]:
    """Starts `python command...`; options as of Forked. anew: without the server."""
    return subprocess.Popen([sys.executable, *command], text=True, **options) if anew else Forked(command, **options)


def run(
    command: Sequence[str],
    *,
    input: str | bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = LIMIT_SECONDS,
) -> subprocess.CompletedProcess[str]:
    """Runs `python command...` to its end; what it wrote is kept as it was written, line ends too."""
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        stdin.write(input if isinstance(input, bytes) else input.encode())
        stdin.seek(0)
        process = popen(command, env=env, cwd=cwd, stdin=stdin, stdout=out, stderr=err)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        for stream in (out, err):
            stream.seek(0)
        return subprocess.CompletedProcess(list(command), code, out.read().decode(), err.read().decode())


def hyperdex(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """`hyperdex arguments...`; options as of `run`."""
    return run([*HYPERDEX, *arguments], **options)


@functools.cache
def _commands(start: str) -> Path:
    installed = Path(sys.executable).parent
    folder = Path(tempfile.mkdtemp(dir=os.environ[FOLDER_VARIABLE]))
    for name in ("python", "hyperdex", "hyperdex-opt", "xdsl-opt"):
        script = "" if name == "python" else installed / name
        (folder / name).write_text(f'#!/bin/sh\nexec {start} {script} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


def commands(environment: Mapping[str, str]) -> Path:
    """A folder with `python` and the commands of this package: forks, too, for processes with that environment."""
    return _commands(sys.executable if ANEW else f"{sys.executable} -S -E {_SCRIPT} run {_server(environment)}")


def shell(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs a command of the shell, for which `python` and the commands of this package are forks."""
    path = os.pathsep.join([str(commands(environment)), os.environ["PATH"]])
    own = {**environment, "PATH": path}
    return subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True, check=False)
