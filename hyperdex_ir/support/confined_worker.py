"""The program of the child process of confined.py: a line of JSON asks for work, a line of JSON answers.

A request is {"work": "module:function", "seconds", "memory", "grown", ...}, with the function's arguments; an answer is
{"value"}, or {"error", "message", "hint"}.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

_LONGEST_MESSAGE = 1000


def _limit(seconds: int, memory: int, grown: bool) -> None:
    """Sets the limits of the next piece of work; the limit of time counts from now."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    _set_limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + 1 + seconds)
    if sys.platform == "linux":
        _set_limit(resource.RLIMIT_AS, memory + (_addresses() if grown else 0))


def _set_limit(kind: int, value: int, hard: bool = False) -> None:
    """Sets the soft limit, so that the next piece of work may have another one. hard: sets the hard limit too."""
    import resource

    most = resource.getrlimit(kind)[1]
    value = value if most == resource.RLIM_INFINITY else min(value, most)
    resource.setrlimit(kind, (value, value if hard else most))


def _addresses() -> int:
    """Bytes of addresses in use."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _close_doors() -> None:
    """Forbids core files and writing files, and ignores the terminal's interrupts."""
    import resource

    _set_limit(resource.RLIMIT_CORE, 0, hard=True)
    _set_limit(resource.RLIMIT_FSIZE, 0, hard=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _function(name: str) -> Callable[..., Any]:
    """The function that `module:function` names."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def _answer(work: str, arguments: dict[str, Any]) -> bytes:
    from hyperdex_ir.errors import HyperdexError

    try:
        return json.dumps({"value": _function(work)(**arguments)}).encode()
    except HyperdexError as error:
        answer = {"error": type(error).__name__, "message": str(error)[:_LONGEST_MESSAGE], "hint": error.hint}
    except MemoryError:
        answer = {"message": "takes more memory than it is given"}
    except BaseException as error:  # a panic of the library is no Exception
        lines = str(error)[:_LONGEST_MESSAGE].splitlines() or [type(error).__name__]
        answer = {"message": f"fails: {lines[0]}"}
    return json.dumps(answer).encode()


def main() -> None:
    sys.path.extend(sys.argv[1:])
    # Text that a library prints is no answer.
    answers = os.dup(1)
    os.dup2(2, 1)
    _close_doors()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        _limit(request.pop("seconds"), request.pop("memory"), request.pop("grown"))
        left = memoryview(_answer(request.pop("work"), request) + b"\n")
        while left:
            left = left[os.write(answers, left) :]


if __name__ == "__main__":
    main()
