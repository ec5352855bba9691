"""A child process with limited memory and time, to run a stranger's tokenizer and chat template in.

The library of tokenizers panics on some files and ends its process on others; a template is a program. So both are
read and used in a process that is started for one tokenizer, sees only the time zone of the environment, and may be
lost. Its work is a function of this package: it takes and returns JSON values.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from hyperdex_ir.errors import ConfigError, HyperdexError, OptionError, PromptError

_WORKER = Path(__file__).with_name("confined_worker.py")
#: Packages that every child imports; it has no other folders than those of its packages and the standard library.
_PACKAGES = ("hyperdex_ir", "tokenizers", "jinja2", "markupsafe")
#: Variables of the environment that reach the child: a template may ask for the time.
_ENVIRONMENT = ("TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_ERRORS = {kind.__name__: kind for kind in (ConfigError, OptionError, PromptError)}
#: Wall-clock seconds for each second of processor time: other programs want the processor too.
_PATIENCE = 4
_READ_BYTES = 1 << 16
#: Held for a few instructions, and by a thread that forks.
_LOCKS = threading.Lock()
os.register_at_fork(before=_LOCKS.acquire, after_in_parent=_LOCKS.release, after_in_child=_LOCKS.release)


@dataclass(frozen=True)
class Limits:
    """Limits of one piece of work. seconds: processor time. memory: bytes of addresses, of the whole process or, with
    `grown`, in addition to those in use. answer: bytes of the result as JSON. Memory is limited on Linux only."""

    seconds: int
    memory: int
    answer: int
    grown: bool = False


class Confined:
    """The child process. It is started when it is first needed, and again when it was lost.

    setup: the first work after each start. packages: what the child may import too, where it is installed.
    environment: variables that it gets. Several threads may use this object, also after a fork.
    """

    def __init__(
        self,
        setup: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        what: str = "",
        *,
        packages: Iterable[str] = (),
        environment: Mapping[str, str] | None = None,
    ):
        self._setup = (setup, limits, what)
        self._packages = tuple(packages)
        self._environment = dict(environment or {})
        self._lock = threading.Lock()
        self._lock_owner = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._stop: weakref.finalize[Any, Any] | None = None
        self.ready: Any = None  # the answer to `setup`

    def start(self) -> Any:
        """Starts the process unless it runs; returns the answer to `setup`. Raises as `ask`, ConfigError."""
        with self._own_lock():
            self._ensure()
        return self.ready

    def ask(self, work: Mapping[str, Any], limits: Limits, what: str, failure: type[HyperdexError]) -> Any:
        """The result of `work`, a JSON value: `{"work": "module:function", ...}`, the rest its arguments.

        Raises the error that the work raises, `failure` when it goes beyond `limits` or ends the process. what: the
        subject of that error's line.
        """
        with self._own_lock():
            self._ensure()
            return self._ask(work, limits, what, failure)

    def _own_lock(self) -> threading.Lock:
        """The lock of this process: a thread that held it at a fork is not here to release it."""
        with _LOCKS:
            if self._lock_owner != os.getpid():
                self._lock, self._lock_owner = threading.Lock(), os.getpid()
            return self._lock

    def _ensure(self) -> None:
        if self._process is not None and self._owner == os.getpid() and self._process.poll() is None:
            return
        self._end()
        self._start()
        setup, limits, what = self._setup
        if setup is not None and limits is not None:
            self.ready = self._ask(setup, limits, what, ConfigError)

    def _start(self) -> None:
        command = [sys.executable, "-I", "-S", str(_WORKER), *_folders(self._packages)]
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | self._environment
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                cwd="/",
            )
        except OSError as error:
            raise ConfigError(f"{sys.executable}: cannot be started for the tokenizer: {error.strerror}") from error
        self._process, self._owner = process, os.getpid()
        self._stop = weakref.finalize(self, _stop, process, os.getpid())

    def _end(self) -> None:
        if self._stop is not None:
            self._stop()
        self._process = self._stop = None

    def _ask(self, work: Mapping[str, Any], limits: Limits, what: str, failure: type[HyperdexError]) -> Any:
        assert self._process is not None
        message = {"seconds": limits.seconds, "memory": limits.memory, "grown": limits.grown, **work}
        process = self._process
        try:
            answer = json.loads(_exchange(process, json.dumps(message).encode() + b"\n", limits))
        except _LostError as error:
            self._end()
            reason = str(error) or _ending(process.returncode, limits)
            raise failure(f"{what} {reason}", "download the checkpoint again, from those who made it") from None
        except BaseException:  # a late answer must not be taken for the next one
            self._end()
            raise
        if "value" in answer:
            return answer["value"]
        _raise(answer, what, failure)


def _folders(more: Iterable[str]) -> list[str]:
    """The folders that the packages lie in. Raises ConfigError when one that every child needs is not installed."""
    folders: dict[str, None] = {}
    for name in (*_PACKAGES, *more):
        spec = importlib.util.find_spec(name)
        places = [] if spec is None else list(spec.submodule_search_locations or ())
        if not places and name in _PACKAGES:
            raise ConfigError(f"the Python package {name} is not installed", f"pip install {name}")
        folders.update({str(Path(place).absolute().parent): None for place in places})
    return list(folders)


class _LostError(Exception):
    """No answer comes. Without a message, the process has ended."""


def _exchange(process: subprocess.Popen[bytes], request: bytes, limits: Limits) -> bytes:
    """The line of the answer. Raises _LostError when the process ends, takes too long or gives too much."""
    end = time.monotonic() + _PATIENCE * limits.seconds
    try:
        _send(process, request, end)
        return _receive(process, end, limits)
    except TimeoutError:
        raise _LostError(f"takes more than {limits.seconds} s") from None
    except BrokenPipeError:
        process.wait()
        raise _LostError from None


def _send(process: subprocess.Popen[bytes], request: bytes, end: float) -> None:
    assert process.stdin is not None
    descriptor, left = process.stdin.fileno(), memoryview(request)
    os.set_blocking(descriptor, False)
    while left:
        _wait(descriptor, selectors.EVENT_WRITE, end)
        left = left[os.write(descriptor, left) :]


def _receive(process: subprocess.Popen[bytes], end: float, limits: Limits) -> bytes:
    assert process.stdout is not None
    descriptor, line = process.stdout.fileno(), bytearray()
    while not line.endswith(b"\n"):
        _wait(descriptor, selectors.EVENT_READ, end)
        part = os.read(descriptor, _READ_BYTES)
        line += part
        if not part:
            process.wait()
            raise _LostError
        if len(line) > limits.answer:
            raise _LostError(f"gives more than {limits.answer >> 20} MiB")
    return bytes(line)


def _wait(descriptor: int, event: int, end: float) -> None:
    """Waits until the descriptor can be used. Raises TimeoutError when it cannot before `end`."""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, event)
        if not selector.select(max(0.0, end - time.monotonic())):
            raise TimeoutError


def _ending(code: int, limits: Limits) -> str:
    """The reason for the end of a process."""
    if code == -signal.SIGXCPU:
        return f"takes more than {limits.seconds} s"
    name = signal.Signals(-code).name if code < 0 else f"code {code}"
    return f"ends its process ({name}), which has {limits.memory >> 20} MiB of memory"


def _raise(answer: Mapping[str, Any], what: str, failure: type[HyperdexError]) -> NoReturn:
    message, kind = str(answer.get("message")), _ERRORS.get(str(answer.get("error")))
    raise failure(f"{what} {message}") if kind is None else kind(message, str(answer.get("hint", "")))


def _stop(process: subprocess.Popen[bytes], owner: int) -> None:
    """Ends the child process, unless it belongs to another process, from before a fork."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    if owner == os.getpid():
        process.kill()
        process.wait()
