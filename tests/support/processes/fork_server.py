"""A server that forks the Python processes of tests: what takes long to import is imported once.

    fork_server.py serve SOCKET [light]      forks until no test process is left that holds a connection
    fork_server.py run SOCKET ARGUMENTS...   runs `python ARGUMENTS...` as a fork, with the streams of this process

A connection starts one process: it brings the files that are to be the standard streams and a line of JSON, and gets
the number of the process and, when that has ended, its exit status. When the connection is closed before, the process
is killed. A forked process is an ordinary one from then on: it returns from `serve` and runs its command as `python`
would.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

LIGHT = (
    "hyperdex_ir.backend.compilation",
    "hyperdex_ir.cli.main",
    "hyperdex_ir.cli.opt",
    "hyperdex_ir.native.machine",
    "hyperdex_ir.runtime.executors",
    "hyperdex_ir.runtime.model",
    "hyperdex_ir.tools",
    "llvmlite.binding",
    "numpy",
    "safetensors.numpy",
    "tokenizers",
    "typer",
    "xdsl.dialects.builtin",
    "xdsl.dialects.func",
    "xdsl.parser",
    "xdsl.pattern_rewriter",
    "xdsl.xdsl_opt_main",
)
HEAVY = ("torch.distributed", "torch.export", "transformers.models.llama.modeling_llama")


# ------------------------------------------------------------------------------------------------------------- client
def connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    return connection


def start(
    path: str, command: Sequence[str], environment: Mapping[str, str], folder: str, streams: Sequence[int]
) -> tuple[socket.socket, int]:
    """Starts a process in a folder; the connection on which its end will be told, and its number."""
    connection = connect(path)
    request = {"command": list(command), "environment": dict(environment), "folder": folder}
    socket.send_fds(connection, [json.dumps(request).encode() + b"\n"], streams)
    return connection, int(_line(connection))


def status(connection: socket.socket) -> int:
    """The exit status of a process, which this waits for; negative when a signal ended it."""
    return int(_line(connection))


def _line(connection: socket.socket) -> bytes:
    text = b""
    while not text.endswith(b"\n"):
        more = connection.recv(1)
        if not more:
            raise ConnectionError("the fork server has ended")
        text += more
    return text


# ------------------------------------------------------------------------------------------------------------- server
def serve(path: str) -> dict[str, Any] | None:
    """Forks for each request; returns None when no client is left, and in a forked process what it is to run."""
    signal.signal(signal.SIGCHLD, _reap)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # of a server that had no client left
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    print("ready", flush=True)
    os.dup2(0, 1)  # /dev/null
    holders = {listener.accept()[0]}
    while holders:
        for ready in select.select([listener, *holders], [], [])[0]:
            if ready is listener:
                holders.add(listener.accept()[0])
                continue
            holders.discard(ready)
            text, streams, _, _ = socket.recv_fds(ready, 1 << 20, 3)
            if text and os.fork() == 0:
                listener.close()
                return _keep(ready, text, streams)
            ready.close()
            for stream in streams:
                os.close(stream)
    return None


def _reap(*_: object) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _keep(connection: socket.socket, text: bytes, streams: list[int]) -> dict[str, Any]:
    """Forks a process and stays with it; returns in that process alone."""
    while not text.endswith(b"\n"):
        text += connection.recv(1 << 20)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        return json.loads(text)
    for stream in streams:
        os.close(stream)
    with contextlib.suppress(OSError):
        connection.sendall(b"%d\n" % child)
        ended = os.pidfd_open(child)
        if ended not in select.select([connection, ended], [], [])[0]:
            os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(OSError):
        connection.sendall(b"%d\n" % code)
    os._exit(0)


def run_command(command: Sequence[str], paths: Sequence[str]) -> None:
    """Runs `python command...` with these folders behind that of the command on the path of modules."""
    first, *rest = [part for part in command[:1] if part != "-u"] + list(command[1:]) or ["-"]
    sys.path[:] = [{"-m": os.getcwd()}.get(first, "" if first[0] == "-" else os.path.dirname(first)), *paths]
    sys.orig_argv = [sys.executable, first, *rest]
    sys.argv = [first, *rest] if first != "-m" else rest
    if first == "-m":
        sys.modules.pop(rest[0], None)
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        del sys.argv[1]
        exec(rest[0], {"__name__": "__main__"})
    elif first == "-":
        exec(sys.stdin.read(), {"__name__": "__main__"})
    else:
        runpy.run_path(first, run_name="__main__")


def end_as(request: dict[str, Any], paths: list[str]) -> None:
    """Runs the command of a request and ends the process with its exit code.

    What Python does at its end, but for taking apart the modules: that would copy all that the server has imported.
    """
    code = 70
    try:
        code = _exit_code(request, paths)
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = 120
    finally:
        os._exit(code)


def _exit_code(request: dict[str, Any], paths: list[str]) -> int:
    try:
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        own = os.environ.get("PYTHONPATH", "")
        run_command(request["command"], [*(own.split(os.pathsep) if own else ()), *paths])
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return (ended.code or 0) & 0xFF
        print(ended.code, file=sys.stderr)
        return 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        return 1
    return 0


def _parse_options() -> None:
    """Has typer import what it needs for a command line."""
    typer = importlib.import_module("typer")
    app = typer.Typer()

    @app.command()
    def command(number: int = 1) -> None:
        pass

    app(["--number", "2"], standalone_mode=False)


def main() -> None:
    action, path, *command = sys.argv[1:]
    if action == "run":
        connection, _ = start(path, command, os.environ, os.getcwd(), (0, 1, 2))
        code = status(connection)
        sys.exit(code if code >= 0 else 128 - code)
    for name in LIGHT if command == ["light"] else (*LIGHT, *HEAVY):
        importlib.import_module(name)
    _parse_options()
    gc.collect()
    gc.freeze()
    paths = sys.path[1:]
    if (request := serve(path)) is not None:
        end_as(request, paths)


if __name__ == "__main__":
    main()
