"""What goes between the processes of a distributed run: frames, and who a process is by its environment."""

from __future__ import annotations

import numpy as np
import pytest

from hyperdex_ir.errors import OptionError
from hyperdex_ir.interpreter.link import Message
from hyperdex_ir.runtime.frames import FRAME_BYTES, Frame, FrameError, FrameKind, pack_frame, unpack_frame
from hyperdex_ir.runtime.rendezvous import Launch, current_launch


@pytest.mark.parametrize("shape", [(1, 1), (1, 72), (3, 1344), (7, 4096)])
def test_messages_arrive_as_they_were(shape: tuple[int, int]):
    words = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    words[0, 0] = np.float32(np.nan)
    packed, rest = pack_frame(Frame.of_message(Message(17, 3, words)))
    assert packed.nbytes == FRAME_BYTES
    frame, missing = unpack_frame(packed)
    assert missing == (0 if rest is None else rest.nbytes)
    if rest is not None:
        frame.content[:] = rest
    message = frame.message()
    assert (message.number, message.part) == (17, 3)
    assert np.array_equal(message.words.view(np.uint32), words.view(np.uint32))


def test_the_largest_content_within_a_frame():
    room = FRAME_BYTES - 64
    for size in (0, room, room + 1):
        _, rest = pack_frame(Frame.of_bytes(FrameKind.NOTE, bytes(size)))
        assert (rest is None) == (size <= room)
    frame, missing = unpack_frame(pack_frame(Frame.of_bytes(FrameKind.FAILURE, b"why"))[0])
    assert (frame.kind, frame.text, missing) == (FrameKind.FAILURE, "why", 0)


@pytest.mark.parametrize(("place", "value"), [(0, 0), (1, 0), (1, 99), (6, -1), (6, 1 << 40), (4, 2), (5, -1)])
def test_what_is_no_frame_is_refused(place: int, value: int):
    packed, _ = pack_frame(Frame.of_message(Message(0, 0, np.zeros((1, 4), np.float32))))
    packed[:64].view("<i8")[place] = value
    with pytest.raises(FrameError):
        unpack_frame(packed)


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
