"""The native machine: executes a program by compiled code, on several threads, with the interpreter's interface."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from hyperdex_ir.errors import DeadlineError, MachineFault
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.link import Link
from hyperdex_ir.interpreter.step import BUDGET, MachineBase, NumericFault, Stop
from hyperdex_ir.isa.faults import Fault
from hyperdex_ir.isa.program import Origin, Program
from hyperdex_ir.native.attention.head_plan import share_head_loops
from hyperdex_ir.native.attention.heads import MAX_TRIPS
from hyperdex_ir.native.code_cache import native_code, native_key
from hyperdex_ir.native.codegen import Library
from hyperdex_ir.native.context import Context, Reason, Thread
from hyperdex_ir.native.exchange import Exchange
from hyperdex_ir.native.faults import message
from hyperdex_ir.native.features import Features, host_features
from hyperdex_ir.native.mapped_hbm import NativeMemory
from hyperdex_ir.native.operation import EMITTERS, Sizes
from hyperdex_ir.native.pool import Pool
from hyperdex_ir.native.program_rows import make_plan, operand_values

_SLACK = 64  # words behind the LMU and the scratch memory that may be read
_LIBRARIES: dict[str, Library] = {}


def default_threads() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def library(features: Features) -> Library:
    """The executor's machine code, loaded once a process."""
    key = native_key(features)
    if key not in _LIBRARIES:
        _LIBRARIES[key] = Library(native_code(features), features)
    return _LIBRARIES[key]


class NativeMachine(MachineBase):
    """One LPU, run by compiled code: program, HBM, LMU of `lmu_words` words; `chunk` is the most tokens in flight.

    memory: an `NativeMemory`, or the interpreter's `Hbm`, whose bytes are shared. threads: the cores available when not
    given. deadline: seconds of `time.monotonic`, None for none; a step that is not over by then ends in DeadlineError.
    device, link: its number on the ring, and its link to the devices before and after it.

    Unlike the interpreter, it does not know which words have been written, and keeps the LMU from step to step.
    """

    def __init__(
        self,
        program: Program,
        memory: NativeMemory | Hbm,
        *,
        chunk: int,
        lmu_words: int,
        origins: Sequence[Origin] = (),
        budget: int = BUDGET,
        threads: int | None = None,
        features: Features | None = None,
        device: int = 0,
        link: Link | None = None,
    ):
        EMITTERS.check()
        super().__init__(program, chunk, device, origins)
        self.memory = NativeMemory.from_hbm(memory) if isinstance(memory, Hbm) else memory
        self.threads = default_threads() if threads is None else threads
        self.deadline: float | None = None
        self._features = features or host_features()
        self._library = library(self._features)
        sizes = Sizes(chunk, self.memory.map.target.trees, self.threads, lmu_words, self.memory.map.end)
        self._plan, words = share_head_loops(make_plan(program.instructions), program, sizes, self._features)
        self._lmu = _words(lmu_words + _SLACK)
        self._scratch = _words(max(words, _scratch_words(program, sizes)) + _SLACK)
        self._lookups = np.zeros(MAX_TRIPS, np.int64)
        self._context = self._make_context(lmu_words, budget)
        self._exchange = None if link is None else Exchange(self._context, self._lmu, link)
        self._states = (Thread * self.threads)()
        for number, state in enumerate(self._states):
            state.number = number
        self._reasons: list[int] = [Reason.HALT] * self.threads
        self._pool = Pool(self.threads, _job(self._library, self._context, self._states, self._reasons))
        self._running = threading.RLock()
        self._finalizer = weakref.finalize(self, self._pool.close)

    def _make_context(self, lmu_words: int, budget: int) -> Context:
        target = self.memory.map.target
        return Context(
            plan=self._plan.ctypes.data,
            instructions=len(self.program.instructions),
            lmu=self._lmu.ctypes.data,
            lmu_words=lmu_words,
            parameters=self.memory.parameters,
            runtime=self.memory.runtime,
            channels=target.channels,
            trees=target.trees,
            scratch=self._scratch.ctypes.data,
            scratch_words=self._scratch.size,
            threads=self.threads,
            chunk=self.chunk,
            budget=budget,
            lookups=self._lookups.ctypes.data,
            yield_cpu=ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p).value,
        )

    # ------------------------------------------------------------------------------------------------ state

    @property
    def registers(self) -> list[int | None]:
        """The registers by number; None for a register that has not been set."""
        state = self._states[0]
        return [value if known else None for value, known in zip(state.registers, state.is_set, strict=True)]

    @property
    def fault(self) -> NumericFault | None:
        """The first instruction in program order whose result held a NaN or an infinity, since `clear`."""
        raised = [state for state in self._states if state.flag]
        if not raised:
            return None
        first = min(raised, key=lambda state: (state.flag_pass, state.flag_executed))
        layer = None if first.flag_layer < 0 else first.flag_layer
        return self._numeric_fault(first.flag_pass, layer, first.flag_index, first.flag_executed - 1)

    @property
    def executed(self) -> int:
        """Instructions that the running step, or the last one, has executed."""
        return (self._faulty() or self._states[0]).executed

    def _faulty(self) -> Thread | None:
        """A thread whose instruction did what the machine forbids."""
        return next((state for state in self._states if state.fault), None)

    def clear(self) -> None:
        """Forgets the sticky flag, and counts steps from 0 again."""
        self._context.pass_number = 0
        for state in self._states:
            state.flag = 0

    def lmu(self, address: int, rows: int, columns: int) -> np.ndarray:
        """A copy of rows of the LMU that lie one after another, float32 [rows, columns]."""
        return self._lmu[address : address + rows * columns].reshape(rows, columns).copy()

    def write_lmu(self, address: int, data: np.ndarray) -> None:
        """Writes float32 to the LMU from a word on: for tests."""
        self._lmu[address : address + data.size] = data.reshape(-1)

    def read_hbm(self, address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """A copy of an array in the run-time area. Raises MachineFault outside it."""
        return self.memory.read(address, shape, dtype)

    def write_hbm(self, address: int, data: np.ndarray) -> None:
        """Writes to the run-time area. Raises MachineFault outside it."""
        self.memory.write(address, data)

    # ------------------------------------------------------------------------------------------------ running

    def run(self, tokens: Sequence[int], position: int, first_row: int) -> None:
        """As `MachineBase.run`; steps of several Python threads take turns."""
        with self._running:
            super().run(tokens, position, first_row)

    def start(self, tokens: Sequence[int], position: int, first_row: int) -> None:
        """Begins a step over `tokens`, the first of them at `position`; `resume` then executes it.

        Raises MachineFault when the host does what the machine forbids: no tokens or more than the chunk, a first row
        that is not one of them, or a call after `close`; FileFormatError when a parameter image has become shorter.
        """
        given = self._given(tokens, position, first_row)
        with self._running:
            if self._pool.closed:
                raise MachineFault(Fault.CLOSED.text())
            self._pool.settle()
            self.memory.check_files()
            self.memory.write(self.memory.map.tokens, np.array(tokens, np.int64))
            if self._exchange is not None:
                self._exchange.failure = None
            self._reset(given)

    def resume(self) -> Stop:
        """Executes the step up to the halt, or to a receive whose message has not arrived; then call `resume` again.

        Raises MachineFault when an instruction does what the machine forbids, DeadlineError when the deadline is over,
        and the link's own exceptions. Ctrl+C ends the step too. After any of these the machine can be used again, for a
        new step. NaN and infinity raise nothing: see `fault`.
        """
        with self._running:
            self._execute()
            if self._reasons[0] == Reason.NETWORK:
                return "receive"
            self._context.pass_number += 1
            return "halt"

    def stop(self) -> None:
        """Ends the running step soon; called from another thread."""
        self._context.stop = 1
        if self._exchange is not None:
            self._exchange.interrupt()

    def close(self) -> None:
        """Ends the threads. The machine cannot run any more."""
        self._finalizer()

    def _reset(self, given: dict[int, int]) -> None:
        """Sets the state before a step, with these registers set. No thread may be running."""
        self._context.stop, self._context.arrived = 0, 0
        fresh = Thread()
        fresh.is_set[0] = 1
        for number, value in given.items():
            fresh.registers[number], fresh.is_set[number] = value, 1
        start = Thread.registers.offset
        for state in self._states:
            state.barriers = 0
            ctypes.memmove(
                ctypes.addressof(state) + start, ctypes.addressof(fresh) + start, ctypes.sizeof(fresh) - start
            )

    def _execute(self) -> None:
        if not self._pool.run(self.stop, self.deadline):
            raise DeadlineError("the deadline passed before the step was over")
        if self._exchange is not None and self._exchange.failure is not None:
            raise self._exchange.failure
        faulty = self._faulty()
        if faulty is not None:
            raise self._fault(message(faulty.fault, faulty.fault_numbers))

    # ------------------------------------------------------------------------------------------------ messages

    def _current(self) -> tuple[int, int | None]:
        state = self._faulty() or self._states[0]
        return state.index, state.calls - 1 if state.open_calls else None


def _job(code: Library, context: Context, states: Any, reasons: list[int]) -> Any:
    """Job of a thread in a step. It holds no reference to the machine, so that the machine can be collected."""
    run = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)(code.address("run"))
    machine = ctypes.addressof(context)
    threads = [ctypes.addressof(state) for state in states]
    owners = (code, context, states)

    def job(number: int) -> None:
        reasons[number] = run(machine, threads[number])
        if reasons[number] in (Reason.FAULT, Reason.STOPPED):
            owners[1].stop = 1  # the others may wait for this thread at a barrier

    return job


def _words(count: int) -> np.ndarray:
    """float32 zeros, aligned to 64 bytes. Raises MachineFault when there is not that much memory."""
    try:
        raw = np.zeros(count + 16, np.float32)
    except (MemoryError, ValueError):  # the second: more than any computer has
        raise MachineFault(Fault.SCRATCH_MEMORY.text(bytes=4 * count)) from None
    skip = -raw.ctypes.data % 64 // 4
    return raw[skip : skip + count]


def _scratch_words(program: Program, sizes: Sizes) -> int:
    """The most scratch words that an instruction of the program needs."""
    most = 0
    for index, item in enumerate(program.instructions):
        scratch = EMITTERS[item.name].scratch
        if scratch is not None:
            most = max(most, scratch(operand_values(index, item), sizes))
    return most
