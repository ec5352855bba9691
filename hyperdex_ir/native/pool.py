"""Threads that are started once and run the same compiled function again and again."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from itertools import repeat

Job = Callable[[int], None]
_RELEASE = type(threading.Lock()).release


class Pool:
    """`count` threads. Each runs `job(number)`, which releases Python's lock by calling compiled code."""

    def __init__(self, count: int, job: Job):
        self._job = job
        self._count = count
        self._closed = False
        self._start()

    def _start(self) -> None:
        count = self._count
        self._process = os.getpid()
        self._starts = [threading.Lock() for _ in range(count)]
        self._begun: list[tuple[None, int]] = [(None, 0)] * count  # the run that each thread was last told to do
        self._finished = [0] * count  # runs that each thread is done with
        self._done: queue.SimpleQueue[int] = queue.SimpleQueue()  # wakes the waiting thread; `_finished` is what counts
        self._errors: list[BaseException] = []
        for number, start in enumerate(self._starts):
            start.acquire()
            threading.Thread(target=self._work, args=(number,), name=f"hyperdex-{number}", daemon=True).start()

    @property
    def closed(self) -> bool:
        """True once `close` has been called."""
        return self._closed

    def settle(self) -> None:
        """Waits until the jobs of an interrupted run have ended: afterwards no thread runs a job."""
        if os.getpid() != self._process:  # a fork copies everything but threads
            self._start()
        self._drain()

    def run(self, stop: Callable[[], None], deadline: float | None = None) -> bool:
        """Runs the job once on every thread; returns when all have finished, True unless the deadline came first.

        deadline: seconds of `time.monotonic`. When it is over, or an exception comes in from outside (Ctrl+C), `stop()`
        is called, which must make the jobs return soon; the exception is raised again when they have.
        """
        self.settle()
        self._errors.clear()
        target = self._last() + 1
        try:
            # One call of C: Ctrl+C comes before it or after it, so either all threads run or none, and it is known
            # which.
            self._begun[:] = zip(map(_RELEASE, self._starts), repeat(target), strict=False)
            in_time = self._wait(target, deadline)
            if not in_time:
                stop()
        except BaseException:
            stop()
            raise
        finally:
            self._drain()
        if self._errors:
            raise self._errors[0]
        return in_time

    def close(self) -> None:
        """Ends the threads; to be called once none runs a job."""
        if not self._closed:
            self._closed = True
            for start in self._starts:
                start.release()

    def _last(self) -> int:
        """The number of the last run that was begun."""
        return self._begun[0][1]

    def _wait(self, target: int, deadline: float | None) -> bool:
        """Waits for the end of a run; True when all threads have come to it before the deadline. Signals interrupt the
        wait."""
        while min(self._finished) < target:
            try:
                self._done.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return False
        return True

    def _drain(self) -> None:
        """Waits for threads that have been told to stop; a second Ctrl+C does not leave them behind."""
        interrupted: KeyboardInterrupt | None = None
        target = self._last()
        while min(self._finished) < target:
            try:
                self._wait(target, None)
            except KeyboardInterrupt as error:
                interrupted = error
        if interrupted is not None:
            raise interrupted

    def _work(self, number: int) -> None:
        while True:
            self._starts[number].acquire()
            if self._closed:
                return
            try:
                self._job(number)
            except BaseException as error:  # handed to the thread that waits
                self._errors.append(error)
            self._finished[number] += 1
            self._done.put(number)
