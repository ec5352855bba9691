"""The links of the ring: what device `d` sends goes to device `(d + 1) mod n`, in order.

A machine knows its link only by the protocol here, and a link knows nothing of machines: the devices of one process
hand messages over in memory (`in_memory_links`), processes over whatever connects them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
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
        """Takes the next message of the device before this one; None while there is none. Does not wait."""
        ...


@dataclass(frozen=True)
class MemoryLink:
    """A link within one process."""

    outgoing: deque[Message]
    incoming: deque[Message] = field(default_factory=deque)

    def send(self, message: Message) -> None:
        self.outgoing.append(message)

    def receive(self) -> Message | None:
        return self.incoming.popleft() if self.incoming else None

    def clear(self) -> None:
        """Drops what nobody has taken."""
        self.incoming.clear()


def in_memory_links(count: int) -> list[MemoryLink]:
    """The links of `count` devices of one process, by device."""
    wires: list[deque[Message]] = [deque() for _ in range(count)]
    return [MemoryLink(wires[(device + 1) % count], wires[device]) for device in range(count)]
