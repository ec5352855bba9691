"""A device that runs a whole model: a machine, or a ring of them, with the model's program, on any executor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import numpy as np

from hyperdex_ir.errors import MachineFault, NumericError, PromptError
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.link import MemoryLink, in_memory_links
from hyperdex_ir.interpreter.machine import Machine
from hyperdex_ir.interpreter.step import NumericFault, StepMachine, StepRunner
from hyperdex_ir.isa.instructions import NEXT_TOKEN
from hyperdex_ir.isa.program import Program
from hyperdex_ir.isa.settings import SETTINGS_BYTES, Settings
from hyperdex_ir.memory.map import MemoryMap, ceil_div
from hyperdex_ir.runtime.ring import Ring

_RANGE_HINT = "weights or activations leave the range of the matrix type; try --dtype bfloat16"


M = TypeVar("M", bound=StepRunner)


class MachineDevice(Generic[M]):
    """Splits its input into steps of at most `chunk` tokens, and collects their logits.

    head_rows: most rows whose logits one step can give.
    """

    def __init__(self, machine: M, memory_map: MemoryMap, chunk: int, head_rows: int):
        self.machine = machine
        self.map = memory_map
        self.chunk = chunk
        self.head_rows = head_rows
        self._filled = 0  # positions of the KV cache, from 0 on, that steps have written
        self._next = 0  # the position that the states of short convolutions stand at; 0 also when that is not known
        self.set_sampling(Settings())

    def set_sampling(self, settings: Settings) -> None:
        """Sets the choice of tokens from now on, greedy at first. A text begins: no token of it has been seen."""
        self._settings = settings
        self._seen = np.zeros(8 * ceil_div(self.map.vocab_size, 8), np.uint8)
        self.machine.write_hbm(self.map.sampling, np.frombuffer(settings.pack(), np.int64))
        self._write_seen()

    def _write_seen(self) -> None:
        self.machine.write_hbm(self.map.sampling + SETTINGS_BYTES, self._seen.view(np.int64))

    def _see(self, tokens: Sequence[int]) -> None:
        """Marks tokens as part of the text, where that counts. The program refuses other numbers."""
        if self._settings.repetition_penalty == 1:
            return
        self._seen[[token for token in tokens if 0 <= token < self.map.vocab_size]] = 1
        self._write_seen()

    @property
    def next_token(self) -> int:
        """The token chosen from the last row of the last step. Raises MachineFault when no step has run."""
        value = self.machine.registers[NEXT_TOKEN]
        if value is None:
            raise MachineFault("no step has chosen a next token yet")
        return value

    def forward(self, tokens: Sequence[int], position: int, first_row: int | None = None) -> np.ndarray:
        """Appends tokens, the first of them at `position`, to the KV cache.

        Returns the logits of the rows from `first_row` on (None: of the last row), float32 [wanted rows, vocab_size].
        Raises PromptError when there are no tokens, more than the cache holds, positions before them that have not
        been run, or (with short convolutions) other positions than the first and the next one; MachineFault when the
        program does what the machine forbids, NumericError when a NaN or an infinity was made.
        """
        count = len(tokens)
        first = count - 1 if first_row is None else first_row
        self._check(count, position, first)
        self.machine.clear()
        parts: list[np.ndarray] = []
        done = 0
        while done < count:
            size = self._pass_size(done, count, first)
            wanted = max(0, first - done)
            self._see(tokens[done : done + size])
            self._next = 0
            self.machine.run(tokens[done : done + size], position + done, min(wanted, size - 1))
            if (fault := self.machine.fault) is not None:
                raise NumericError(self._describe(fault), _RANGE_HINT)
            if wanted < size:
                parts.append(self._logits(size - wanted))
            done += size
            self._filled, self._next = max(self._filled, position + done), position + done
        return np.concatenate(parts)

    def _check(self, count: int, position: int, first: int) -> None:
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
        if self.map.has_states and position not in (0, self._next):
            raise PromptError(
                f"tokens from position {position} on; this model has short convolutions, which have gone on to position"
                f" {self._next}",
                "continue where the last step ended, or run the text from its beginning",
            )
        if not 0 <= first < count:
            raise PromptError(f"logits wanted from row {first} on, there are {count} rows")

    def _pass_size(self, done: int, count: int, first: int) -> int:
        """Number of tokens of the next step: all that fit, but no more wanted rows than the head takes."""
        size = min(self.chunk, count - done)
        return min(size, max(0, first - done) + self.head_rows)

    def _logits(self, rows: int) -> np.ndarray:
        shape = (rows, self.map.vocab_size)
        return self.machine.read_hbm(self.map.logits, shape, np.float32)

    def _describe(self, fault: NumericFault) -> str:
        layer = "" if fault.layer is None else f", layer {fault.layer}"
        path = f" of {fault.module_path}" if fault.module_path else ""
        return f"NaN or infinity made in chunk {fault.chunk}{layer}, by instruction {fault.index} ({fault.name}){path}"


class InterpreterDevice(MachineDevice[Machine]):
    """One device that is alone and interprets. lmu_words: size of the LMU, the target's when not given."""

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


class RingDevice(MachineDevice[Ring]):
    """All devices of a ring in one process, used like one. machines, links: one of each device, on either executor."""

    def __init__(
        self,
        machines: Sequence[StepMachine],
        links: Sequence[MemoryLink],
        memory_map: MemoryMap,
        chunk: int,
        head_rows: int,
    ):
        super().__init__(Ring(machines, links), memory_map, chunk, head_rows)

    @classmethod
    def interpreting(
        cls,
        program: Program,
        hbms: Sequence[Hbm],
        memory_map: MemoryMap,
        chunk: int,
        head_rows: int,
        lmu_words: int | None = None,
    ) -> RingDevice:
        """Devices that interpret. hbms: the HBM of each, all of `memory_map`."""
        words = memory_map.target.lmu_words if lmu_words is None else lmu_words
        links = in_memory_links(len(hbms))
        machines = [
            Machine(program, hbm, chunk=chunk, lmu_words=words, device=device, link=link)
            for device, (hbm, link) in enumerate(zip(hbms, links, strict=True))
        ]
        return cls(machines, links, memory_map, chunk, head_rows)

    def _describe(self, fault: NumericFault) -> str:
        return f"device {fault.device}: {super()._describe(fault)}"
