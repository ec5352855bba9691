"""The rendezvous of a distributed run: its processes find each other, and make sure that they run the same.

A key-value store at the master's address, in the process of rank 0 or in torchrun's own, holds the facts of the program
that each process is about to run.

1. Each process leaves a greeting there, sealed with the secret of the run (`runtime.secret`): a number used once.
2. The greetings of all and the secret give the key of this run, which seals everything further, in the store and on the
   connections. A recording of another run is of no use in this one.
"""

from __future__ import annotations

import json
import os
import secrets
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from hyperdex_ir.errors import PeerError
from hyperdex_ir.memory.fields import Fields
from hyperdex_ir.runtime.addresses import address_towards, is_loopback, listen_at
from hyperdex_ir.runtime.launch import Launch
from hyperdex_ir.runtime.secret import VARIABLE, SealError, run_secret, seal
from hyperdex_ir.runtime.timed_store import SilenceError, TimedStore, within
from hyperdex_ir.support.progress import log

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup  # pyright: ignore[reportPrivateImportUsage]

    from hyperdex_ir.runtime.sealed_store import SealedStore

_POLL_SECONDS = 0.05
_LINGER_SECONDS = 2.0
_REFUSAL_SECONDS = 10.0  # wait for the others: without them there is no key to tell them anything
_VERDICT_SECONDS = 0.5
_REFUSED_SECONDS = 2.0  # wait for torch to say that it found nobody
_MISMATCH, _FAILURE = "mismatch", "failure"
#: How long processes wait for each other at the start; importing torch alone takes seconds.
START_SECONDS = 60.0
#: Bytes of another process's words that an error shows.
TEXT_BYTES = 2000
_START_HINT = "start all processes together, as torchrun does"
_SAME_HINT = "give every process the same model and arguments"
_NONCE_BYTES = 32
_GREETING = struct.Struct(f"<{_NONCE_BYTES}sQ")  # number used once, number of processes


def words_to_tell(words: str) -> bytes:
    """Words for the other processes, cut to the length that those show."""
    return words.encode(errors="replace")[:TEXT_BYTES]


def words_told(told: bytes) -> str:
    """The words of another process, which may have written anything, cut to the length that an error shows."""
    return told[:TEXT_BYTES].decode(errors="replace")


def read_texts(note: bytes) -> dict[str, str]:
    """The texts by name in a process's note. Raises PeerError when it is something else."""
    try:
        found = json.loads(note)
        return {name: Fields(found, "").text(name) for name in found}
    except (ValueError, RecursionError, TypeError):
        raise PeerError("another process runs another program", _SAME_HINT) from None


class Meeting:
    """The processes of a run around one store.

    key: the key that seals everything once `compare` has returned. wait_seconds: seconds to wait for the others. Raises
    OptionError when there is no secret or no such address, PeerError when there is no store at the address.
    """

    def __init__(self, launch: Launch, wait_seconds: float = START_SECONDS):
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # failures are told in one line of our own
        self.launch, self._wait_seconds = launch, wait_seconds
        self._attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self._is_one_host = is_loopback(launch.address) or launch.local_count == launch.count
        elastic = os.environ.get("TORCHELASTIC_RUN_ID", "")
        run = f"{launch.address} {launch.port} {elastic} {self._attempt}"
        self._secret = run_secret(run, self._is_one_host)
        self._store: SealedStore | None = None
        self.key = b""
        self._nonce = secrets.token_bytes(_NONCE_BYTES)
        try:
            self._open = self._open_store()
            self._greetings = self._sealed(self._secret.key)
            self._leave_greeting()
            if launch.rank == 0 and self._secret.made is not None:
                log(f"a secret was made for this run; until all have it, it is in {self._secret.made}")
        except BaseException:
            if self._secret.is_own:  # else it may be that of a run that goes on
                self._secret.forget()
            raise

    def _open_store(self) -> TimedStore:
        """The store, in which strangers can read and write."""
        from torch.distributed import PrefixStore, TCPStore  # pyright: ignore[reportPrivateImportUsage]

        launch, seconds = self.launch, self._wait_seconds
        is_elsewhere = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        is_master = launch.rank == 0 and not is_elsewhere
        listening = listen_at(launch.address, launch.port) if is_master else None

        def connect() -> TCPStore:
            return TCPStore(
                launch.address,
                launch.port,
                is_master=is_master,
                timeout=timedelta(seconds=seconds),
                wait_for_workers=False,
                master_listen_fd=listening,
            )

        try:
            store = within(seconds + _REFUSED_SECONDS, connect)
        except RuntimeError:
            raise self._silence() from None
        return TimedStore(PrefixStore(f"hyperdex/{self._attempt}", store), seconds)

    def _silence(self) -> PeerError:
        launch = self.launch
        return PeerError(
            f"device {launch.rank}: nobody answers at {launch.address}:{launch.port} within {self._wait_seconds:g} s",
            _START_HINT,
        )

    def _sealed(self, key: bytes) -> SealedStore:
        from hyperdex_ir.runtime.sealed_store import SealedStore

        return SealedStore(self._open, key, timedelta(seconds=self._wait_seconds))

    # ------------------------------------------------------------------------------------------------ greetings
    def _leave_greeting(self) -> None:
        launch = self.launch
        greeting = _GREETING.pack(self._nonce, launch.count)
        with self._store_errors():
            self._greetings.set(f"greeting/{launch.rank}", greeting)

    def _greet(self, seconds: float) -> SealedStore:
        """Makes the key of the run; returns the store that it seals. Raises PeerError when a process does not come in
        time, or has another secret."""
        if self._store is None:
            deadline = time.monotonic() + seconds
            try:
                nonces = [self._greeting_of(rank, deadline) for rank in range(self.launch.count)]
            finally:
                if self.launch.rank == 0 or self._secret.is_own:
                    self._secret.forget()
            self.key = seal(self._secret.key, "run", *nonces)
            self._store = self._sealed(self.key)
        return self._store

    def _greeting_of(self, rank: int, deadline: float) -> bytes:
        """The number used once of a process. Raises PeerError when that expects another number of processes.

        This process's own is not read: the store could hold one of an earlier run.
        """
        count = self.launch.count
        if rank == self.launch.rank:
            return self._nonce
        greeting = self._wait_for(self._greetings, f"greeting/{rank}", rank, deadline)
        if len(greeting) != _GREETING.size:
            raise PeerError(f"device {rank} runs another program than device {self.launch.rank}", _SAME_HINT)
        nonce, theirs = _GREETING.unpack(greeting)
        if theirs != count:
            other, found, first = (self.launch.rank, count, theirs) if rank == 0 else (rank, theirs, count)
            raise PeerError(
                f"device {other} has another number of processes than device 0: {found}, not {first}", _SAME_HINT
            )
        return nonce

    # ------------------------------------------------------------------------------------------------ facts
    def compare(self, facts: Mapping[str, str]) -> None:
        """Waits until all processes have come with the same facts: name -> value.

        Raises PeerError that names the difference, or the process that did not come or has another secret.
        """
        try:
            with self._store_errors():
                self._compare(facts, self._greet(self._wait_seconds))
        except PeerError:
            self._linger()
            raise

    def _compare(self, facts: Mapping[str, str], store: SealedStore) -> None:
        rank, deadline = self.launch.rank, time.monotonic() + self._wait_seconds
        store.set(f"facts/{rank}", json.dumps(facts))
        first = read_texts(self._wait_for(store, "facts/0", 0, deadline))
        different = [name for name in {**first, **facts} if first.get(name) != facts.get(name)]
        if different:
            name = different[0]
            theirs, ours = first.get(name, "none"), facts.get(name, "none")
            words = f"device {rank} has another {name} than device 0: {ours}, not {theirs}"
            store.set(_MISMATCH, words_to_tell(words))
        store.set(f"checked/{rank}", "")
        for other in range(self.launch.count):
            self._wait_for(store, f"checked/{other}", other, deadline)

    def _wait_for(self, store: SealedStore, key: str, rank: int, deadline: float) -> bytes:
        """The value that a process sets.

        Raises PeerError when the value is another's, when a process runs something else, or when no value comes.
        """
        while True:
            self._check_mismatch()
            if store.check([key]):
                break
            if time.monotonic() > deadline:
                raise PeerError(f"device {rank} has not come within {self._wait_seconds:g} s", _START_HINT)
            time.sleep(_POLL_SECONDS)
        try:
            return store.get(key)
        except SealError:
            stranger = f"a stranger writes to {self.launch.address}:{self.launch.port}"
            other = f"device {rank} has another secret than device {self.launch.rank}, or "
            raise PeerError(
                stranger if rank == self.launch.rank else other + stranger,
                f"give every process the same {VARIABLE} and the same MASTER_ADDR",
            ) from None

    def _check_mismatch(self) -> None:
        """Raises PeerError when a process has told that it cannot take part. A stranger's words do not count."""
        if self._store is None or not self._store.check([_MISMATCH]):
            return
        with suppress(SealError):
            raise PeerError(words_told(self._store.get(_MISMATCH)), _SAME_HINT)

    def refuse(self, words: str) -> None:
        """Tells the others why this process cannot take part."""
        with suppress(PeerError), self._store_errors():
            self._greet(_REFUSAL_SECONDS).set(_MISMATCH, words_to_tell(words))
        self._linger()

    def _linger(self) -> None:
        """Waits, as the store may be in the process of rank 0, until the others have read there what is wrong."""
        rank = self.launch.rank
        with suppress(RuntimeError):
            self._open.set(f"seen/{rank}", "")
            if rank == 0:
                others = [f"seen/{other}" for other in range(1, self.launch.count)]
                self._open.wait(others, timedelta(seconds=_LINGER_SECONDS))

    @contextmanager
    def _store_errors(self) -> Iterator[None]:
        """Turns the store's errors into PeerError."""
        rank = self.launch.rank
        try:
            yield
        except SealError as error:
            raise PeerError(f"device {rank}: {error}", f"give every process the same {VARIABLE}") from None
        except SilenceError:
            raise self._silence() from None
        except RuntimeError:
            raise PeerError(f"device {rank}: the other processes are gone", _START_HINT) from None

    # ------------------------------------------------------------------------------------------------ the run
    @property
    def _run_store(self) -> SealedStore:
        assert self._store is not None, "compare has returned"
        return self._store

    def connect(self) -> ProcessGroup:
        """The group of all processes, found by the sealed store. Raises PeerError when one is gone again."""
        from torch.distributed import ProcessGroupGloo

        launch = self.launch
        options = ProcessGroupGloo._Options()  # pyright: ignore[reportAttributeAccessIssue]
        options._timeout = timedelta(seconds=self._wait_seconds)
        try:
            options._devices = self._networks()
            group: Any = ProcessGroupGloo(self._run_store, launch.rank, launch.count, options)
            return group  # it sends and receives as a ProcessGroup does
        except SilenceError:
            raise self._silence() from None
        except (RuntimeError, SealError) as error:
            raise PeerError(f"device {launch.rank}: no connection to the others: {error}", _START_HINT) from None

    def _networks(self) -> list[Any]:
        """The networks that gloo listens at: those in GLOO_SOCKET_IFNAME, else this host's on the way to the store."""
        from torch.distributed import ProcessGroupGloo

        names = os.environ.get("GLOO_SOCKET_IFNAME")
        if names:
            return [ProcessGroupGloo.create_device(interface=name) for name in names.split(",")]
        launch = self.launch
        here = "127.0.0.1" if self._is_one_host else address_towards(launch.address, launch.port)
        return [ProcessGroupGloo.create_device(hostname=here)]

    def verdict(self, words: str) -> str:
        """The failure of the run: the words of the first process that noticed one, perhaps this one."""
        with suppress(RuntimeError, SealError):
            return words_told(within(_VERDICT_SECONDS, lambda: self._run_store.first(_FAILURE, words_to_tell(words))))
        return words

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
        """Waits until all have come here, so that no connection closes on a process that still uses it."""
        rank, store = self.launch.rank, self._run_store
        with self._store_errors():
            store.set(f"done/{rank}", "")
            store.wait([f"done/{other}" for other in range(self.launch.count)])
            store.set(f"left/{rank}", "")
            if rank == 0:  # the store may be in this process
                store.wait([f"left/{other}" for other in range(self.launch.count)])
