"""The causes for which a distributed run ends, told by each process to every other.

Each process expects one frame from each of the others, on a tag of its own, from the beginning. An expected frame comes
without a question first, and a reader of the connection still reads frames that were sent before it closed.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from hyperdex_ir.runtime.frames import FRAME_BYTES, Channel, Frame, FrameError, FrameKind

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import ProcessGroup, Work

#: The longest wait that gloo is given: when one runs out, it closes every connection of the process.
FOREVER = timedelta(days=365)
_TAG = 2
_LINGER_SECONDS = 1.5
_NAMES_A_DEVICE = re.compile(r"device \d+[: ]")


class Alarm:
    """The causes of failure that go between this process and all others.

    key: the key of the run. heard: called with the cause that another process tells. closed: called with the device
    whose connection closed before it told a cause, or told that it has finished. Both are called by threads of the
    alarm, at most once for each device.
    """

    def __init__(
        self,
        group: ProcessGroup,
        device: int,
        count: int,
        key: bytes,
        heard: Callable[[str], None],
        closed: Callable[[int], None],
    ):
        self._group, self._heard, self._closed = group, heard, closed
        self._device, self._key = device, key
        self._others = [other for other in range(count) if other != device]
        self._outgoing = {other: Channel(key, device, other, _TAG) for other in self._others}
        self._unsettled = len(self._others)
        self._settling = threading.Condition()
        self._sent: list[tuple[Work, Tensor]] = []  # gloo reads them until they are sent
        self._threads = [
            threading.Thread(target=self._watch, args=(other, *self._expect(other)), daemon=True)
            for other in self._others
        ]

    def start(self) -> None:
        """Begins to call `heard` and `closed`."""
        for thread in self._threads:
            thread.start()

    def tell(self, words: str) -> None:
        """Begins to tell all others why the run ends, without waiting."""
        self._send(Frame.of_text(words))

    def part(self, seconds: float) -> bool:
        """Tells all others that this process has finished, and waits; returns whether all have answered in time.

        No thread of the alarm is left then. One that waited while Python ends would end the process with a signal.
        """
        self._send(Frame.of_bytes(FrameKind.BYE))
        with self._settling:
            settled = self._settling.wait_for(lambda: not self._unsettled, seconds)
        for thread in self._threads if settled else ():
            thread.join()
        return settled

    def _send(self, frame: Frame) -> None:
        import torch

        for other in self._others:
            packed, _ = self._outgoing[other].pack(frame)
            tensor = torch.from_numpy(packed)
            with suppress(RuntimeError):  # this one may be the one that is lost; its own thread says so
                self._sent.append((self._group.send([tensor], other, _TAG), tensor))

    def linger(self) -> None:
        """Waits until each of the others has told the cause too, or is gone; or for a time, if one stands still.

        A process that closes its connections earlier might be taken for the one that was lost.
        """
        with self._settling:
            self._settling.wait_for(lambda: not self._unsettled, _LINGER_SECONDS)

    def _expect(self, other: int) -> tuple[Work, np.ndarray]:
        import torch

        packed = np.empty(FRAME_BYTES, np.uint8)
        return self._group.recv([torch.from_numpy(packed)], other, _TAG), packed

    def _watch(self, other: int, work: Work, packed: np.ndarray) -> None:
        frame = None
        try:
            work.wait(FOREVER)
            frame, _ = Channel(self._key, other, self._device, _TAG).unpack(packed)
        except FrameError as error:
            frame = Frame.of_text(f"device {other}: {error}")
        except RuntimeError:
            pass  # the connection closed
        with self._settling:
            self._unsettled -= 1
            self._settling.notify_all()
        if frame is None:
            self._closed(other)
        elif frame.kind is FrameKind.FAILURE:
            words = frame.text
            self._heard(words if _NAMES_A_DEVICE.match(words) else f"device {other}: {words}")
