"""The executors of compiled models: the same bits from each, on one device or on several."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hyperdex_ir.errors import OptionError
from hyperdex_ir.interpreter.hbm import Hbm
from hyperdex_ir.interpreter.link import Link, in_memory_links
from hyperdex_ir.interpreter.machine import Machine
from hyperdex_ir.interpreter.step import StepMachine
from hyperdex_ir.isa.program import Program
from hyperdex_ir.memory.map import MemoryMap
from hyperdex_ir.memory.program_facts import ProgramFacts
from hyperdex_ir.native.availability import why_unavailable
from hyperdex_ir.runtime.device import InterpreterDevice, MachineDevice, RingDevice


def _interpreter(program: Program, images: Sequence[Path], memory_map: MemoryMap, _: Any, **place: Any) -> Machine:
    return Machine(program, Hbm.from_images(images, memory_map), **place)


def _native(
    program: Program, images: Sequence[Path], memory_map: MemoryMap, threads: int | None, **place: Any
) -> StepMachine:
    from hyperdex_ir.native.machine import NativeMachine
    from hyperdex_ir.native.mapped_hbm import NativeMemory

    return NativeMachine(program, NativeMemory.from_images(images, memory_map), threads=threads, **place)


@dataclass(frozen=True)
class _Kind:
    """An executor of programs. why_unavailable: the reason why this computer cannot run it, one line; else empty."""

    machine: Callable[..., StepMachine]
    threaded: bool = False
    why_unavailable: Callable[[], str] = lambda: ""


_KINDS = {
    "native": _Kind(_native, threaded=True, why_unavailable=why_unavailable),
    "interpreter": _Kind(_interpreter),
}
EXECUTORS = tuple(_KINDS)
DEFAULT_EXECUTOR = "native"
_FALLBACK = "interpreter"
_MOST_THREADS = 1024


@dataclass(frozen=True)
class Executor:
    """The executor that was asked for. threads: number of threads of a native machine, all cores when None.

    Raises OptionError unless there is such an executor, and `threads` can be a number of threads.
    """

    name: str = DEFAULT_EXECUTOR
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.name not in EXECUTORS:
            raise OptionError(
                f"no executor {self.name!r}; there are {', '.join(EXECUTORS)}", "leave it out for the default"
            )
        if self.threads is not None and not 1 <= self.threads <= _MOST_THREADS:
            raise OptionError(f"{self.threads} threads; there can be 1 to {_MOST_THREADS}")

    @property
    def _kind(self) -> _Kind:
        return _KINDS[self.name]

    def available(self) -> Executor:
        """This executor. Where it cannot run, says so on standard error and returns the interpreter."""
        reason = self._kind.why_unavailable()
        if not reason:
            return self
        print(f"hyperdex: the {self.name} executor cannot run here: {reason}; using the {_FALLBACK}", file=sys.stderr)
        return replace(self, name=_FALLBACK)

    def shared_by(self, processes: int) -> Executor:
        """The executor for one of several processes on this host: its share of the cores, if no number was given."""
        return self if self.threads is not None else self._share(processes)

    def divided(self, devices: int) -> Executor:
        """The executor for each of several devices that run at once in this process: its share of the threads."""
        return self if devices == 1 else self._share(devices)

    def _share(self, count: int) -> Executor:
        if not self._kind.threaded:
            return self
        from hyperdex_ir.native.machine import default_threads

        return replace(self, threads=max(1, (self.threads or default_threads()) // count))

    def machine(
        self,
        program: Program,
        images: Sequence[Path],
        memory_map: MemoryMap,
        chunk: int,
        device: int = 0,
        link: Link | None = None,
    ) -> StepMachine:
        """The machine of one device. images: its parameters, by channel. device, link: its place on a ring.

        Raises FileFormatError when the images do not fit the map.
        """
        place = {"chunk": chunk, "lmu_words": memory_map.target.lmu_words, "device": device, "link": link}
        return self._kind.machine(program, images, memory_map, self.threads, **place)


def open_device(
    executor: Executor, program: Program, images: Sequence[Sequence[Path]], memory_map: MemoryMap, facts: ProgramFacts
) -> MachineDevice[Any]:
    """All devices of a model in this process, used like one. images: parameters, by device and channel.

    The devices of a ring run at once and share the threads; each has one at least. Raises as `Executor.machine`.
    """
    executor = executor.available().divided(len(images))
    chunk, head_rows = facts.chunk, facts.head_rows
    if len(images) > 1:
        links = in_memory_links(len(images), patient=executor.threads in (None, 1))
        places = enumerate(zip(images, links, strict=True))
        machines = [executor.machine(program, own, memory_map, chunk, device, link) for device, (own, link) in places]
        return RingDevice(machines, links, memory_map, chunk, head_rows)
    if executor.name == "interpreter":
        return InterpreterDevice(program, Hbm.from_images(images[0], memory_map), memory_map, chunk, head_rows)
    return MachineDevice(executor.machine(program, images[0], memory_map, chunk), memory_map, chunk, head_rows)
