"""The devices of a ring in one process: they run at once, each on a thread of its own.

The work of a device depends on its program and the messages it takes, in their order, and on nothing else. When one
faults, the others therefore go on until they need a message of it: the faults that are found do not depend on timing.
Their machines may be of any executor, as long as they have the protocol `StepMachine`.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence

import numpy as np

from hyperdex_ir.errors import DeadlineError, MachineFault
from hyperdex_ir.interpreter.link import MemoryLink, Wires
from hyperdex_ir.interpreter.step import NumericFault, StepMachine
from hyperdex_ir.native.pool import Pool


class Ring:
    """Machines with the links between them, by device. Values of all (logits, registers) are read from the first.

    deadline: seconds of `time.monotonic`, None for none; a step that is not over by then ends in DeadlineError.
    """

    def __init__(self, machines: Sequence[StepMachine], links: Sequence[MemoryLink]):
        self.machines = tuple(machines)
        self.deadline: float | None = None
        self._round = _Round(self.machines, links[0].wires)
        self._pool = Pool(len(machines), self._round.run_device)
        self._running = threading.Lock()
        self._finalizer = weakref.finalize(self, self._pool.close)

    @property
    def registers(self) -> list[int | None]:
        return self.machines[0].registers

    @property
    def fault(self) -> NumericFault | None:
        """The first fault of all in program order; of those at the same instruction, that of the lowest device."""
        faults = (machine.fault for machine in self.machines)
        return min(filter(None, faults), key=lambda fault: fault.order, default=None)

    def read_hbm(self, address: int, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
        """A copy of an array in the HBM of the first device."""
        return self.machines[0].read_hbm(address, shape, dtype)

    def write_hbm(self, address: int, data: np.ndarray) -> None:
        """Writes the same to the run-time area of every device."""
        for machine in self.machines:
            machine.write_hbm(address, data)

    def clear(self) -> None:
        """Forgets the sticky flags, and counts steps from 0 again."""
        for machine in self.machines:
            machine.clear()

    def run(self, tokens: Sequence[int], position: int, first_row: int) -> None:
        """Runs one step of all devices, each with the same tokens. Steps of several Python threads take turns.

        Raises MachineFault as the machines do: the first in program order, then of the lowest device, which it names;
        and when all that are left wait for messages; DeadlineError when the deadline is over. That, Ctrl+C and any
        other error of a machine end all devices at once.
        """
        with self._running:
            self._round.begin()
            for machine in self.machines:
                machine.start(tokens, position, first_row)
            in_time = self._pool.run(self._round.stop, self.deadline)
            self._round.check()
            if not in_time:
                raise DeadlineError("the deadline passed before the step was over")


class _Round:
    """A step of all devices, and its end for each. It has no reference to the ring, so that can be collected."""

    def __init__(self, machines: Sequence[StepMachine], wires: Wires):
        self._machines, self._wires = machines, wires

    def begin(self) -> None:
        self._stopped = False
        self._faults: dict[int, MachineFault] = {}
        self._errors: dict[int, BaseException] = {}
        self._stuck: list[int] = []
        self._wires.begin()

    def run_device(self, device: int) -> None:
        """Runs a device to its end: by halt, by a fault, or where it waits for a message that nobody sends."""
        try:
            self._run(device)
        except MachineFault as fault:
            self._faults[device] = fault
        except BaseException as error:  # raised again by `check`
            self._errors[device] = error
            self.stop()
        self._wires.leave(device)

    def _run(self, device: int) -> None:
        machine = self._machines[device]
        while not self._stopped and machine.resume() == "receive":
            if not self._wires.wait(device):
                self._stuck.append(device)
                return

    def stop(self) -> None:
        """Ends all devices, wherever they are."""
        self._stopped = True
        self._wires.end()
        for machine in self._machines:
            machine.stop()

    def check(self) -> None:
        """Raises the error that the step ended with, unless all devices halted."""
        if self._errors:
            raise self._errors[min(self._errors)]
        if self._faults:
            device = min(self._faults, key=lambda device: (self._machines[device].executed, device))
            raise MachineFault(f"device {device}: {self._faults[device]}")
        if self._stuck and not self._stopped:
            raise MachineFault(f"device {min(self._stuck)} waits for a message that no device sends")
