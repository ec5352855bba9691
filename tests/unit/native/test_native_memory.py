"""The native executor's HBM, mapped and in memory; and its threads."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from support.programs.machine_programs import LMU_WORDS, WIDTH, embed, layout, memory_map, op, parameter

from hyperdex_ir.errors import FileFormatError, MachineFault
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.isa.operands import HbmRef, LmuRef
from hyperdex_ir.isa.program import Program
from hyperdex_ir.native.machine import NativeMachine
from hyperdex_ir.native.mapped_hbm import NativeMemory
from hyperdex_ir.native.pool import Pool
from hyperdex_ir.support.files import Kind, write_binary
from hyperdex_ir.targets import BEAT_BYTES

MAP = memory_map()
CHANNELS = MAP.target.channels


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """The parameters as one file a channel."""
    hbm = Hbm.from_parameters(MAP, layout(), parameter)
    stripes = hbm.bytes[: MAP.parameter_end].reshape(-1, CHANNELS, BEAT_BYTES)
    paths = [tmp_path / f"{channel}.bin" for channel in range(CHANNELS)]
    for channel, path in enumerate(paths):
        write_binary(path, Kind.PARAMETERS, stripes[:, channel].tobytes())
    return paths


def run(memory: NativeMemory | Hbm, threads: int) -> bytes:
    """The embeddings, and a row of f32 from the middle of a beat on, by way of the run-time area."""
    program = [
        embed(),
        op("load", dst=LmuRef(4 * WIDTH), src=HbmRef(MAP.addresses["row"] + 12), columns=WIDTH - 3),
        op("store", dst=HbmRef(MAP.logits + 20), pitch=1024, src=LmuRef(0, WIDTH), columns=2 * WIDTH, rows=1),
        op("load", dst=LmuRef(5 * WIDTH), src=HbmRef(MAP.logits + 20), columns=2 * WIDTH),
        op("halt"),
    ]
    machine = NativeMachine(Program(tuple(program)), memory, chunk=4, lmu_words=LMU_WORDS, threads=threads)
    machine.run([7, 39, 0], 0, 0)
    return machine.lmu(0, 7, WIDTH).tobytes() + machine.read_hbm(MAP.logits, (800,), np.float32).tobytes()


def test_mapped_images_and_memory_are_read_alike(images: list[Path]) -> None:
    expected = run(Hbm.from_parameters(MAP, layout(), parameter), 1)
    for threads in (1, 3):
        assert run(NativeMemory.from_images(images, MAP), threads) == expected


def test_images_that_do_not_fit_are_refused(images: list[Path]) -> None:
    with pytest.raises(FileFormatError, match="31 parameter images, u55c has 32 channels"):
        NativeMemory.from_images(images[1:], MAP)
    images[3].write_bytes(images[3].read_bytes()[:-64])
    with pytest.raises(FileFormatError, match=r"3\.bin: \d+ bytes, the memory map says"):
        NativeMemory.from_images(images, MAP)
    images[3].write_bytes(b"")
    with pytest.raises(FileFormatError, match=r"3\.bin: empty"):
        NativeMemory.from_images(images, MAP)
    images[3].unlink()
    with pytest.raises(FileFormatError, match=r"3\.bin: no such file"):
        NativeMemory.from_images(images, MAP)


def test_the_host_reaches_the_run_time_area_only(images: list[Path]) -> None:
    memory = NativeMemory.from_images(images, MAP)
    data = np.arange(5, dtype=np.float32)
    for address in (MAP.parameter_end, MAP.end - 20):
        assert not memory.read(address, (5,), np.float32).any()
        memory.write(address, data)
        assert memory.read(address, (5,), np.float32).tobytes() == data.tobytes()
    for address in (0, MAP.parameter_end - 4, MAP.end - 16, -20):
        with pytest.raises(MachineFault, match=f"HBM bytes {address} to {address + 19}, the run-time area is"):
            memory.write(address, data)
        with pytest.raises(MachineFault, match="the run-time area is"):
            memory.read(address, (5,), np.float32)


def test_the_host_shares_the_memory_of_an_interpreter() -> None:
    hbm = Hbm.from_parameters(MAP, layout(), parameter)
    NativeMemory.from_hbm(hbm).write(MAP.tokens, np.array([3, 4], np.int64))
    assert hbm.view(MAP.tokens, (2,), np.int64).tolist() == [3, 4]


def test_a_forked_process_has_a_run_time_area_of_its_own(images: list[Path]) -> None:
    memory = NativeMemory.from_images(images, MAP)
    memory.write(MAP.logits, np.array([1.5], np.float32))
    child = os.fork()
    if child == 0:
        memory.write(MAP.logits, np.array([2.5], np.float32))
        os._exit(0)
    os.waitpid(child, 0)
    assert memory.read(MAP.logits, (1,), np.float32) == 1.5


# ---------------------------------------------------------------------------------------------------- threads


def test_each_thread_runs_the_job_once() -> None:
    done: list[int] = []
    pool = Pool(3, done.append)
    for count in range(1, 4):
        assert pool.run(lambda: None)
        assert sorted(done) == sorted([0, 1, 2] * count)
    pool.close()


def test_what_a_job_raises_is_raised_to_the_caller() -> None:
    pool = Pool(2, lambda number: [][number])
    for _ in range(2):
        with pytest.raises(IndexError):
            pool.run(lambda: None)
    pool.close()


def test_a_forked_process_has_threads_of_its_own() -> None:
    done: list[int] = []
    pool = Pool(2, done.append)
    pool.run(lambda: None)
    child = os.fork()
    if child == 0:
        in_time = pool.run(lambda: None, time.monotonic() + 30)
        os._exit(0 if in_time and sorted(done) == [0, 0, 1, 1] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    pool.run(lambda: None)
    assert sorted(done) == [0, 0, 1, 1]
    pool.close()


def test_a_deadline_tells_the_jobs_to_stop() -> None:
    told: list[bool] = []

    def job(number: int) -> None:
        while not told:
            time.sleep(0.001)

    pool = Pool(2, job)
    assert not pool.run(lambda: told.append(True), time.monotonic() + 0.05)
    assert pool.run(lambda: told.append(True), time.monotonic() + 60)
    assert told == [True]
    pool.close()
