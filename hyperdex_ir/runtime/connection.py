"""The ring between the processes of a distributed run: a thread that sends to the next, one that receives from the one
before, and beats in between, so that who is busy is told from who is lost.

A device is lost when its connection closes, or when nothing has come from it for `timeout` seconds; the threads send a
beat whenever there is nothing else, however long the device computes. Who learns of a failure tells the next, so that
all end with the same words.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from hyperdex_ir.errors import PeerError
from hyperdex_ir.interpreter.link import Message
from hyperdex_ir.runtime.frames import FRAME_BYTES, Frame, FrameError, FrameKind, pack_frame, unpack_frame

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import ProcessGroup, Work

_BEATS = 5  # that fit into the timeout
_AHEAD = 4  # frames that are expected at a time: what is expected comes without a question first
_FAREWELL_SECONDS = 0.5  # for telling the next device of a failure
_DOUBT_SECONDS = 0.2
_NOTICE_SECONDS = 2.0


class Connection:
    """The end of one device: what it sends goes to the next on the ring, what it receives is from the one before.

    It is the `interpreter.link.Link` of the device's machine. group: gloo, of all processes. timeout: seconds without a
    sign of life after which a device counts as lost. verdict: from what this device takes for the failure to what all
    say; it must not take long. unheard: called by another thread when the ring has
    failed and the one that uses the connection has not noticed for seconds, because it computes.
    """

    def __init__(
        self,
        group: ProcessGroup,
        device: int,
        count: int,
        timeout: float,
        verdict: Callable[[str], str] = lambda words: words,
        unheard: Callable[[PeerError], None] = lambda error: None,
    ):
        self.device, self.count, self.timeout = device, count, timeout
        self._group = group
        self._next, self._previous = (device + 1) % count, (device - 1) % count
        self._verdict, self._unheard = verdict, unheard
        self._posted: queue.SimpleQueue[tuple[Work, Tensor]] = queue.SimpleQueue()
        self._posting = threading.Lock()
        self._last_posted = threading.Event()
        self._inbox: deque[Frame] = deque()
        self._changed = threading.Condition()
        self._failing, self._told = threading.Lock(), threading.Event()
        self._error: PeerError | None = None
        self._previous_ended = False
        self._threads = [threading.Thread(target=loop, daemon=True) for loop in (self._watch_sent, self._receive_all)]
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
        for thread in self._threads:
            thread.join()
        self._raise_failure()

    @property
    def has_failed(self) -> bool:
        return self._error is not None

    def fail(self, words: str) -> PeerError:
        """Ends the ring: tells the next device why, and returns the error that every device raises then."""
        self._told.set()
        self._failed(words)
        self._threads[0].join(_FAREWELL_SECONDS)
        assert self._error is not None
        return self._error

    def _failed(self, words: str) -> None:
        """Notes the first failure."""
        with self._failing:
            if self._error is not None:
                return
            words = self._verdict(words)
            with self._changed:
                self._error = PeerError(words, "all processes of the run end; start them again together")
                self._changed.notify_all()
        with suppress(RuntimeError):  # the next device may be the one that is lost
            self._post(Frame.of_bytes(FrameKind.FAILURE, words.encode()))
        self._last_posted.set()
        if not self._told.wait(_NOTICE_SECONDS):
            self._unheard(self._error)

    def _raise_failure(self) -> None:
        if self._error is not None:
            self._told.set()
            raise self._error

    # ------------------------------------------------------------------------------------------------ sending
    def _post(self, frame: Frame) -> None:
        """Begins to send a frame, without waiting."""
        import torch

        with self._posting:
            for tag, part in enumerate(pack_frame(frame)):
                if part is not None:
                    tensor = torch.from_numpy(part)
                    self._posted.put((self._group.send([tensor], self._next, tag), tensor))

    def _post_or_fail(self, frame: Frame) -> None:
        self._raise_failure()
        try:
            self._post(frame)
        except RuntimeError as error:
            raise self.fail(self._lost(self._next, error)) from None

    def _watch_sent(self) -> None:
        """Sees what was posted arrive, and posts a beat when nothing was for a while."""
        try:
            while not self._last_posted.is_set() or not self._posted.empty():
                try:
                    work, _ = self._posted.get(timeout=self.timeout / _BEATS)
                except queue.Empty:
                    self._post(Frame.of_bytes(FrameKind.BEAT))
                else:
                    work.wait(timedelta(seconds=self.timeout))
        except RuntimeError as error:
            self._failed(self._lost(self._next, error))

    # ------------------------------------------------------------------------------------------------ receiving
    def _receive_all(self) -> None:
        try:
            expected = deque(self._expect() for _ in range(_AHEAD))
            while expected:
                work, packed = expected.popleft()
                work.wait(timedelta(seconds=self.timeout))
                frame = self._whole_frame(packed)
                if frame.kind is FrameKind.FAILURE:
                    self._failed(frame.text)
                    return
                if frame.kind is not FrameKind.BYE:
                    expected.append(self._expect())
                self._arrived(frame)
        except FrameError as error:
            self._failed(f"device {self._previous}: {error}")
        except RuntimeError as error:
            self._failed(self._lost(self._previous, error))

    def _expect(self) -> tuple[Work, np.ndarray]:
        """Begins to receive a frame."""
        import torch

        packed = np.empty(FRAME_BYTES, np.uint8)
        return self._group.recv([torch.from_numpy(packed)], self._previous, 0), packed

    def _whole_frame(self, packed: np.ndarray) -> Frame:
        import torch

        frame, rest = unpack_frame(packed)
        if rest:
            work = self._group.recv([torch.from_numpy(frame.content)], self._previous, 1)
            work.wait(timedelta(seconds=self.timeout))
        return frame

    def _arrived(self, frame: Frame) -> None:
        if frame.kind is FrameKind.BEAT:
            return
        with self._changed:
            if frame.kind is FrameKind.BYE:
                self._previous_ended = True
            else:
                self._inbox.append(frame)
            self._changed.notify_all()

    def _lost(self, device: int, error: RuntimeError) -> str:
        if "imed out" in str(error):
            return f"device {device} is lost: no sign of life for {self.timeout:g} s"
        time.sleep(_DOUBT_SECONDS)  # it may have ended because of another, as it or a third is about to tell
        return f"device {device} is lost: its connection closed"
