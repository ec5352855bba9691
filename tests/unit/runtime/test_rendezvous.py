"""A stranger at the store and on the connections of a distributed run: he is not believed, nor quoted.

The processes of the run are threads here: nothing of a rendezvous belongs to the process.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.processes.ring_processes import SECRET_LINE, free_port

from hyperdex_ir.errors import HyperdexError, PeerError
from hyperdex_ir.interpreter.link import Message
from hyperdex_ir.isa.operands import MOST_AHEAD
from hyperdex_ir.runtime import sealed_store
from hyperdex_ir.runtime.connection import Connection
from hyperdex_ir.runtime.frames import FRAME_BYTES, Channel, Frame
from hyperdex_ir.runtime.launch import Launch
from hyperdex_ir.runtime.rendezvous import Meeting
from hyperdex_ir.runtime.sealed_store import LONGEST_VALUE, SealedStore
from hyperdex_ir.runtime.secret import VARIABLE, SealError, run_secret

FACTS = {"model": "0123456789ab"}
WORDS = "device 0 is lost: call 555-0100"
WAIT_SECONDS = 2.0
SECRETS = ("of the run: 0123456789", "of another run: 0123456789")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where secrets are left."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def together(*actions: Callable[[], Any]) -> list[Any]:
    """What calls that wait for each other return, or raise."""

    def one(action: Callable[[], Any]) -> Any:
        try:
            return action()
        except HyperdexError as error:
            return error

    with ThreadPoolExecutor(len(actions)) as pool:
        return list(pool.map(one, actions))


def meetings(count: int = 2) -> list[Meeting]:
    port = free_port()
    return [Meeting(Launch(rank, count, "127.0.0.1", port), WAIT_SECONDS) for rank in range(count)]


def compare(*those: Meeting) -> list[Any]:
    return together(*(lambda one=one: one.compare(FACTS) for one in those))


def stranger(meeting: Meeting) -> Any:
    """The store as everybody sees it who reaches its port."""
    from torch.distributed import PrefixStore, TCPStore  # pyright: ignore[reportPrivateImportUsage]

    launch = meeting.launch
    store = TCPStore(launch.address, launch.port, wait_for_workers=False, timeout=timedelta(seconds=WAIT_SECONDS))
    return PrefixStore("hyperdex/0", store)


def test_a_run_of_two():
    those = meetings()
    assert compare(*those) == [None, None]
    assert those[0].key == those[1].key != b""
    groups = together(*(one.connect for one in those))
    ends = [
        Connection(group, rank, 2, those[rank].key, 1 << 20, 5.0, those[rank].verdict)
        for rank, group in enumerate(groups)
    ]
    words = np.arange(1 << 14, dtype=np.float32).reshape(2, -1)
    for end in ends:
        end.send(Message(0, 1, words))
        end.send(Message(1, 0, words[:, :3]))
    for end in ends:
        for number, expected in enumerate((words, words[:, :3])):
            end.wait()
            found = end.receive()
            assert found is not None
            assert found.number == number
            assert np.array_equal(found.words, expected)
    assert (
        together(*(lambda end=end: end.exchange(b"note %d" % end.device) for end in ends))
        == [[b"note 0", b"note 1"]] * 2
    )
    assert together(*(end.close for end in ends)) == [None, None]
    assert together(*(one.part for one in those)) == [None, None]


def test_the_secret_that_was_left_is_removed(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    those = meetings()
    (made,) = tmp_path.glob("*/*")
    printed = capfd.readouterr()
    assert SECRET_LINE.sub("", printed.err) == printed.out == "", "once, by rank 0"
    assert f" {made}\n" in printed.err
    assert made.read_text() not in printed.err
    compare(*those)
    assert not list(tmp_path.glob("*/*"))


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_secret_that_was_left_for_nothing_is_removed(rank: int, tmp_path: Path):
    """Something else listens at the port; or nobody, where rank 0 should."""
    theirs = run_secret("of another run", one_host=True)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if rank == 0:
            server.listen()
        with pytest.raises(PeerError, match=r"Address already in use|nobody answers"):
            Meeting(Launch(rank, 2, "127.0.0.1", server.getsockname()[1]), WAIT_SECONDS)
    assert list(tmp_path.glob("*/*")) == [theirs.made]


def test_a_secret_that_a_run_still_needs_is_kept(tmp_path: Path):
    """Another process comes as rank 0 of a run that has one."""
    port = free_port()
    first = Meeting(Launch(0, 2, "127.0.0.1", port), WAIT_SECONDS)
    with pytest.raises(PeerError, match="Address already in use"):
        Meeting(Launch(0, 2, "127.0.0.1", port), WAIT_SECONDS)
    assert len(list(tmp_path.glob("*/*"))) == 1
    assert compare(first, Meeting(Launch(1, 2, "127.0.0.1", port), WAIT_SECONDS)) == [None, None]


def test_a_secret_that_a_late_process_leaves_is_removed(tmp_path: Path):
    those = meetings()
    compare(*those)
    late = Meeting(those[1].launch, WAIT_SECONDS)
    assert len(list(tmp_path.glob("*/*"))) == 1
    (error,) = compare(late)
    assert "device 0 has another secret than device 1, or a stranger" in str(error)
    assert not list(tmp_path.glob("*/*"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_only_this_host_can_connect():
    before = listening()
    those = meetings()
    compare(*those)
    assert listening() - before == {f"127.0.0.1:{those[0].launch.port}"}
    groups = together(*(one.connect for one in those))
    opened = listening() - before
    assert len(opened) == 3, groups
    assert {address.rpartition(":")[0] for address in opened} == {"127.0.0.1"}


def listening() -> set[str]:
    """Addresses at which this process listens, as text."""
    sockets = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            sockets.add(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            host, port = local.split(":")
            if state == "0A" and f"socket:[{inode}]" in sockets:
                address = bytes.fromhex(host)
                shown = socket.inet_ntoa(address[::-1]) if len(address) == 4 else host
                found.add(f"{shown}:{int(port, 16)}")
    return found


def test_another_secret(monkeypatch: pytest.MonkeyPatch):
    port, those = free_port(), []
    for rank, secret in enumerate(SECRETS):
        monkeypatch.setenv(VARIABLE, secret)
        those.append(Meeting(Launch(rank, 2, "127.0.0.1", port), WAIT_SECONDS))
    began = time.monotonic()
    errors = compare(*those)
    assert time.monotonic() - began < WAIT_SECONDS
    for rank, error in enumerate(errors):
        assert f"device {1 - rank} has another secret than device {rank}, or a stranger" in str(error)
        assert VARIABLE in error.hint


@pytest.mark.parametrize("key", ["mismatch", "failure"])
def test_a_stranger_that_speaks_for_others_is_ignored(key: str):
    those = meetings()
    store = stranger(those[0])
    store.set(key, WORDS)
    assert compare(*those) == [None, None]
    store.set(key, WORDS)
    assert those[1].verdict("device 0 is lost: its connection closed") == "device 0 is lost: its connection closed"


@pytest.mark.parametrize(
    ("key", "victim"), [("greeting/1", 0), ("facts/0", 1), ("checked/0", 1), ("checked/1", 0), ("0/0", 1), ("0/1", 0)]
)
def test_a_stranger_that_overwrites_what_a_process_says(key: str, victim: int, monkeypatch: pytest.MonkeyPatch):
    """Of the last two gloo learns where to connect to."""
    overwrite(key, monkeypatch)
    those = meetings()
    errors = together(*(lambda one=one: (one.compare(FACTS), one.connect()) for one in those))
    assert isinstance(errors[victim], PeerError)
    words = f"device {1 - victim} has another secret than device {victim}, or a stranger writes to 127.0.0.1:"
    if key.startswith("0/"):
        words = f"the store holds as {key} is not sealed with the secret of this run"
    if key.endswith("/0"):  # that process sees it too
        assert "not sealed" in str(errors[0]) or f"{errors[0]}".startswith("a stranger writes to 127.0.0.1:")
    assert words in str(errors[victim])
    assert not any("555-0100" in str(error) or "\n" in str(error) for error in errors)


def overwrite(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger puts his words into the place of what a process puts there."""
    put = SealedStore.set

    def put_or_lose(store: SealedStore, name: str, value: str | bytes) -> None:
        if name == key:
            store._store.set(key, WORDS)
        else:
            put(store, name, value)

    monkeypatch.setattr(SealedStore, "set", put_or_lose)


# ---------------------------------------------------------------------------------------------------- the listener
#: Requests of torch's client of a store, by their first byte; a text or a list of texts follows.
_SET, _GET, _CHECK, _WAIT, _START, _PING = 1, 3, 5, 6, 0, 13


class Listener:
    """A stranger who listens first at the address of a run, and answers as a store does until he is asked something.

    silent: the question that he does not answer; of a value he says how long it is, and nothing else comes.
    """

    def __init__(self, silent: int):
        self._silent = silent
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._server.accept()
            threading.Thread(target=self._serve, args=(connection.makefile("rwb"),), daemon=True).start()

    def _serve(self, stream: Any) -> None:
        while question := stream.read(1):
            answer = self._answer(question[0], stream)
            if answer is None or (question[0] == self._silent and question[0] != _GET):
                continue
            stream.write(answer)
            stream.flush()

    def _answer(self, question: int, stream: Any) -> bytes | None:
        def text() -> bytes:
            return stream.read(struct.unpack("<Q", stream.read(8))[0])

        if question in (_START, _PING):
            nonce = stream.read(4)
            return nonce if question == _PING else None
        if question == _SET:
            for _ in range(2):
                text()
            return None
        if question == _GET:
            text()
            return struct.pack("<Q", 10)
        keys = [text() for _ in range(struct.unpack("<Q", stream.read(8))[0])]
        return bytes([question == _CHECK and b"mismatch" in keys[0]])


@pytest.mark.slow
@pytest.mark.parametrize("silent", [_PING, _CHECK, _WAIT, _GET], ids=["ping", "check", "wait", "get"])
def test_a_listener_that_does_not_answer(silent: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, SECRETS[0])
    listener, ended = Listener(silent), []

    def take_part() -> None:
        try:
            Meeting(Launch(1, 2, "127.0.0.1", listener.port), 1.0).compare(FACTS)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=take_part, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it waits forever"
    (error,) = ended
    assert isinstance(error, PeerError)
    assert str(error) == f"device 1: nobody answers at 127.0.0.1:{listener.port} within 1 s"


def test_a_value_too_long_for_a_process_is_not_sealed_to_compare(monkeypatch: pytest.MonkeyPatch):
    those = meetings()
    stranger(those[0]).set("greeting/1", "x" * (LONGEST_VALUE + 33))
    monkeypatch.setattr(sealed_store, "seal", pytest.fail)
    with pytest.raises(SealError):
        those[0]._greetings.get("greeting/1")
    with pytest.raises(ValueError, match="a value of 65537 bytes"):
        those[0]._greetings.set("facts/0", "x" * (LONGEST_VALUE + 1))


@pytest.mark.slow
def test_long_words_of_a_process_that_cannot_take_part():
    those = meetings()
    together(lambda: those[0].refuse("x" * (LONGEST_VALUE + 1)), lambda: those[1]._greet(WAIT_SECONDS))
    (error,) = compare(those[1])
    assert str(error).startswith("x" * 300)


@pytest.mark.slow
def test_what_was_recorded_of_another_run_is_of_no_use(monkeypatch: pytest.MonkeyPatch):
    """Both have the same secret."""
    monkeypatch.setenv(VARIABLE, SECRETS[0])
    old = meetings(3)
    store = stranger(old[0])
    compare(*old)
    recorded = store.get("greeting/2")
    new = meetings(3)
    stranger(new[0]).set("greeting/2", recorded)
    errors = [str(error) for error in compare(*new)]
    assert len({one.key for one in (*old, *new)}) == 3, "rank 2 believes in its own number only"
    assert errors[0] == errors[1] == f"device 2 has not come within {WAIT_SECONDS:g} s"
    assert errors[2].startswith("device 0 has another secret than device 2, or a stranger")


@contextmanager
def raw_ring() -> Iterator[tuple[Any, Connection, Meeting]]:
    """The bare group of device 0, as one who has taken over its connection, and the connection of device 1."""
    those = meetings()
    compare(*those)
    groups = together(*(one.connect for one in those))
    yield groups[0], Connection(groups[1], 1, 2, those[1].key, 64, 60.0, those[1].verdict, room=640), those[0]


def post(group: Any, tag: int, packed: np.ndarray) -> None:
    import torch

    group.send([torch.from_numpy(packed)], 1, tag).wait()


@pytest.mark.parametrize("tag", [0, 2])
def test_words_on_a_connection_that_are_not_sealed(tag: int):
    with raw_ring() as (group, connection, _):
        packed, _ = Channel(b"guessed", 0, 1, tag).pack(Frame.of_text(WORDS))
        post(group, tag, packed)
        with pytest.raises(PeerError, match=r"^device 0: what came is not sealed with the secret of this run$"):
            connection.wait()


def small(empty: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """np.empty for no more than a frame."""
    return lambda size, kind: empty(size, kind) if size <= FRAME_BYTES else pytest.fail(f"room for {size} bytes")


def test_a_message_that_the_program_cannot_send(monkeypatch: pytest.MonkeyPatch):
    """Even of a process that has the secret: no room is made for it."""
    with raw_ring() as (group, connection, meeting):
        frame = Frame.of_message(Message(0, 0, np.zeros((1, 1 << 20), np.float32)))
        packed, _ = Channel(meeting.key, 0, 1, 0).pack(frame)
        empty = np.empty
        monkeypatch.setattr(
            np, "empty", lambda size, kind: empty(size, kind) if size < 1 << 20 else pytest.fail("room")
        )
        post(group, 0, packed)
        with pytest.raises(PeerError, match="device 0: a message of 4194304 bytes, the program sends at most 64"):
            connection.wait()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("columns", "messages", "words"),
    [
        (16, 11, "11 frames with 704 bytes wait, the most are {most} with 640 bytes"),
        (0, 2 * MOST_AHEAD + 5, "{more} frames with 0 bytes wait, the most are {most} with 640 bytes"),
    ],
)
def test_more_messages_than_can_wait(columns: int, messages: int, words: str):
    """Frames of a process that has the secret wait in bounded number and size."""
    with raw_ring() as (group, connection, meeting):
        channel = Channel(meeting.key, 0, 1, 0)
        for number in range(messages):
            message = Message(number, 0, np.zeros((1, columns), np.float32))
            packed, _ = channel.pack(Frame.of_message(message))
            post(group, 0, packed)
        wait_for(lambda: connection.has_failed)
        most = 2 * MOST_AHEAD + 4
        with pytest.raises(PeerError, match=f"^device 0: {words.format(most=most, more=most + 1)}$"):
            connection.send(Message(0, 0, np.zeros((1, 1), np.float32)))


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)


def test_words_of_a_process_are_one_line_that_names_a_device():
    with raw_ring() as (group, connection, meeting):
        packed, _ = Channel(meeting.key, 0, 1, 2).pack(Frame.of_text("\x1b[2Jall is well\nerror: " + "x" * 5000))
        post(group, 2, packed)
        with pytest.raises(PeerError) as caught:
            connection.wait()
    assert str(caught.value).startswith(r"device 0: \x1b[2Jall is well error: xxx")
    assert len(str(caught.value)) < 1000
