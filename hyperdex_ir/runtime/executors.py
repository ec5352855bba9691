"""The engines that can execute a compiled model: the same bits from each, on one device or on several."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperdex_ir.errors import OptionError
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.link import Link, in_memory_links
from hyperdex_ir.interpreter.machine import Machine
from hyperdex_ir.isa.program import Program
from hyperdex_ir.memory.map import MemoryMap
from hyperdex_ir.memory.program_facts import ProgramFacts
from hyperdex_ir.runtime.device import InterpreterDevice, MachineDevice, RingDevice

if TYPE_CHECKING:
    from hyperdex_ir.native.machine import EngineMachine

ENGINES = ("native", "interpreter")
DEFAULT_ENGINE = "native"
_MOST_THREADS = 1024


@dataclass(frozen=True)
class Engine:
    """An engine that was asked for. threads: of a native machine, all cores when None.

    Raises OptionError unless there is such an engine, and that can be a number of threads.
    """

    name: str = DEFAULT_ENGINE
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise OptionError(
                f"no engine {self.name!r}; there are {', '.join(ENGINES)}", "leave it out for the default"
            )
        if self.threads is not None and not 1 <= self.threads <= _MOST_THREADS:
            raise OptionError(f"{self.threads} threads; there can be 1 to {_MOST_THREADS}")

    def available(self) -> Engine:
        """This one; where the native engine cannot run, says so on standard error and returns the interpreter."""
        if self.name != "native":
            return self
        from hyperdex_ir.native.availability import why_unavailable

        reason = why_unavailable()
        if not reason:
            return self
        print(f"hyperdex: the native engine cannot run here: {reason}; using the interpreter", file=sys.stderr)
        return replace(self, name="interpreter")

    def shared_by(self, processes: int) -> Engine:
        """For one of several processes on this host: its share of the cores, where no number of threads was given."""
        if self.name != "native" or self.threads is not None:
            return self
        from hyperdex_ir.native.machine import default_threads

        return replace(self, threads=max(1, default_threads() // processes))

    def divided(self, devices: int) -> Engine:
        """For each of several devices that run at once in this process: its share of the threads."""
        if self.name != "native" or devices == 1:
            return self
        from hyperdex_ir.native.machine import default_threads

        return replace(self, threads=max(1, (self.threads or default_threads()) // devices))

    def machine(
        self,
        program: Program,
        images: Sequence[Path],
        memory_map: MemoryMap,
        chunk: int,
        device: int = 0,
        link: Link | None = None,
    ) -> Machine | EngineMachine:
        """The machine of one device. images: its parameters, by channel. device, link: its place on a ring.

        Raises FileFormatError when the images are not what the map says.
        """
        words = memory_map.target.lmu_words
        if self.name == "interpreter":
            hbm = Hbm.from_images(images, memory_map)
            return Machine(program, hbm, chunk=chunk, lmu_words=words, device=device, link=link)
        from hyperdex_ir.native.machine import EngineMachine
        from hyperdex_ir.native.mapped_hbm import EngineMemory

        memory = EngineMemory.from_images(images, memory_map)
        return EngineMachine(
            program, memory, chunk=chunk, lmu_words=words, threads=self.threads, device=device, link=link
        )


def open_device(
    engine: Engine, program: Program, images: Sequence[Sequence[Path]], memory_map: MemoryMap, facts: ProgramFacts
) -> MachineDevice[Any]:
    """All devices of a model in this process, used like one. images: parameters, by device and channel.

    The devices of a ring run at once and share the threads; each has one at least. Raises as `Engine.machine`.
    """
    engine = engine.available().divided(len(images))
    chunk, head_rows = facts.chunk, facts.head_rows
    if len(images) > 1:
        links = in_memory_links(len(images), patient=engine.threads in (None, 1))
        places = enumerate(zip(images, links, strict=True))
        machines = [engine.machine(program, own, memory_map, chunk, device, link) for device, (own, link) in places]
        return RingDevice(machines, links, memory_map, chunk, head_rows)
    if engine.name == "interpreter":
        return InterpreterDevice(program, Hbm.from_images(images[0], memory_map), memory_map, chunk, head_rows)
    return MachineDevice(engine.machine(program, images[0], memory_map, chunk), memory_map, chunk, head_rows)
