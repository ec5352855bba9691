"""Frames: the units sent between two processes of a run. All have one size; long contents follow behind them.

A frame is 16 KiB: eight little-endian i64 (magic, kind, number, part, rows, columns, bytes of content, 0), a seal of 32
bytes, then the content, if it fits; else its SHA-256, and the content follows by itself.

The seal is an HMAC-SHA256 with the key of the run: over sender, receiver and tag, the frame's number in their order,
the eight numbers, and the bytes behind the seal. It is checked before anything else is believed: bytes that a stranger
sends, or sends again, are no frame.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from hyperdex_ir.interpreter.link import Message
from hyperdex_ir.runtime.rendezvous import words_to_tell, words_told
from hyperdex_ir.runtime.secret import SEAL_BYTES, seal

FRAME_BYTES = 16384
_MAGIC = 0x4C50555F52494E48
_HEAD_BYTES = 8 * 8
_START = _HEAD_BYTES + SEAL_BYTES
#: Bytes of content that fit into a frame. Only a program's messages may be longer.
ROOM = FRAME_BYTES - _START


class FrameKind(IntEnum):
    """MESSAGE: a program's `send`. BEAT: no content, the sender is alive. NOTE: from host to host, for `exchange`.
    FAILURE: the reason why the sender ends, as text. BYE: the sender has finished."""

    MESSAGE = 1
    BEAT = 2
    NOTE = 3
    FAILURE = 4
    BYE = 5


class FrameError(Exception):
    """The bytes received are no frame of this run."""


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
        """A frame of another kind. Raises ValueError when the content does not fit into it."""
        if len(content) > ROOM:
            raise ValueError(f"a {kind.name.lower()} of {len(content)} bytes, {ROOM} fit into a frame")
        return cls(kind, np.frombuffer(content, np.uint8))

    @classmethod
    def of_text(cls, words: str) -> Frame:
        """The frame that tells why a run ends, cut short where it is long."""
        return cls.of_bytes(FrameKind.FAILURE, words_to_tell(words))

    def message(self) -> Message:
        """The program's message that a frame of that kind carries."""
        words = self.content.view("<f4").reshape(self.rows, self.columns)
        return Message(self.number, self.part, words.astype(np.float32, copy=False))

    @property
    def text(self) -> str:
        """The words of a failure."""
        return words_told(self.content.tobytes())


class Channel:
    """The frames from one device to another on one tag, in their order; both ends have one.

    key: the key of the run. most: bytes of the longest message that the program sends.
    """

    def __init__(self, key: bytes, sender: int, receiver: int, tag: int, most: int = 0):
        self._key, self._most = key, most
        self._route = (sender, receiver, tag)
        self._frames = 0

    def pack(self, frame: Frame) -> tuple[np.ndarray, np.ndarray | None]:
        """The next frame's bytes, uint8 [16384], and the content when it does not fit in there."""
        size = len(frame.content)
        packed = np.zeros(FRAME_BYTES, np.uint8)
        packed[:_HEAD_BYTES].view("<i8")[:] = (
            *(_MAGIC, frame.kind, frame.number, frame.part),
            *(frame.rows, frame.columns, size, 0),
        )
        inside = size <= ROOM
        kept = frame.content if inside else np.frombuffer(hashlib.sha256(frame.content.data).digest(), np.uint8)
        packed[_START : _START + len(kept)] = kept
        packed[_HEAD_BYTES:_START] = np.frombuffer(self._seal(packed, len(kept)), np.uint8)
        self._frames += 1
        return packed, None if inside else frame.content

    def unpack(self, packed: np.ndarray) -> tuple[Frame, bytes]:
        """The next frame, and the SHA-256 of its content if that is still to come; the frame has room for it then.

        Raises FrameError when it is none of this channel, or announces more content than the program can send.
        """
        magic, kind, number, part, rows, columns, size, _ = (int(n) for n in packed[:_HEAD_BYTES].view("<i8"))
        if magic != _MAGIC or size < 0:
            raise FrameError("what came is not of this program")
        kept = size if size <= ROOM else hashlib.sha256().digest_size
        if not hmac.compare_digest(self._seal(packed, kept), packed[_HEAD_BYTES:_START].tobytes()):
            raise FrameError("what came is not sealed with the secret of this run")
        self._frames += 1
        if kind not in set(FrameKind):
            raise FrameError(f"a frame of kind {kind}, which this program does not know")
        most = self._most if kind == FrameKind.MESSAGE else ROOM
        if size > most:
            raise FrameError(f"a {FrameKind(kind).name.lower()} of {size} bytes, the program sends at most {most}")
        if kind == FrameKind.MESSAGE and (rows < 0 or columns < 0 or rows * columns * 4 != size):
            raise FrameError(f"a message of {rows} x {columns} words has {size} bytes")
        inside = packed[_START : _START + kept].copy()
        content, digest = (inside, b"") if size <= ROOM else (np.empty(size, np.uint8), inside.tobytes())
        return Frame(FrameKind(kind), content, number, part, rows, columns), digest

    def _seal(self, packed: np.ndarray, kept: int) -> bytes:
        """The seal of a frame at this place, of which so many bytes count behind the head."""
        place = struct.pack("<4q", *self._route, self._frames)
        return seal(self._key, "frame", place, packed[:_HEAD_BYTES].data, packed[_START : _START + kept].data)


def check_content(frame: Frame, digest: bytes) -> None:
    """Raises FrameError when a content that came behind its frame is not the one that was sealed."""
    if not hmac.compare_digest(hashlib.sha256(frame.content.data).digest(), digest):
        raise FrameError("what came is not sealed with the secret of this run")
