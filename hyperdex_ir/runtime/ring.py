"""The devices of a ring in one process, in lockstep: one thread runs them in turns, always in the same order.

Their machines may be of any engine, as long as they have the protocol `PassMachine`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from hyperdex_ir.errors import MachineFault
from hyperdex_ir.interpreter.link import MemoryLink
from hyperdex_ir.interpreter.machine import NumericFault, Stop


class PassMachine(Protocol):
    """A machine that can be stopped where it waits for a message; see `interpreter.machine.Machine`."""

    @property
    def fault(self) -> NumericFault | None: ...
    @property
    def registers(self) -> list[int | None]: ...
    @property
    def executed(self) -> int: ...
    def clear(self) -> None: ...
    def start(self, tokens: Sequence[int], position: int, first_row: int) -> None: ...
    def resume(self) -> Stop: ...
    def read_hbm(self, address: int, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray: ...
    def write_hbm(self, address: int, data: np.ndarray) -> None: ...


class Ring:
    """Machines with the links between them, by device. What all have (logits, registers) is read from the first."""

    def __init__(self, machines: Sequence[PassMachine], links: Sequence[MemoryLink]):
        self.machines = tuple(machines)
        self._links = tuple(links)

    @property
    def registers(self) -> list[int | None]:
        return self.machines[0].registers

    @property
    def fault(self) -> NumericFault | None:
        """The first of all in program order; of those at the same instruction, that of the lowest device."""
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
        """Forgets the sticky flags, and counts passes from 0 again."""
        for machine in self.machines:
            machine.clear()

    def run(self, tokens: Sequence[int], position: int, first_row: int) -> None:
        """One pass of all devices, each with the same tokens.

        Raises MachineFault as the machines do: the first in program order, then of the lowest device, which it names;
        and when all that are left wait for messages.
        """
        for link in self._links:
            link.clear()
        for machine in self.machines:
            machine.start(tokens, position, first_row)
        running = dict.fromkeys(range(len(self.machines)))
        faults: list[tuple[int, int, MachineFault]] = []
        progress: list[int] = []
        while running and progress != self._progress():
            progress = self._progress()
            for device in list(running):
                if self._ends(device, faults):
                    del running[device]
        if faults:
            _, device, fault = min(faults, key=lambda entry: entry[:2])
            raise MachineFault(f"device {device}: {fault}")
        if running:
            raise MachineFault(f"device {min(running)} waits for a message that no device sends")

    def _ends(self, device: int, faults: list[tuple[int, int, MachineFault]]) -> bool:
        """Runs a device as far as it gets, and says whether that is to its end, by halt or fault."""
        try:
            return self.machines[device].resume() == "halt"
        except MachineFault as fault:
            faults.append((self.machines[device].executed, device, fault))
            return True

    def _progress(self) -> list[int]:
        return [machine.executed for machine in self.machines]
