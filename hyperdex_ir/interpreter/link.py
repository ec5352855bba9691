"""The links of the ring: messages of device `d` go to device `(d + 1) mod n`, in order.

A machine uses its link only through the protocol here, and a link knows nothing of machines. The devices of one process
hand messages over in memory (`in_memory_links`); processes use other kinds of link.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Message:
    """Message of one `send`.

    number: sends before it in the step. part: which part of the gathered value it is. words: float32 [rows, columns],
    an array of its own.
    """

    number: int
    part: int
    words: np.ndarray


class Link(Protocol):
    """The two ends of a device: towards the next device, and from the one before it."""

    def send(self, message: Message) -> None:
        """Hands a message to the next device; does not wait for it to be taken."""
        ...

    def receive(self) -> Message | None:
        """Takes the next message of the device before this one; None while there is none.

        The call may wait for a message, as long as one can come and `interrupt` is not called.
        """
        ...

    def interrupt(self) -> None:
        """Makes a waiting `receive` return; called from another thread."""
        ...


class Wires:
    """Connection of the devices of one process, each of which may run on a thread of its own.

    A waiting device is woken by a message, or when no message can come: all running devices wait, or the round is over.
    """

    def __init__(self, count: int):
        lock = threading.Lock()
        self._arrivals = [threading.Condition(lock) for _ in range(count)]
        self._queues: list[deque[Message]] = [deque() for _ in range(count)]
        self._lock = lock
        self.begin()

    def begin(self) -> None:
        """Begins a round: all devices run, and messages that were not received are dropped."""
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
        """Blocks until a message for a device has arrived (True), or until none can come (False)."""
        with self._lock:
            self._waiting[device] = True
            self._end_if_stuck()
            while not self._queues[device] and not self._over:
                self._arrivals[device].wait()
            self._waiting[device] = False
            return bool(self._queues[device]) and not self._over

    def leave(self, device: int) -> None:
        """Notes that a device has finished: it sends nothing more in this round."""
        with self._lock:
            self._running[device] = False
            self._end_if_stuck()

    def end(self) -> None:
        """Ends the round: waiting devices are woken, and later calls of `wait` do not block."""
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
