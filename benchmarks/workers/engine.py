"""This project's engine on a compiled model. Run by decode.py.

PYTHON engine.py DIRECTORY THREADS ENGINE
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from protocol import serve

from hyperdex_ir.runtime.model import CompiledModel


class Compiled:
    """A compiled model, opened as `hyperdex run` opens it."""

    def __init__(self, path: str, threads: int, engine: str):
        self._model = CompiledModel.open(path, engine=engine, threads=threads)

    def run(self, tokens: Sequence[int], position: int) -> int:
        """See protocol.Peer."""
        self._model.forward(tokens, position)
        return self._model.device.next_token


if __name__ == "__main__":
    serve(Compiled(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
