"""One device of a model that is divided over the processes of a distributed run."""

from __future__ import annotations

import atexit
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, NoReturn

import numpy as np

from hyperdex_ir import __version__
from hyperdex_ir.errors import HyperdexError, MachineFault, OptionError, PeerError
from hyperdex_ir.interpreter.machine import NumericFault
from hyperdex_ir.isa.instructions import NEXT_TOKEN
from hyperdex_ir.locations import ModelFolder
from hyperdex_ir.memory.map import MemoryMap
from hyperdex_ir.runtime.connection import Connection
from hyperdex_ir.runtime.device import MachineDevice
from hyperdex_ir.runtime.engines import Engine
from hyperdex_ir.runtime.program import check_images, listed_files, read_program
from hyperdex_ir.runtime.rendezvous import Launch, Meeting, digest
from hyperdex_ir.runtime.ring import PassMachine


class LinkedMachine:
    """This process's machine, its link led to the other processes; all run their passes together.

    What all have in common (logits, registers) is this one's; the fault is the first of all.
    """

    def __init__(self, machine: PassMachine, connection: Connection):
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
        """Forgets the sticky flag, and counts passes from 0 again."""
        self.fault = None
        self.machine.clear()

    def run(self, tokens: Sequence[int], position: int, first_row: int) -> None:
        """One pass, together with the other processes, each of which must run the same.

        Raises PeerError when one is lost or fails; MachineFault, which names the device, when it is this one that does
        what is forbidden.
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
        """Makes sure that all ran the same pass to the same token, and takes the first fault of all."""
        fault = self.machine.fault
        mine = {
            "pass": digest(request),
            "next token": self.registers[NEXT_TOKEN],
            "fault": None if fault is None else asdict(fault),
        }
        notes = [json.loads(note) for note in self._connection.exchange(json.dumps(mine).encode())]
        check_equal(self._connection, [{name: note[name] for name in ("pass", "next token")} for note in notes])
        faults = [NumericFault(**note["fault"]) for note in notes if note["fault"] is not None]
        self.fault = min(faults, key=lambda fault: fault.order, default=None)


def check_equal(connection: Connection, facts: Sequence[Mapping[str, object]]) -> None:
    """Raises PeerError, on every device, when a device's facts are not those of device 0."""
    for device, found in enumerate(facts):
        for name, value in found.items():
            if value != facts[0][name]:
                raise connection.fail(f"device {device} has another {name} than device 0")


class DistributedDevice(MachineDevice[LinkedMachine]):
    """One device of several, each in a process of its own; used in all of them alike."""

    def __init__(self, machine: PassMachine, connection: Connection, memory_map: MemoryMap, chunk: int, head_rows: int):
        super().__init__(LinkedMachine(machine, connection), memory_map, chunk, head_rows)
        self._connection = connection

    def agree(self, facts: Mapping[str, str]) -> None:
        """Raises PeerError when another process was given something else: name -> value."""
        notes = self._connection.exchange(json.dumps(dict(facts)).encode())
        check_equal(self._connection, [json.loads(note) for note in notes])

    def first(self, value: int) -> int:
        """The value of device 0; all processes call this."""
        return json.loads(self._connection.exchange(json.dumps(value).encode())[0])

    def _describe(self, fault: NumericFault) -> str:
        return f"device {fault.device}: {super()._describe(fault)}"


def open_distributed(
    folder: ModelFolder, num_device: int | None, name: str, launch: Launch, timeout: float, engine: Engine
) -> tuple[DistributedDevice, dict[str, Any]]:
    """The device of this process, and the facts of its program; only the images of this device are read.

    The processes of a host share its cores, where the engine has no number of threads.
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
    meeting.compare({"number of processes": str(launch.count), "version of hyperdex-ir": __version__, **identity})
    group = meeting.connect()
    connection = Connection(group, launch.rank, launch.count, timeout, meeting.verdict, partial(_end_at_once, meeting))
    atexit.register(_part, meeting, connection)
    engine = engine.available().shared_by(launch.local_count)
    try:
        images = check_images(folder, launch.count, launch.rank, memory_map)
        machine = engine.machine(program, images, memory_map, facts["chunk"], launch.rank, connection)
    except HyperdexError as error:
        connection.fail(_failure(launch.rank, error))
        raise
    return DistributedDevice(machine, connection, memory_map, facts["chunk"], facts["head_rows"]), facts


def _identity(files: Mapping[str, Any]) -> dict[str, str]:
    """What all processes must have in common: the hashes of the compiled model, by what the manifest lists."""
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
