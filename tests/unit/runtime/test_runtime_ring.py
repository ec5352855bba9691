"""What goes between the processes of a distributed run: frames, and who a process is by its environment."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.programs.machine_programs import op

from hyperdex_ir.errors import OptionError
from hyperdex_ir.interpreter.link import Message
from hyperdex_ir.runtime.alarm import Alarm
from hyperdex_ir.runtime.distributed import largest_message
from hyperdex_ir.runtime.frames import FRAME_BYTES, ROOM, Channel, Frame, FrameError, FrameKind, check_content
from hyperdex_ir.runtime.launch import Launch, current_launch

KEY = b"k" * 32


def ends(most: int = 1 << 20, key: bytes = KEY) -> tuple[Channel, Channel]:
    """Both ends of the frames from device 1 to device 2, of which the second has `key`."""
    return Channel(KEY, 1, 2, 0, most), Channel(key, 1, 2, 0, most)


def a_message(columns: int = 4) -> Frame:
    return Frame.of_message(Message(0, 0, np.ones((1, columns), np.float32)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 72), (3, 1344), (7, 4096)])
def test_messages_arrive_as_they_were(shape: tuple[int, int]):
    words = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    words[0, 0] = np.float32(np.nan)
    sender, receiver = ends()
    packed, rest = sender.pack(Frame.of_message(Message(17, 3, words)))
    assert packed.nbytes == FRAME_BYTES
    frame, digest = receiver.unpack(packed)
    assert bool(digest) == (rest is not None)
    if rest is not None:
        frame.content[:] = rest
        check_content(frame, digest)
    message = frame.message()
    assert (message.number, message.part) == (17, 3)
    assert np.array_equal(message.words.view(np.uint32), words.view(np.uint32))


def test_the_largest_content_within_a_frame():
    sender, receiver = ends()
    for columns in (0, ROOM // 4, ROOM // 4 + 1):
        _, rest = sender.pack(a_message(columns))
        assert (rest is None) == (4 * columns <= ROOM)
    for kind in set(FrameKind) - {FrameKind.MESSAGE}:
        with pytest.raises(ValueError, match=f"{ROOM + 1} bytes, {ROOM} fit"):
            Frame.of_bytes(kind, bytes(ROOM + 1))
    frame, digest = receiver.unpack(ends()[0].pack(Frame.of_text("why"))[0])
    assert (frame.kind, frame.text, digest) == (FrameKind.FAILURE, "why", b"")


def test_words_of_others_are_cut_short():
    assert len(Frame.of_text("é" * 9000).content) <= 2000
    words = Frame.of_bytes(FrameKind.FAILURE, b"\xff" * ROOM).text
    assert words == "\ufffd" * 2000


@pytest.mark.parametrize("place", range(0, FRAME_BYTES, 331))
def test_no_byte_that_counts_can_be_changed(place: int):
    packed, _ = ends()[0].pack(a_message(ROOM // 4))
    packed[place] ^= 4
    with pytest.raises(FrameError, match=r"not sealed with the secret|not of this program"):
        ends()[1].unpack(packed)


def test_a_frame_counts_once_in_its_place_and_for_its_receiver():
    sender, receiver = ends()
    first, second = (sender.pack(a_message())[0] for _ in range(2))
    others = [
        *(ends(key=b"l" * 32)[1], Channel(KEY, 2, 2, 0, 16), Channel(KEY, 1, 3, 0, 16), Channel(KEY, 1, 2, 2, 16)),
    ]
    for other, packed in ((receiver, second), *((other, first) for other in others)):
        with pytest.raises(FrameError, match="not sealed with the secret of this run"):
            other.unpack(packed)
    receiver.unpack(first)
    with pytest.raises(FrameError, match="not sealed with the secret of this run"):
        receiver.unpack(first)
    receiver.unpack(second)


def test_a_content_behind_its_frame_is_sealed_too():
    sender, receiver = ends()
    packed, rest = sender.pack(a_message(1 << 16))
    assert rest is not None
    frame, digest = receiver.unpack(packed)
    frame.content[:] = rest
    frame.content[-1] ^= 1
    with pytest.raises(FrameError, match="not sealed with the secret of this run"):
        check_content(frame, digest)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (0, 0, "not of this program"),
        (1, 0, "a frame of kind 0"),
        (1, 99, "a frame of kind 99"),
        (6, -1, "not of this program"),
        (6, 1 << 34, "a message of 17179869184 bytes, the program sends at most 64"),
        (6, 1 << 62, "a message of .* bytes, the program sends at most 64"),
        (6, 68, "a message of 68 bytes, the program sends at most 64"),
        (4, 2, "a message of 2 x 4 words has 16 bytes"),
        (5, -1, "a message of 1 x -1 words has 16 bytes"),
    ],
)
def test_what_is_no_frame_is_refused(place: int, value: int, words: str, monkeypatch: pytest.MonkeyPatch):
    """Even one that is sealed; and before there is room for its content."""
    frame = a_message()
    monkeypatch.setattr(Channel, "_seal", lambda *_: bytes(32))
    packed, _ = ends()[0].pack(frame)
    packed[:64].view("<i8")[place] = value
    monkeypatch.setattr("hyperdex_ir.runtime.frames.np.empty", pytest.fail)
    with pytest.raises(FrameError, match=words):
        ends(most=64)[1].unpack(packed)


def test_only_messages_may_be_long(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hyperdex_ir.runtime.frames.np.empty", pytest.fail)
    for kind in set(FrameKind) - {FrameKind.MESSAGE}:
        packed, _ = ends()[0].pack(Frame(kind, np.zeros(ROOM + 1, np.uint8)))
        with pytest.raises(FrameError, match=f"a {kind.name.lower()} of {ROOM + 1} bytes, the program sends at most"):
            ends()[1].unpack(packed)


@pytest.mark.parametrize(
    ("rank", "count", "port", "expected"),
    [
        (None, None, None, None),
        ("0", "1", "5", None),
        ("1", "2", "5", Launch(1, 2, "host", 5)),
        ("2", "2", "5", "RANK=2 and WORLD_SIZE=2"),
        ("-1", "2", "5", "RANK=-1 and WORLD_SIZE=2"),
        ("one", "2", "5", "must be numbers"),
        ("0", "2", "", "must be numbers"),
        ("0", "2", "65536", "MASTER_PORT=65536"),
        ("0", "1025", "5", "WORLD_SIZE=1025: must be at most 1024"),
        ("0", "1" + 30 * "0", "5", "must be at most 1024"),
    ],
)
def test_who_a_process_is(rank, count, port, expected, monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "host")
    for name, value in (("RANK", rank), ("WORLD_SIZE", count), ("MASTER_PORT", port)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    if isinstance(expected, str):
        with pytest.raises(OptionError, match=expected):
            current_launch()
    else:
        assert current_launch() == expected


def test_the_largest_message_lies_in_the_lmu():
    """Whatever a program says of it: 3 rows of at most 20 columns, or all of the LMU."""
    memory_map: Any = SimpleNamespace(target=SimpleNamespace(lmu_words=100))
    for columns, words in ((20, 60), (33, 99), (34, 100), (1 << 30, 100)):
        program: Any = SimpleNamespace(instructions=[op("halt"), *(op("send", columns=most) for most in (columns, 1))])
        assert largest_message(program, memory_map, 3) == 4 * words


def test_frames_of_an_alarm_have_numbers_of_their_own():
    """A failure after a farewell is not sealed as if it were the first."""
    sent: list[np.ndarray] = []

    class Group:
        def recv(self, *_: object) -> None:
            """Nothing comes."""

        def send(self, tensors: list[Any], *_: object) -> None:
            sent.append(tensors[0].numpy())

    group: Any = Group()
    alarm = Alarm(group, 0, 2, KEY, pytest.fail, pytest.fail)
    alarm.part(0)
    alarm.tell("why")
    receiver = Channel(KEY, 0, 1, 2)
    assert [receiver.unpack(packed)[0].kind for packed in sent] == [FrameKind.BYE, FrameKind.FAILURE]
