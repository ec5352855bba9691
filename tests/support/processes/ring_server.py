"""Forks the processes of distributed runs: what takes long to import is imported once, and nothing of this package.

A line of JSON on stdin is a request: a process to start, answered with its number, or the number of one to look at,
answered with its exit status or null. A forked process is an ordinary one from then on: it returns from here, runs its
command as `python` would, and ends as `python` does.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
from typing import Any


def serve() -> dict[str, Any] | None:
    """Answers requests; returns None when there are no more, and in a forked process what it is to run."""
    for line in sys.stdin:
        request = json.loads(line)
        if isinstance(request, int):
            ended, status = os.waitpid(request, os.WNOHANG)
            print(json.dumps(os.waitstatus_to_exitcode(status) if ended else None), flush=True)
            continue
        child = os.fork()
        if child == 0:
            return request
        print(child, flush=True)
    return None


def become(request: dict[str, Any]) -> None:
    """Takes the environment and the files of a request, and runs its command."""
    os.environ.clear()
    os.environ.update(request["environment"])
    writing = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for number, (path, flags) in enumerate(
        [(os.devnull, os.O_RDONLY), (request["out"], writing), (request["err"], writing)]
    ):
        opened = os.open(path, flags, 0o666)
        os.dup2(opened, number)
        os.close(opened)
    first, *rest = request["command"]
    sys.path[:] = request["path"]
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(rest[0], {"__name__": "__main__"})
    else:
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    for name in ("llvmlite.binding", "numpy", "tokenizers", "torch.distributed", "typer"):
        importlib.import_module(name)
    if (request := serve()) is not None:
        become(request)
