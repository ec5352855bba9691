"""The engines that can execute a compiled model: the same bits from each."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hyperdex_ir.errors import OptionError
from hyperdex_ir.isa.program import Program
from hyperdex_ir.memory.map import MemoryMap
from hyperdex_ir.runtime.device import InterpreterDevice, MachineDevice

ENGINES = ("native", "interpreter")
DEFAULT_ENGINE = "native"
_MOST_THREADS = 1024


def check_engine(engine: str, threads: int | None) -> None:
    """Raises OptionError unless there is such an engine, and that can be a number of threads."""
    if engine not in ENGINES:
        raise OptionError(f"no engine {engine!r}; there are {', '.join(ENGINES)}", "leave it out for the default")
    if threads is not None and not 1 <= threads <= _MOST_THREADS:
        raise OptionError(f"{threads} threads; there can be 1 to {_MOST_THREADS}")


def open_device(
    engine: str,
    threads: int | None,
    program: Program,
    images: Sequence[Path],
    memory_map: MemoryMap,
    facts: dict[str, Any],
) -> MachineDevice:
    """A device with the parameter images of its channels. threads: of the native engine, all cores when not given.

    Where the native engine cannot run, says so on standard error and takes the interpreter.
    """
    if engine == "native":
        from hyperdex_ir.engine.availability import why_unavailable

        reason = why_unavailable()
        if not reason:
            return _native(threads, program, images, memory_map, facts)
        print(f"hyperdex: the native engine cannot run here: {reason}; using the interpreter", file=sys.stderr)
    from hyperdex_ir.interpreter.hbm import Hbm

    hbm = Hbm.from_images(images, memory_map)
    return InterpreterDevice(program, hbm, memory_map, facts["chunk"], facts["head_rows"])


def _native(
    threads: int | None, program: Program, images: Sequence[Path], memory_map: MemoryMap, facts: dict[str, Any]
) -> MachineDevice:
    from hyperdex_ir.engine.machine import EngineMachine
    from hyperdex_ir.engine.memory import EngineMemory

    memory = EngineMemory.from_images(images, memory_map)
    chunk, words = facts["chunk"], memory_map.target.lmu_words
    machine = EngineMachine(program, memory, chunk=chunk, lmu_words=words, threads=threads)
    return MachineDevice(machine, memory_map, chunk, facts["head_rows"])
