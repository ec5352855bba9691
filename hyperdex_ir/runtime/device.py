"""A device that runs a whole model: a machine with the model's program, whichever engine executes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from hyperdex_ir.errors import MachineFault, NumericError, PromptError
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.machine import Machine, NumericFault
from hyperdex_ir.isa.instructions import NEXT_TOKEN
from hyperdex_ir.isa.program import Program
from hyperdex_ir.isa.settings import SETTINGS_BYTES, Settings
from hyperdex_ir.memory.map import MemoryMap, ceil_div


class LpuMachine(Protocol):
    """What executes passes of a program: the interpreter's Machine, or the native EngineMachine."""

    @property
    def registers(self) -> list[int | None]: ...
    @property
    def fault(self) -> NumericFault | None: ...
    def clear(self) -> None: ...
    def run(self, tokens: Sequence[int], position: int, first_row: int) -> None: ...
    def read_hbm(self, address: int, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray: ...
    def write_hbm(self, address: int, data: np.ndarray) -> None: ...


class MachineDevice:
    """Splits what it is given into passes of at most `chunk` tokens, and collects their logits.

    head_rows: most rows whose logits one pass can give.
    """

    def __init__(self, machine: LpuMachine, memory_map: MemoryMap, chunk: int, head_rows: int):
        self.machine = machine
        self.map = memory_map
        self.chunk = chunk
        self.head_rows = head_rows
        self._filled = 0  # positions of the KV cache, from 0 on, that passes have written
        self.set_sampling(Settings())

    def set_sampling(self, settings: Settings) -> None:
        """Says how tokens are chosen from now on, greedily at first. A text begins: no token of it has been seen."""
        self._settings = settings
        self._seen = np.zeros(8 * ceil_div(self.map.vocab_size, 8), np.uint8)
        self.machine.write_hbm(self.map.sampling, np.frombuffer(settings.pack(), np.int64))
        self._write_seen()

    def _write_seen(self) -> None:
        self.machine.write_hbm(self.map.sampling + SETTINGS_BYTES, self._seen.view(np.int64))

    def _see(self, tokens: Sequence[int]) -> None:
        """Marks tokens as part of the text, where that counts. What is no token the program refuses."""
        if self._settings.repetition_penalty == 1:
            return
        self._seen[[token for token in tokens if 0 <= token < self.map.vocab_size]] = 1
        self._write_seen()

    @property
    def next_token(self) -> int:
        """The token chosen from the last row of the last pass. Raises MachineFault when no pass has run."""
        value = self.machine.registers[NEXT_TOKEN]
        if value is None:
            raise MachineFault("no pass has chosen a next token yet")
        return value

    def forward(self, tokens: Sequence[int], position: int, first_row: int | None = None) -> np.ndarray:
        """Appends tokens, the first of them at `position`, to the KV cache.

        Returns the logits of the rows from `first_row` on (None: of the last row), float32 [wanted rows, vocab_size].
        Raises PromptError when there are no tokens, more than the cache holds, or positions before them that have not
        been run; MachineFault when the program does
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
        if position > self._filled:
            raise PromptError(
                f"tokens from position {position} on; only {self._filled} positions before have been run",
                "run a text from its beginning",
            )
        if not 0 <= first < count:
            raise PromptError(f"logits wanted from row {first_row} on, there are {count} rows")
        self.machine.clear()
        parts: list[np.ndarray] = []
        done = 0
        while done < count:
            size = self._pass_size(done, count, first)
            wanted = max(0, first - done)
            self._see(tokens[done : done + size])
            self.machine.run(tokens[done : done + size], position + done, min(wanted, size - 1))
            _check(self.machine.fault)
            if wanted < size:
                parts.append(self._logits(size - wanted))
            done += size
            self._filled = max(self._filled, position + done)
        return np.concatenate(parts)

    def _pass_size(self, done: int, count: int, first: int) -> int:
        """Tokens of the next pass: all that fit, but no more wanted rows than the head takes."""
        size = min(self.chunk, count - done)
        return min(size, max(0, first - done) + self.head_rows)

    def _logits(self, rows: int) -> np.ndarray:
        shape = (rows, self.map.vocab_size)
        return self.machine.read_hbm(self.map.logits, shape, np.float32)


def _check(fault: NumericFault | None) -> None:
    if fault is None:
        return
    layer = "" if fault.layer is None else f", layer {fault.layer}"
    path = f" of {fault.module_path}" if fault.module_path else ""
    raise NumericError(
        f"NaN or infinity made in chunk {fault.chunk}{layer}, by instruction {fault.index} ({fault.name}){path}",
        "weights or activations leave the range of the matrix type; try --dtype bfloat16",
    )


class InterpreterDevice(MachineDevice):
    """A device whose machine is the interpreter's. lmu_words: size of the LMU, the target's when not given."""

    machine: Machine

    def __init__(
        self,
        program: Program,
        hbm: Hbm,
        memory_map: MemoryMap,
        chunk: int,
        head_rows: int,
        lmu_words: int | None = None,
    ):
        words = memory_map.target.lmu_words if lmu_words is None else lmu_words
        super().__init__(Machine(program, hbm, chunk=chunk, lmu_words=words), memory_map, chunk, head_rows)
