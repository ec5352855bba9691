"""One process of a distributed run to which something happens: `ring_worker.py EVENT INSTRUCTION ARGUMENTS...`.

The arguments are those of `hyperdex run`; the process interprets. Before it executes that instruction of the run,
counted from 0, it kills itself (`kill`), stops (`stop`), computes for some seconds (`compute`), spoils a value
(`spoil`), or makes the file that the variable RING_MARK names and goes on slowly (`slow`).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from hyperdex_ir.cli.main import main
from hyperdex_ir.interpreter.machine import Machine

COMPUTE_SECONDS = 4.0
SLOW_SECONDS = 0.01  # an instruction: the run takes longer than any test waits for it


def _kill(machine: Machine) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _stop(machine: Machine) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _compute(machine: Machine) -> None:
    time.sleep(COMPUTE_SECONDS)


def _spoil(machine: Machine) -> None:
    end = machine.hbm.map.parameter_end
    machine.hbm.bytes[:end] = 0x7F  # every weight, norm and table


def _slow(machine: Machine) -> None:
    execute = Machine._execute

    def slowly(machine: Machine, index: int) -> Any:
        time.sleep(SLOW_SECONDS)
        return execute(machine, index)

    Machine._execute = slowly
    Path(os.environ["RING_MARK"]).touch()


EVENTS = {"kill": _kill, "stop": _stop, "compute": _compute, "spoil": _spoil, "slow": _slow}


def run(event: str, instruction: int, arguments: list[str]) -> None:
    """Runs the command with the event in its way."""
    execute, count = Machine._execute, 0

    def counted(machine: Machine, index: int) -> Any:
        nonlocal count
        if count == instruction:
            EVENTS[event](machine)
        count += 1
        return execute(machine, index)

    Machine._execute = counted
    main(["run", *arguments, "--engine", "interpreter"])


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
