"""One process of a distributed run to which something happens: `ring_worker.py EVENT UNIT NUMBER ARGUMENTS...`.

The arguments are those of `hyperdex run`. Before the process executes that instruction of the run (UNIT `instruction`:
it interprets) or sends that message to the next device (`message`: with whatever engine), counted from 0, it kills
itself (`kill`), stops (`stop`), computes for some seconds (`compute`), or, at an instruction, spoils a value (`spoil`),
or makes the file that the variable RING_MARK names and goes on slowly (`slow`).
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
from hyperdex_ir.runtime.connection import Connection

COMPUTE_SECONDS = 4.0
SLOW_SECONDS = 0.01  # an instruction: the run takes longer than any test waits for it


def _kill(actor: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _stop(actor: Any) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _compute(actor: Any) -> None:
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


#: What is counted, and more arguments of `hyperdex run`.
UNITS = {"instruction": (Machine, "_execute", ["--engine", "interpreter"]), "message": (Connection, "send", [])}


def run(event: str, unit: str, number: int, arguments: list[str]) -> None:
    """Runs the command with the event in its way."""
    actor, name, options = UNITS[unit]
    method, count = getattr(actor, name), 0

    def counted(actor: Any, item: Any) -> Any:
        nonlocal count
        if count == number:
            EVENTS[event](actor)
        count += 1
        return method(actor, item)

    setattr(actor, name, counted)
    main(["run", *arguments, *options])


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:])
