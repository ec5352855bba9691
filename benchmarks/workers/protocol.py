"""How decode.py talks to the processes that it measures: one JSON object a line, in and out.

A peer is an object with the methods that requests name. This module and llama.py use nothing but the standard library
and what their own interpreter has: they run outside of the project's environment.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol


class Peer(Protocol):
    """A model that is loaded, and forgets everything before each request."""

    def run(self, tokens: Sequence[int], position: int) -> int:
        """Appends tokens to the KV cache at `position` (0: empties it); gives the likeliest next one."""
        ...


def serve(peer: Peer) -> None:
    """Answers requests on standard input until it ends. What libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    commands: dict[str, Callable[..., dict[str, Any]]] = {"decode": decode, "prefill": prefill}
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer = commands[request.pop("command")](peer, **request)
        print(json.dumps(answer), file=answers, flush=True)


def decode(peer: Peer, prompt: Sequence[int], count: int) -> dict[str, Any]:
    """Greedy text after a prompt: seconds from the first new token to the last of `count`, and the tokens."""
    tokens = [peer.run(prompt, 0)]
    started = time.perf_counter()
    for position in range(len(prompt), len(prompt) + count - 1):
        tokens.append(peer.run(tokens[-1:], position))
    return {"seconds": time.perf_counter() - started, "tokens": tokens}


def prefill(peer: Peer, prompt: Sequence[int]) -> dict[str, Any]:
    """The prompt in one pass: seconds until the first new token is known."""
    started = time.perf_counter()
    token = peer.run(prompt, 0)
    return {"seconds": time.perf_counter() - started, "tokens": [token]}
