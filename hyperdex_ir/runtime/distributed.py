"""One device of a model that is divided over the processes of a distributed run."""

from __future__ import annotations

import atexit
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, NoReturn, cast

import numpy as np

from hyperdex_ir import __version__
from hyperdex_ir.errors import HyperdexError, MachineFault, OptionError, PeerError
from hyperdex_ir.interpreter.step import NumericFault, StepMachine
from hyperdex_ir.isa.cost_rules import Link
from hyperdex_ir.isa.instructions import NEXT_TOKEN
from hyperdex_ir.isa.program import Program
from hyperdex_ir.memory.fields import Fields
from hyperdex_ir.memory.map import MemoryMap
from hyperdex_ir.memory.program_facts import ProgramFacts
from hyperdex_ir.runtime.connection import Connection
from hyperdex_ir.runtime.device import MachineDevice
from hyperdex_ir.runtime.executors import Executor
from hyperdex_ir.runtime.frames import FRAME_BYTES
from hyperdex_ir.runtime.launch import Launch, digest
from hyperdex_ir.runtime.program import check_images, listed_files, read_program
from hyperdex_ir.runtime.rendezvous import Meeting
from hyperdex_ir.support.locations import ModelFolder

_LONGEST_PATH = 1000  # characters of a module's path, so that a frame has room for it


class LinkedMachine:
    """This process's machine, its link led to the other processes; all run their steps together.

    Values that all have in common (logits, registers) are this machine's; the fault is the first of all.
    """

    def __init__(self, machine: StepMachine, connection: Connection):
        self.fault: NumericFault | None = None
        self.machine = machine
        self._connection = connection

    @property
    def registers(self) -> list[int | None]:
        return self.machine.registers

    def read_hbm(self, address: int, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
        """A copy of an array in the HBM of this device."""
        return self.machine.read_hbm(address, shape, dtype)

    def write_hbm(self, address: int, data: np.ndarray) -> None:
        """Writes to the run-time area of this device; the other processes do the same with theirs."""
        self.machine.write_hbm(address, data)

    def clear(self) -> None:
        """Forgets the sticky flag, and counts steps from 0 again."""
        self.fault = None
        self.machine.clear()

    def run(self, tokens: Sequence[int], position: int, first_row: int) -> None:
        """Runs one step, together with the other processes, each of which must run the same.

        Raises PeerError when one is lost or fails; MachineFault, which names the device, when this one does what the
        machine forbids.
        """
        device = self._connection.device
        try:
            self.machine.start(tokens, position, first_row)
            while self.machine.resume() == "receive":
                self._connection.wait()
        except HyperdexError as error:
            self._connection.fail(_failure(device, error))
            if isinstance(error, MachineFault):
                raise MachineFault(f"device {device}: {error}") from None
            raise
        self._agree([list(tokens), position, first_row])

    def _agree(self, request: object) -> None:
        """Makes sure that all ran the same step to the same token, and takes the first fault of all."""
        fault = self.machine.fault
        mine = {
            "step": digest(request),
            "next token": self.registers[NEXT_TOKEN],
            "fault": None if fault is None else asdict(fault) | {"module_path": fault.module_path[:_LONGEST_PATH]},
        }
        notes = exchange(self._connection, mine)
        check_equal(self._connection, notes, ("step", "next token"))
        faults = [_read_fault(self._connection, device, note) for device, note in enumerate(notes)]
        self.fault = min(filter(None, faults), key=lambda fault: fault.order, default=None)


def exchange(connection: Connection, note: Mapping[str, object]) -> list[Fields]:
    """The notes of all devices, by device. Raises PeerError for a note that this program would not write."""
    notes = []
    for device, found in enumerate(connection.exchange(json.dumps(note).encode())):
        try:
            notes.append(Fields(json.loads(found), ""))
        except (ValueError, RecursionError, TypeError):
            raise _another_program(connection, device) from None
    return notes


def check_equal(connection: Connection, notes: Sequence[Fields], names: Iterable[str]) -> None:
    """Raises PeerError, on every device, when a device's values of these names are not those of device 0."""
    for device, note in enumerate(notes):
        for name in names:
            if note.value(name) != notes[0].value(name):
                raise connection.fail(f"device {device} has another {name} than device 0")


def _read_fault(connection: Connection, device: int, note: Fields) -> NumericFault | None:
    """The fault in a device's note. Raises PeerError for a note that this program would not write."""
    if note.value("fault") is None:
        return None
    try:
        found = note.object("fault")
        layer = None if found.value("layer") is None else found.whole("layer")
        chunk, index, step, place = (found.whole(name) for name in ("chunk", "index", "step", "device"))
        return NumericFault(chunk, layer, index, found.text("name"), found.text("module_path"), step, place)
    except (KeyError, TypeError):
        raise _another_program(connection, device) from None


def _another_program(connection: Connection, device: int) -> PeerError:
    return connection.fail(f"device {device} wrote what no process of this program writes")


class DistributedDevice(MachineDevice[LinkedMachine]):
    """One device of several, each in a process of its own; used in all of them alike."""

    def __init__(self, machine: StepMachine, connection: Connection, memory_map: MemoryMap, chunk: int, head_rows: int):
        super().__init__(LinkedMachine(machine, connection), memory_map, chunk, head_rows)
        self._connection = connection

    def agree(self, facts: Mapping[str, str]) -> None:
        """Raises PeerError when another process was given something else: name -> value."""
        check_equal(self._connection, exchange(self._connection, facts), facts)

    def first(self, value: int) -> int:
        """The value of device 0; all processes call this."""
        found = exchange(self._connection, {"value": value})[0].value("value")
        if isinstance(found, bool) or not isinstance(found, int):
            raise _another_program(self._connection, 0)
        return found

    def _describe(self, fault: NumericFault) -> str:
        return f"device {fault.device}: {super()._describe(fault)}"


def open_distributed(
    folder: ModelFolder, num_device: int | None, name: str, launch: Launch, timeout: float, executor: Executor
) -> tuple[DistributedDevice, ProgramFacts]:
    """The device of this process, and the facts of its program; only the images of this device are read.

    The processes of a host share its cores, unless the executor has a number of threads.
    At the end of the process the devices part in good order, unless one has failed.
    Raises what `CompiledModel.open` raises, and PeerError when another process is not there or runs something else.
    """
    if num_device not in (None, launch.count):
        raise OptionError(
            f"num_device is {num_device}, there are {launch.count} processes", "start one process for each device"
        )
    meeting = Meeting(launch)
    try:
        program, memory_map, facts = read_program(folder, launch.count, name)
        identity = _identity(listed_files(folder, launch.count, name))
    except HyperdexError as error:
        meeting.refuse(_failure(launch.rank, error))
        raise
    meeting.compare({"version of hyperdex-ir": __version__, **identity})
    most = largest_message(program, memory_map, facts.chunk)
    connection = Connection(
        *(meeting.connect(), launch.rank, launch.count, meeting.key, most, timeout),
        *(meeting.verdict, partial(_end_at_once, meeting)),
        room=launch.count * (memory_map.target.lmu_bytes + 2 * FRAME_BYTES),  # messages by docs/isa.md, and notes
    )
    atexit.register(_part, meeting, connection)
    executor = executor.available().shared_by(launch.local_count)
    try:
        images = check_images(folder, launch.count, launch.rank, memory_map)
        machine = executor.machine(program, images, memory_map, facts.chunk, launch.rank, connection)
    except HyperdexError as error:
        connection.fail(_failure(launch.rank, error))
        raise
    return DistributedDevice(machine, connection, memory_map, facts.chunk, facts.head_rows), facts


def largest_message(program: Program, memory_map: MemoryMap, chunk: int) -> int:
    """Bytes of the longest message that a device can send: a chunk of rows, all of which lie in the LMU."""
    sends = (item for item in program.instructions if isinstance(cost := item.spec.cost, Link) and cost.sends)
    columns = max((cast(int, send["columns"]) for send in sends), default=0)
    return 4 * min(chunk * columns, memory_map.target.lmu_words)


def _identity(files: Mapping[str, Any]) -> dict[str, str]:
    """Values that all processes must have in common: the hashes of the compiled model, by the manifest's names."""
    kinds = {"model": "param/", "memory map": "config/", "program": "inst/"}
    return {
        kind: digest({name: entry for name, entry in files.items() if name.startswith(folder)})
        for kind, folder in kinds.items()
    }


def _failure(device: int, error: HyperdexError) -> str:
    return f"device {device} has failed: {error}"


def _part(meeting: Meeting, connection: Connection) -> None:
    """Ends the connection together with the other processes; the process at once when one has failed."""
    if connection.has_failed:
        connection.linger()
        meeting.leave()
    try:
        connection.close()
        meeting.part()
    except PeerError as error:
        connection.linger()
        _end_at_once(meeting, error)


def _end_at_once(meeting: Meeting, error: PeerError) -> NoReturn:
    print(f"error[{error.code}]: {error}", f"hint: {error.hint}", sep="\n", file=sys.stderr)
    meeting.leave()
