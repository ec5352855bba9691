"""A device that runs a whole model by interpreting its program."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hyperdex_ir.errors import MachineFault, NumericError, PromptError
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.machine import Machine, NumericFault
from hyperdex_ir.isa.instructions import NEXT_TOKEN
from hyperdex_ir.isa.program import Program
from hyperdex_ir.memory.map import MemoryMap


class InterpreterDevice:
    """Splits what it is given into passes of at most `chunk` tokens, and collects their logits.

    head_rows: most rows whose logits one pass can give; lmu_words: size of the LMU, the target's when not given.
    """

    def __init__(
        self,
        program: Program,
        hbm: Hbm,
        memory_map: MemoryMap,
        chunk: int,
        head_rows: int,
        lmu_words: int | None = None,
    ):
        self.map = memory_map
        self.chunk = chunk
        self.head_rows = head_rows
        words = memory_map.target.lmu_words if lmu_words is None else lmu_words
        self.machine = Machine(program, hbm, chunk=chunk, lmu_words=words)

    @property
    def next_token(self) -> int:
        """The argmax of the last row of the last pass. Raises MachineFault when no pass has run."""
        value = self.machine.registers[NEXT_TOKEN]
        if value is None:
            raise MachineFault("no pass has chosen a next token yet")
        return value

    def forward(self, tokens: Sequence[int], position: int, first_row: int | None = None) -> np.ndarray:
        """Appends tokens, the first of them at `position`, to the KV cache.

        Returns the logits of the rows from `first_row` on (None: of the last row), float32 [wanted rows, vocab_size].
        Raises PromptError when there are no tokens or more than the cache holds, MachineFault when the program does
        what the machine forbids, NumericError when a NaN or an infinity was made.
        """
        count = len(tokens)
        first = count - 1 if first_row is None else first_row
        if count == 0:
            raise PromptError("no tokens to run", "give at least one token")
        if position < 0 or position + count > self.map.max_length:
            raise PromptError(
                f"{count} tokens from position {position} on; the compiled model holds {self.map.max_length} positions",
                "compile with a larger --max-length",
            )
        if not 0 <= first < count:
            raise PromptError(f"logits wanted from row {first_row} on, there are {count} rows")
        self.machine.clear()
        parts: list[np.ndarray] = []
        done = 0
        while done < count:
            size = self._pass_size(done, count, first)
            wanted = max(0, first - done)
            self.machine.run(tokens[done : done + size], position + done, min(wanted, size - 1))
            _check(self.machine.fault)
            if wanted < size:
                parts.append(self._logits(size - wanted))
            done += size
        return np.concatenate(parts)

    def _pass_size(self, done: int, count: int, first: int) -> int:
        """Tokens of the next pass: all that fit, but no more wanted rows than the head takes."""
        size = min(self.chunk, count - done)
        return min(size, max(0, first - done) + self.head_rows)

    def _logits(self, rows: int) -> np.ndarray:
        shape = (rows, self.map.vocab_size)
        return self.machine.hbm.read(self.map.logits, shape, np.float32).copy()


def _check(fault: NumericFault | None) -> None:
    if fault is None:
        return
    layer = "" if fault.layer is None else f", layer {fault.layer}"
    path = f" of {fault.module_path}" if fault.module_path else ""
    raise NumericError(
        f"NaN or infinity made in chunk {fault.chunk}{layer}, by instruction {fault.index} ({fault.name}){path}",
        "weights or activations leave the range of the matrix type; try --dtype bfloat16",
    )
