"""The links of the ring: what device `d` sends goes to device `(d + 1) mod n`, in order.

A machine knows its link only by the protocol here, and a link knows nothing of machines: the devices of one process
hand messages over in memory (`in_memory_links`), processes over whatever connects them.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Message:
    """What one `send` hands on.

    number: sends of the pass before it. part: which part of the gathered value it is. words: float32 [rows, columns],
    an array of its own.
    """

    number: int
    part: int
    words: np.ndarray


class Link(Protocol):
    """The two ends that a device has: towards the next device, and from the one before it."""

    def send(self, message: Message) -> None:
        """Hands a message to the next device; does not wait for it to be taken."""
        ...

    def receive(self) -> Message | None:
        """Takes the next message of the device before this one; None while there is none.

        It may wait for one, as long as one can come and nobody calls `interrupt`.
        """
        ...

    def interrupt(self) -> None:
        """Makes a `receive` that waits return; called from another thread."""
        ...


class Wires:
    """What connects the devices of one process, each of which may run on a thread of its own.

    A device that waits is woken by a message, or when none can come: all that run wait, or the round is over.
    """

    def __init__(self, count: int):
        lock = threading.Lock()
        self._arrivals = [threading.Condition(lock) for _ in range(count)]
        self._queues: list[deque[Message]] = [deque() for _ in range(count)]
        self._lock = lock
        self.begin()

    def begin(self) -> None:
        """A round: all devices run, and what nobody has taken is dropped."""
        with self._lock:
            self._running = [True] * len(self._queues)
            self._waiting = [False] * len(self._queues)
            self._over = False
            for queue in self._queues:
                queue.clear()

    def put(self, device: int, message: Message) -> None:
        with self._lock:
            self._queues[device].append(message)
            self._arrivals[device].notify()

    def take(self, device: int) -> Message | None:
        queue = self._queues[device]
        return queue.popleft() if queue else None

    def wait(self, device: int) -> bool:
        """Blocks until a message is there for a device: True; or until none can come."""
        with self._lock:
            self._waiting[device] = True
            self._end_if_stuck()
            while not self._queues[device] and not self._over:
                self._arrivals[device].wait()
            self._waiting[device] = False
            return bool(self._queues[device]) and not self._over

    def leave(self, device: int) -> None:
        """A device has come to its end: it sends nothing more in this round."""
        with self._lock:
            self._running[device] = False
            self._end_if_stuck()

    def end(self) -> None:
        """The round is over: who waits is woken, and who would wait does not."""
        with self._lock:
            self._end()

    def _end_if_stuck(self) -> None:
        states = zip(self._running, self._waiting, self._queues, strict=True)
        if all(waiting and not queue for running, waiting, queue in states if running):
            self._end()

    def _end(self) -> None:
        self._over = True
        for arrival in self._arrivals:
            arrival.notify()


class MemoryLink:
    """A link within one process, of `device` out of `count`. patient: `receive` waits while a message can come."""

    def __init__(self, wires: Wires, device: int, count: int, patient: bool = False):
        self.wires, self.device, self.count, self.patient = wires, device, count, patient

    def send(self, message: Message) -> None:
        self.wires.put((self.device + 1) % self.count, message)

    def receive(self) -> Message | None:
        if self.patient:
            self.wires.wait(self.device)
        return self.wires.take(self.device)

    def interrupt(self) -> None:
        self.wires.end()


def in_memory_links(count: int, patient: bool = False) -> list[MemoryLink]:
    """The links of `count` devices of one process, by device."""
    wires = Wires(count)
    return [MemoryLink(wires, device, count, patient) for device in range(count)]
