"""A process of a distributed run, by the environment: RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, LOCAL_WORLD_SIZE.

torchrun sets them, or another program that starts the processes.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from typing import Any

from hyperdex_ir.errors import OptionError

#: Seconds without a sign of life after which another process counts as lost, unless chosen.
PEER_SECONDS = 5.0
#: Most processes of a run. Each needs a query head of the model.
MOST_PROCESSES = 1024
_LAST_PORT = 65535


@dataclass(frozen=True)
class Launch:
    """A process of a distributed run: its rank, which is its device, of `count`, and where the store is.

    local_count: processes of the run on this host.
    """

    rank: int
    count: int
    address: str
    port: int
    local_count: int = 1


def current_launch() -> Launch | None:
    """The launch in the environment; None when this is no distributed run. Raises OptionError if it makes no sense."""
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    values = {name: os.environ.get(name) for name in names}
    if None in values.values() or values["WORLD_SIZE"] == "1":
        return None
    values["LOCAL_WORLD_SIZE"] = os.environ.get("LOCAL_WORLD_SIZE", "1")
    numbers = {name: value for name, value in values.items() if name != "MASTER_ADDR"}
    try:
        rank, count, port, local_count = (int(str(value)) for value in numbers.values())
    except ValueError:
        shown = ", ".join(f"{name}={value}" for name, value in values.items())
        raise OptionError(f"the environment has {shown}: {', '.join(numbers)} must be numbers") from None
    if count > MOST_PROCESSES:
        raise OptionError(f"the environment has WORLD_SIZE={count}: must be at most {MOST_PROCESSES}")
    if not 0 <= rank < count:
        raise OptionError(f"the environment has RANK={rank} and WORLD_SIZE={count}")
    if not 1 <= local_count <= count:
        raise OptionError(f"the environment has LOCAL_WORLD_SIZE={local_count} and WORLD_SIZE={count}")
    if not 1 <= port <= _LAST_PORT:
        raise OptionError(f"the environment has MASTER_PORT={port}: must be from 1 to {_LAST_PORT}")
    return Launch(rank, count, str(values["MASTER_ADDR"]), port, local_count)


def digest(value: Any) -> str:
    """A short hash of JSON values, by which processes tell whether they have the same."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=int).encode()).hexdigest()[:12]
