"""How the processes of a distributed run find each other, and make sure that they run the same.

torchrun, or whoever starts them, says by the environment who they are: RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT. A
key-value store at the master's address, in the process of rank 0 or in torchrun's own, holds what each is about to run.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from hyperdex_ir.errors import OptionError, PeerError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup, Store  # pyright: ignore[reportPrivateImportUsage]

_POLL_SECONDS = 0.05
_LINGER_SECONDS = 2.0
_VERDICT_SECONDS = 0.5
_MISMATCH, _FAILURE = "mismatch", "failure"
#: Seconds without a sign of life after which another process counts as lost, unless chosen.
PEER_SECONDS = 5.0
#: How long processes wait for each other at the start; importing torch alone takes seconds.
START_SECONDS = 60.0
_START_HINT = "start all processes together, as torchrun does"


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
    """What the environment says; None when this is no distributed run. Raises OptionError when it makes no sense."""
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
    if not 0 <= rank < count:
        raise OptionError(f"the environment has RANK={rank} and WORLD_SIZE={count}")
    if not 1 <= local_count <= count:
        raise OptionError(f"the environment has LOCAL_WORLD_SIZE={local_count} and WORLD_SIZE={count}")
    return Launch(rank, count, str(values["MASTER_ADDR"]), port, local_count)


def digest(value: Any) -> str:
    """A short hash of JSON values, by which processes tell whether they have the same."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=int).encode()).hexdigest()[:12]


class Meeting:
    """The processes of a run around one store.

    wait_seconds: how long the others are waited for. Raises PeerError when there is no store at the address.
    """

    def __init__(self, launch: Launch, wait_seconds: float = START_SECONDS):
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # failures are told in one line of our own
        from torch.distributed import PrefixStore, TCPStore  # pyright: ignore[reportPrivateImportUsage]

        self.launch, self._wait_seconds = launch, wait_seconds
        elsewhere = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        try:
            store = TCPStore(
                launch.address,
                launch.port,
                is_master=launch.rank == 0 and not elsewhere,
                timeout=timedelta(seconds=wait_seconds),
                wait_for_workers=False,
            )
        except RuntimeError:
            raise PeerError(
                f"device {launch.rank}: nobody answers at {launch.address}:{launch.port}", _START_HINT
            ) from None
        self.store: Store = PrefixStore(f"hyperdex/{attempt}", store)

    def compare(self, facts: Mapping[str, str]) -> None:
        """Returns when all processes have come with the same facts: name -> value.

        Raises PeerError that names what differs, or who did not come.
        """
        try:
            self._compare(facts)
        except PeerError:
            self._linger()
            raise
        except RuntimeError:
            raise PeerError(f"device {self.launch.rank}: the other processes are gone", _START_HINT) from None

    def _compare(self, facts: Mapping[str, str]) -> None:
        rank = self.launch.rank
        self.store.set(f"facts/{rank}", json.dumps(facts))
        self._wait_for("facts/0", 0)
        first = json.loads(self.store.get("facts/0"))
        different = [name for name in {**first, **facts} if first.get(name) != facts.get(name)]
        if different:
            name = different[0]
            theirs, ours = first.get(name, "none"), facts.get(name, "none")
            self.store.set(_MISMATCH, f"device {rank} has another {name} than device 0: {ours}, not {theirs}")
        self.store.set(f"checked/{rank}", "")
        for other in range(self.launch.count):
            self._wait_for(f"checked/{other}", other)

    def _wait_for(self, key: str, rank: int) -> None:
        """Waits for a key that a process sets. Raises PeerError when one runs something else, or does not come."""
        deadline = time.monotonic() + self._wait_seconds
        while True:
            if self.store.check([_MISMATCH]):
                raise PeerError(self.store.get(_MISMATCH).decode(), "give every process the same model and arguments")
            if self.store.check([key]):
                return
            if time.monotonic() > deadline:
                raise PeerError(f"device {rank} has not come within {self._wait_seconds:g} s", _START_HINT)
            time.sleep(_POLL_SECONDS)

    def refuse(self, words: str) -> None:
        """Tells the others why this process cannot take part."""
        with suppress(RuntimeError):
            self.store.set(_MISMATCH, words)
        self._linger()

    def _linger(self) -> None:
        """The store may be in the process of rank 0: the others are to read there what is wrong."""
        rank = self.launch.rank
        with suppress(RuntimeError):
            self.store.set(f"seen/{rank}", "")
            if rank == 0:
                others = [f"seen/{other}" for other in range(1, self.launch.count)]
                self.store.wait(others, timedelta(seconds=_LINGER_SECONDS))

    def connect(self) -> ProcessGroup:
        """The group of all processes. Raises PeerError when one is gone again."""
        import torch.distributed as dist

        launch = self.launch
        try:
            dist.init_process_group(
                "gloo",
                store=self.store,
                rank=launch.rank,
                world_size=launch.count,
                timeout=timedelta(seconds=self._wait_seconds),
            )
        except RuntimeError as error:
            raise PeerError(f"device {launch.rank}: no connection to the others: {error}", _START_HINT) from None
        group = dist.group.WORLD
        assert group is not None
        return group

    def verdict(self, words: str) -> str:
        """What is wrong with the run: what the first process said that noticed something, perhaps this one."""
        said = [words]

        def ask() -> None:
            with suppress(RuntimeError):
                said.append(self.store.compare_set(_FAILURE, "", words).decode())

        asking = threading.Thread(target=ask, daemon=True)  # an answer may never come
        asking.start()
        asking.join(_VERDICT_SECONDS)
        return said[-1]

    def leave(self) -> NoReturn:
        """Ends the process at once after a failure: threads may still wait for devices that are gone.

        The store may be in the process of rank 0, and the others are to read there what has failed.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        if self.launch.rank == 0:
            time.sleep(_VERDICT_SECONDS)
        os._exit(1)

    def part(self) -> None:
        """Returns when all have come here, so that no connection closes on one that still uses it."""
        import torch.distributed as dist

        rank, count = self.launch.rank, self.launch.count
        try:
            self.store.set(f"done/{rank}", "")
            self.store.wait([f"done/{other}" for other in range(count)], timedelta(seconds=self._wait_seconds))
            dist.destroy_process_group()
            self.store.set(f"left/{rank}", "")
            if rank == 0:  # the store may be in this process
                self.store.wait([f"left/{other}" for other in range(count)], timedelta(seconds=self._wait_seconds))
        except RuntimeError:
            raise PeerError(f"device {rank}: the other processes are gone", _START_HINT) from None
