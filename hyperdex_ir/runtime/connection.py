"""The ring between the processes of a distributed run: messages, and heartbeats that tell a busy peer from a lost one.

Each process sends to the next on the ring and receives from the one before. It sends a beat whenever it has sent
nothing for a while, however long its device computes. Between all pairs of processes is an alarm (`runtime.alarm`).

A device counts as lost for another when the connection between them closes, or when nothing has come from it for
`timeout` seconds. The clock for this stands still while the process that counts stands still. Then:

1. A process that notices a failure, its own or another's, asks the store of the run whether another process has noticed
   one before. That decides between two that fail at once. Then it tells the cause to all others.
2. A process that is told a cause adopts it and tells it to all others too; that is the answer. A cause that was told is
   never replaced by a guess.
3. No process closes its connections before it has the answers of all others, or theirs have closed (1.5 s at most). So
   a connection that closes without a cause belongs to a process that was killed. Even so, its device is named only
   after a wait for a cause from elsewhere.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from hyperdex_ir.errors import PeerError
from hyperdex_ir.interpreter.link import Message
from hyperdex_ir.isa.operands import MOST_AHEAD
from hyperdex_ir.runtime.alarm import FOREVER, Alarm
from hyperdex_ir.runtime.frames import FRAME_BYTES, Channel, Frame, FrameError, FrameKind, check_content
from hyperdex_ir.runtime.rendezvous import START_SECONDS

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import ProcessGroup, Work

_FRAME_TAG, _CONTENT_TAG = 0, 1
_BEATS = 5  # beats that fit into the timeout
_TICKS = 20  # ticks of the clock within the timeout
_AHEAD = 4  # frames that are expected at a time: an expected frame comes without a question first
_NOTES = 2  # notes of each device that may wait: those of this step and the next
_GRACE_SECONDS = 0.3  # wait for a cause before a closed connection is taken for one
_EVIDENCE_SECONDS = 2.0  # wait for the alarm to say why a message could not be sent or received
_NOTICE_SECONDS = 1.5


class Connection:
    """The end of one device: it sends to the next device on the ring and receives from the one before.

    It is the `interpreter.link.Link` of the device's machine. group: all processes. key: the key of the run, which
    seals frames. most: bytes of the longest message that the program sends; a longer one is refused before there is
    room for it. timeout: seconds without a sign of life after which a device counts as lost. verdict: maps the failure
    that this device has noticed to the one that was noticed first; it must not take long. unheard: called by another
    thread when the ring has failed and the thread that uses the connection has not noticed for seconds, because it
    computes. room: most bytes of content that wait here.
    """

    def __init__(
        self,
        group: ProcessGroup,
        device: int,
        count: int,
        key: bytes,
        most: int,
        timeout: float,
        verdict: Callable[[str], str] = lambda words: words,
        unheard: Callable[[PeerError], None] = lambda error: None,
        room: int = 1 << 30,
    ):
        self.device, self.count, self.timeout = device, count, timeout
        self._group = group
        self._next, self._previous = (device + 1) % count, (device - 1) % count
        self._outgoing = Channel(key, device, self._next, _FRAME_TAG, most)
        self._incoming = Channel(key, self._previous, device, _FRAME_TAG, most)
        self._verdict, self._unheard = verdict, unheard
        self._posted: queue.SimpleQueue[tuple[Work, Tensor]] = queue.SimpleQueue()
        self._posting = threading.Lock()
        self._last_posted = threading.Event()
        self._inbox: deque[Frame] = deque()
        self._room, self._frames, self._waiting = room, count * (MOST_AHEAD + _NOTES), 0
        self._changed = threading.Condition()
        self._failing, self._told = threading.Lock(), threading.Event()
        self._error: PeerError | None = None
        self._previous_ended = self._all_sent = False
        self._arrivals = 0
        self._alarm = Alarm(group, device, count, key, self._told_of, self._closed)
        self._alarm.start()
        loops = (self._watch_sent, self._receive_all, self._watch_clock)
        self._threads = [threading.Thread(target=loop, daemon=True) for loop in loops]
        for thread in self._threads:
            thread.start()

    # ------------------------------------------------------------------------------------------------ messages
    def send(self, message: Message) -> None:
        """Hands a message to the next device; does not wait. Raises PeerError once the ring has failed."""
        self._post_or_fail(Frame.of_message(message))

    def receive(self) -> Message | None:
        """The next message of the device before; None while there is none. Raises PeerError when the ring failed."""
        with self._changed:
            if not self._inbox:
                self._raise_failure()
                return None
        return self._take(FrameKind.MESSAGE).message()

    def interrupt(self) -> None:
        """Nothing to do: `receive` does not wait."""

    def wait(self) -> None:
        """Waits until something has come. Raises PeerError when the ring fails before."""
        with self._changed:
            self._changed.wait_for(lambda: self._inbox or self._error or self._previous_ended)
            if self._inbox:
                return
        self._raise_failure()
        raise self.fail(f"device {self._previous} has ended before device {self.device}")

    def exchange(self, note: bytes) -> list[bytes]:
        """The notes of all devices, by device; each must call this. Raises PeerError when the ring fails."""
        notes = {self.device: note}
        self._post_or_fail(Frame.of_bytes(FrameKind.NOTE, note))
        for distance in range(1, self.count):
            self.wait()
            frame = self._take(FrameKind.NOTE)
            notes[(self.device - distance) % self.count] = frame.content.tobytes()
            if distance < self.count - 1:
                self._post_or_fail(frame)
        return [notes[device] for device in range(self.count)]

    def _take(self, kind: FrameKind) -> Frame:
        with self._changed:
            frame = self._inbox.popleft()
            self._waiting -= len(frame.content)
        if frame.kind is not kind:
            raise self.fail(
                f"device {self._previous} sent a {frame.kind.name.lower()} when device {self.device} expected a"
                f" {kind.name.lower()}: they do not run the same"
            )
        return frame

    # ------------------------------------------------------------------------------------------------ the end
    def close(self) -> None:
        """Ends together with the other devices. Raises PeerError when one fails before."""
        for _ in range(_AHEAD):
            self._post_or_fail(Frame.of_bytes(FrameKind.BYE))
        self._last_posted.set()
        with self._changed:
            self._changed.wait_for(lambda: self._error or (self._previous_ended and self._all_sent))
        self._raise_failure()
        if not self._alarm.part(START_SECONDS):
            raise self.fail(f"device {self.device} has ended, and not all others within {START_SECONDS:g} s")
        self._raise_failure()
        for thread in self._threads:
            thread.join()

    @property
    def has_failed(self) -> bool:
        return self._error is not None

    def fail(self, words: str) -> PeerError:
        """Ends the ring: tells all other devices why, and returns the error that every device raises then."""
        self._told.set()
        self._noticed(words)
        assert self._error is not None
        return self._error

    def linger(self) -> None:
        """Waits until all others know of a failure. Call it after a failure, before the process ends."""
        self._alarm.linger()

    def _noticed(self, words: str) -> None:
        """This device has found a failure, of its own or of a neighbour."""
        with self._failing:
            if self._error is None:
                self._fail_with(self._verdict(words))
        self._end_unheard()

    def _told_of(self, words: str) -> None:
        """Another device has told of a failure."""
        with self._failing:
            if self._error is None:
                self._fail_with(words)
        self._end_unheard()

    def _fail_with(self, words: str) -> None:
        self._alarm.tell(words)
        self._last_posted.set()
        with self._changed:
            self._error = PeerError(words, "all processes of the run end; start them again together")
            self._changed.notify_all()

    def _end_unheard(self) -> None:
        assert self._error is not None
        if not self._told.wait(_NOTICE_SECONDS):
            self.linger()
            self._unheard(self._error)

    def _closed(self, device: int, seconds: float = _GRACE_SECONDS) -> None:
        """The connection with a device has closed: names it, unless a cause comes in time."""
        with self._changed:
            if self._changed.wait_for(lambda: self._error, seconds):
                return
        self._noticed(f"device {device} is lost: its connection closed")

    def _raise_failure(self) -> None:
        if self._error is not None:
            self._told.set()
            raise self._error

    # ------------------------------------------------------------------------------------------------ sending
    def _post(self, frame: Frame) -> None:
        """Begins to send a frame, without waiting."""
        import torch

        with self._posting:
            for tag, part in zip((_FRAME_TAG, _CONTENT_TAG), self._outgoing.pack(frame), strict=True):
                if part is not None:
                    tensor = torch.from_numpy(part)
                    self._posted.put((self._group.send([tensor], self._next, tag), tensor))

    def _post_or_fail(self, frame: Frame) -> None:
        self._raise_failure()
        try:
            self._post(frame)
        except RuntimeError:
            self._told.set()
            self._closed(self._next, _EVIDENCE_SECONDS)
            self._raise_failure()

    def _watch_sent(self) -> None:
        """Sees posted frames arrive, and posts a beat when nothing was posted for a while."""
        try:
            while not self._last_posted.is_set() or not self._posted.empty():
                try:
                    work, _ = self._posted.get(timeout=self.timeout / _BEATS)
                except queue.Empty:
                    self._post(Frame.of_bytes(FrameKind.BEAT))
                else:
                    work.wait(FOREVER)
        except RuntimeError:
            self._closed(self._next, _EVIDENCE_SECONDS)
        with self._changed:
            self._all_sent = True
            self._changed.notify_all()

    # ------------------------------------------------------------------------------------------------ receiving
    def _receive_all(self) -> None:
        try:
            expected = deque(self._expect() for _ in range(_AHEAD))
            while expected:
                work, packed = expected.popleft()
                work.wait(FOREVER)
                frame = self._whole_frame(packed)
                if frame.kind is not FrameKind.BYE:
                    expected.append(self._expect())
                self._arrived(frame)
        except FrameError as error:
            self._noticed(f"device {self._previous}: {error}")
        except RuntimeError:
            self._closed(self._previous, _EVIDENCE_SECONDS)

    def _expect(self) -> tuple[Work, np.ndarray]:
        """Begins to receive a frame."""
        import torch

        packed = np.empty(FRAME_BYTES, np.uint8)
        return self._group.recv([torch.from_numpy(packed)], self._previous, _FRAME_TAG), packed

    def _whole_frame(self, packed: np.ndarray) -> Frame:
        import torch

        frame, digest = self._incoming.unpack(packed)
        if digest:
            self._group.recv([torch.from_numpy(frame.content)], self._previous, _CONTENT_TAG).wait(FOREVER)
            check_content(frame, digest)
        return frame

    def _arrived(self, frame: Frame) -> None:
        self._arrivals += 1
        if frame.kind is FrameKind.BEAT:
            return
        with self._changed:
            if frame.kind is FrameKind.BYE:
                self._previous_ended = True
            else:
                self._keep(frame)
            self._changed.notify_all()

    def _keep(self, frame: Frame) -> None:
        """Keeps a frame. Raises FrameError when more wait than all devices may have sent and not received."""
        self._inbox.append(frame)
        self._waiting += len(frame.content)
        if len(self._inbox) > self._frames or self._waiting > self._room:
            raise FrameError(
                f"{len(self._inbox)} frames with {self._waiting} bytes wait,"
                f" the most are {self._frames} with {self._room} bytes"
            )

    def _watch_clock(self) -> None:
        """Detects that nothing has come for too long. A late tick, as this process stood still, counts as one."""
        tick = self.timeout / _TICKS
        arrivals, silence = 0, 0
        while silence < _TICKS:
            with self._changed:
                if self._changed.wait_for(lambda: self._error or self._previous_ended, tick):
                    return
            silence = silence + 1 if arrivals == self._arrivals else 0
            arrivals = self._arrivals
        self._noticed(f"device {self._previous} is lost: no sign of life for {self.timeout:g} s")
