"""What goes over the connection between two processes of a ring: frames of one size, long contents behind them.

A frame is 16 KiB: eight little-endian i64 (magic, kind, number, part, rows, columns, bytes of content, 0), then the
content, if it fits; else the content follows by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from hyperdex_ir.interpreter.link import Message

FRAME_BYTES = 16384
_MAGIC = 0x4C50555F52494E47
_HEAD = 8
_HEAD_BYTES = 8 * _HEAD
_MOST = 1 << 34


class FrameKind(IntEnum):
    """MESSAGE: of a program's `send`. BEAT: nothing, but the sender is alive. NOTE: of host to host, as `exchange`
    passes them on. FAILURE: why the sender ends, as text. BYE: the sender has finished."""

    MESSAGE = 1
    BEAT = 2
    NOTE = 3
    FAILURE = 4
    BYE = 5


class FrameError(Exception):
    """What came is no frame."""


@dataclass(frozen=True)
class Frame:
    """A frame with all of its content, uint8 [bytes]; the numbers are 0 but for messages."""

    kind: FrameKind
    content: np.ndarray
    number: int = 0
    part: int = 0
    rows: int = 0
    columns: int = 0

    @classmethod
    def of_message(cls, message: Message) -> Frame:
        """The frame that carries a program's message."""
        rows, columns = message.words.shape
        content = np.ascontiguousarray(message.words, "<f4").reshape(-1).view(np.uint8)
        return cls(FrameKind.MESSAGE, content, message.number, message.part, rows, columns)

    @classmethod
    def of_bytes(cls, kind: FrameKind, content: bytes = b"") -> Frame:
        """A frame of another kind."""
        return cls(kind, np.frombuffer(content, np.uint8))

    def message(self) -> Message:
        """The program's message that a frame of that kind carries."""
        words = self.content.view("<f4").reshape(self.rows, self.columns)
        return Message(self.number, self.part, words.astype(np.float32, copy=False))

    @property
    def text(self) -> str:
        return self.content.tobytes().decode(errors="replace")


def text_that_fits(words: str) -> bytes:
    """The words as bytes, of which no more than fit into one frame."""
    return words.encode()[: FRAME_BYTES - _HEAD_BYTES]


def pack_frame(frame: Frame) -> tuple[np.ndarray, np.ndarray | None]:
    """The frame's bytes, uint8 [16384], and the content when it does not fit in there."""
    size = len(frame.content)
    packed = np.zeros(FRAME_BYTES, np.uint8)
    packed[:_HEAD_BYTES].view("<i8")[:] = (
        *(_MAGIC, frame.kind, frame.number, frame.part),
        *(frame.rows, frame.columns, size, 0),
    )
    if size > FRAME_BYTES - _HEAD_BYTES:
        return packed, frame.content
    packed[_HEAD_BYTES : _HEAD_BYTES + size] = frame.content
    return packed, None


def unpack_frame(packed: np.ndarray) -> tuple[Frame, int]:
    """The frame, and how many bytes of content are still to come, for which it has room.

    Raises FrameError when it is none.
    """
    magic, kind, number, part, rows, columns, size, _ = (int(n) for n in packed[:_HEAD_BYTES].view("<i8"))
    if magic != _MAGIC or kind not in set(FrameKind) or not 0 <= size <= _MOST:
        raise FrameError("what came is not of this program")
    if kind == FrameKind.MESSAGE and (rows < 0 or columns < 0 or rows * columns * 4 != size):
        raise FrameError(f"a message of {rows} x {columns} words has {size} bytes")
    inside = size <= FRAME_BYTES - _HEAD_BYTES
    content = packed[_HEAD_BYTES : _HEAD_BYTES + size].copy() if inside else np.empty(size, np.uint8)
    return Frame(FrameKind(kind), content, number, part, rows, columns), 0 if inside else size
