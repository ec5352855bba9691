"""The native executor with its LMU, scratch memory and HBM between pages that nothing may touch, and the interpreter.

What lies outside ends the process, so this runs in one of its own (`hostile/program_worker.py`). Linux only.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from hyperdex_ir.interpreter.machine import Machine
from hyperdex_ir.isa.codec import decode_program, encode_program
from hyperdex_ir.isa.program import Instruction, Origin, Program
from hyperdex_ir.native import machine as engine
from hyperdex_ir.native.context import Region
from hyperdex_ir.native.machine import NativeMachine
from hyperdex_ir.native.mapped_hbm import NativeMemory
from hyperdex_ir.targets import BEAT_BYTES
from support.programs.both_machines import (
    Outcome,
    Start,
    WrittenLmu,
    float_bits,
    place_of,
    run_case,
    run_time_bits,
    step_of,
)
from support.programs.instruction_case import LMU_WORDS, Case
from support.programs.random_programs import BUDGET, INTEGERS, TABLES

PAGE = mmap.PAGESIZE
_CANARY = 0xA5
_SLACK = 4 * 64  # bytes behind LMU and scratch memory that may be read: the machine asks for them too
_NOTHING, _READ = 0, mmap.PROT_READ
_LIBC = ctypes.CDLL(None, use_errno=True)


class Fence:
    """`size` bytes between two pages of which nothing may be read or written.

    end: they end where the second page begins; else they begin where the first ends. readable: the second page may be
    read. What is left of the pages in between holds a pattern. file: a memory file that the bytes are in.
    """

    def __init__(self, size: int, *, end: bool = True, readable: bool = False, file: int | None = None):
        self._pages = -(-max(1, size) // PAGE)
        body = self._pages * PAGE
        self._map = mmap.mmap(-1, body + 2 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        whole = np.frombuffer(self._map, np.uint8)
        base: int = whole.ctypes.data
        if file is not None:
            os.truncate(file, body)
            _map_over(base + PAGE, body, file)
        inside = whole[PAGE : PAGE + body]
        inside[:] = _CANARY
        start = body - size if end else 0
        self.bytes = inside[start : start + size]
        self._rest = [inside[:start], inside[start + size :]]
        _protect(base, PAGE, _NOTHING)
        _protect(base + PAGE + body, PAGE, _READ if readable else _NOTHING)
        #: From the bytes on, what lies behind them too.
        self.reach = whole[PAGE + start :]

    def check(self) -> None:
        """Raises AssertionError when something has written beside the bytes."""
        if not all((rest == _CANARY).all() for rest in self._rest):
            raise AssertionError("written outside")


def _protect(address: int, size: int, how: int) -> None:
    if _LIBC.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), ctypes.c_int(how)):
        raise OSError(ctypes.get_errno(), "mprotect")


def _map_over(address: int, size: int, file: int) -> None:
    """Maps a file over pages that are mapped already."""
    call = _LIBC.mmap
    call.restype = ctypes.c_void_p
    fixed, sizes = 0x10, (ctypes.c_void_p(address), ctypes.c_size_t(size))
    found = call(*sizes, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | fixed, file, ctypes.c_long(0))
    if found != address:
        raise OSError(ctypes.get_errno(), "mmap")


class Fences:
    """Gives the machine its LMU and its scratch memory; three ways to lie between pages take turns."""

    def __init__(self) -> None:
        self._made: list[Fence] = []
        self._turn = 0

    def words(self, count: int) -> np.ndarray:
        """float32 zeros, the last 64 of them to be read only: what `machine._words` gives."""
        size = 4 * count
        match self._turn % 3:
            case 0:  # one word too far is written: the process ends
                fence = Fence(size - _SLACK, readable=True)
                words = fence.reach[:size]
            case 1:  # one word too far is read
                fence = Fence(size)
                words = fence.bytes
            case _:  # one word before the first
                fence = Fence(size, end=False)
                words = fence.bytes
        fence.bytes[:] = 0
        self._made.append(fence)
        return words.view(np.float32)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Machines that are made inside get their memory here; at the end nothing may lie beside it."""
        before, engine._words = engine._words, self.words
        self._turn += 1
        self._made = []
        try:
            yield
            for fence in self._made:
                fence.check()
        finally:
            engine._words = before


class World:
    """What several programs start from, with the memory that they run in."""

    def __init__(self, case: Case):
        self.case, self.start = case, Start(case)
        self.start.hbm[: TABLES.nbytes].view(np.int64)[:] = TABLES
        self.start.hbm[TABLES.nbytes :][: INTEGERS.nbytes].view(np.float32)[:] = INTEGERS
        self._hbm = self.start.memory(case)
        self._end = case.map.parameter_end
        self._runtime = Fence(case.map.end - self._end)
        self._images = self._mapped_images()
        self._fences = Fences()

    def _mapped_images(self) -> list[Fence]:
        """The parameters as images are mapped: each channel in pages of its own, read only; and once more, to write."""
        channels = self.case.map.target.channels
        stripes = self.start.hbm[: self._end].reshape(-1, channels, BEAT_BYTES)
        self._writable: list[np.ndarray] = []
        images: list[Fence] = []
        for channel in range(channels):
            file = os.memfd_create("image")
            image = Fence(stripes[:, channel].size, file=file)
            image.bytes[:] = stripes[:, channel].reshape(-1)
            again = np.frombuffer(mmap.mmap(file, os.fstat(file).st_size), np.uint8)
            self._writable.append(again[again.size - image.bytes.size :])
            start = image.bytes.ctypes.data // PAGE * PAGE
            _protect(start, -(-image.bytes.size // PAGE) * PAGE, _READ)
            os.close(file)
            images.append(image)
        return images

    def memory(self) -> NativeMemory:
        """The native executor's memory."""
        m, channels = self.case.map, self.case.map.target.channels
        tables = [(ctypes.c_void_p * channels)() for _ in range(2)]
        base = self._runtime.bytes.ctypes.data
        tables[0][:] = [image.bytes.ctypes.data for image in self._images]
        tables[1][:] = [base + BEAT_BYTES * channel for channel in range(channels)]
        parameters = Region(0, self._end, ctypes.addressof(tables[0]), BEAT_BYTES)
        runtime = Region(self._end, m.end, ctypes.addressof(tables[1]), m.target.stripe_bytes)
        return NativeMemory(m, parameters, runtime, tables)

    # ------------------------------------------------------------------------------------------------ running

    def program(self) -> Program:
        """The case's program as it comes from a file: decoded from its words."""
        decoded = decode_program(encode_program(self.case.program)).instructions
        return Program(
            decoded, tuple(Origin("main", f"model.{number}", item.name) for number, item in enumerate(decoded))
        )

    def replace(self, number: int, item: Instruction) -> None:
        """Puts another instruction in the place of that number of the program."""
        first = len(self.case.program) - 1 - len(self.case.instructions)
        self.case.instructions[number - first] = item

    def interpreted(self, program: Program) -> tuple[Outcome, int]:
        """What the interpreter leaves, and how many instructions it has executed."""
        case, hbm = self.case, self._hbm
        hbm.bytes[self._end :] = self.start.hbm[self._end :]
        hbm._written[:] = True
        machine = Machine(program, hbm, chunk=case.chunk, lmu_words=LMU_WORDS, budget=BUDGET, **place_of(case))
        lmu = machine.state.lmu = WrittenLmu(self.start.lmu)
        error = run_case(machine, case, self.start)
        return self._outcome(machine, error, lmu.words, hbm.bytes[self._end :]), machine.executed

    def native(self, program: Program, threads: int) -> Outcome:
        """The state that the native executor leaves. Raises AssertionError when anything outside was written, or when
        threads have come to different registers."""
        with self._fences.in_use(), self._machine(program, threads) as machine:
            error = run_case(machine, self.case, self.start)
            if error is None:
                _check_threads(machine)
            lmu = machine.lmu(0, 1, LMU_WORDS)[0]
            outcome = self._outcome(machine, error, lmu, self._runtime.bytes)
        self._runtime.check()
        return outcome

    def rewritten(self, program: Program, threads: int, seed: int) -> None:
        """Runs the program while another thread rewrites the images. Raises AssertionError as `native` does."""
        over = threading.Event()
        rng = np.random.default_rng(seed)
        writer = threading.Thread(target=self._rewrite, args=(rng, over))
        writer.start()
        try:
            with self._fences.in_use(), self._machine(program, threads) as machine:
                if run_case(machine, self.case, self.start) is None:
                    _check_threads(machine)
        finally:
            over.set()
            writer.join()
            stripes = self.start.hbm[: self._end].reshape(-1, len(self._writable), BEAT_BYTES)
            for channel, image in enumerate(self._writable):
                image[:] = stripes[:, channel].reshape(-1)
        self._runtime.check()

    def _rewrite(self, rng: np.random.Generator, over: threading.Event) -> None:
        """Numbers that lookups find, and now and then everything."""
        first = self._writable[0][:BEAT_BYTES].view(np.int64)
        while not over.is_set():
            image = self._writable[int(rng.integers(len(self._writable)))]
            beat = image[: 4 * BEAT_BYTES].view(np.int64)
            for _ in range(20):
                beat[:] = rng.integers(0, 4, beat.size)
                first[:] = rng.choice(TABLES, first.size)
            image[:] = rng.integers(0, 256, image.size, np.uint8)

    @contextmanager
    def _machine(self, program: Program, threads: int) -> Iterator[NativeMachine]:
        case = self.case
        self._runtime.bytes[:] = self.start.hbm[self._end :]
        machine = NativeMachine(
            program, self.memory(), chunk=case.chunk, lmu_words=LMU_WORDS, budget=BUDGET, threads=threads,
            **place_of(case),
        )  # fmt: skip
        try:
            machine.write_lmu(0, self.start.lmu)
            yield machine
        finally:
            machine.close()

    def _outcome(
        self, machine: Machine | NativeMachine, error: str | None, lmu: np.ndarray, area: np.ndarray
    ) -> Outcome:
        bits = float_bits(run_time_bits(area, self.case).view(np.float32))  # stores put f32 anywhere
        return Outcome(error, machine.fault, step_of(machine), list(machine.registers), float_bits(lmu), bits)


def _check_threads(machine: NativeMachine) -> None:
    """All threads have come to the same registers."""
    first, *others = [list(state.registers) for state in machine._states]
    if any(other != first for other in others):
        raise AssertionError(f"threads differ: {first} and {others}")
