"""A store of torch.distributed with limited waits: torch's own wait without end, whatever process listens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch.distributed import Store  # pyright: ignore[reportPrivateImportUsage]

T = TypeVar("T")
#: Further wait for the store to say that a wait was in vain.
_SAY_SECONDS = 2.0


class SilenceError(RuntimeError):
    """No answer came in time. `RuntimeError` of torch's stores, in contrast, says that the connection is gone."""


def within(seconds: float, call: Callable[[], T]) -> T:
    """The outcome of a call, exceptions included. Raises SilenceError when it takes longer; its thread stays behind."""
    returned: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            returned.append(call())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    if not returned:
        raise SilenceError(f"no answer within {seconds:g} s")
    return returned[0]


class TimedStore:
    """The calls of a store that a rendezvous makes. seconds: the longest wait for an answer.

    All raise SilenceError when none comes. After the first time all raise it at once: that call holds the store, so
    that others would wait.
    """

    def __init__(self, store: Store, seconds: float):
        self._store: Any = store
        self._seconds, self._is_silent = seconds, False

    def set(self, key: str, value: str | bytes) -> None:
        self._call(lambda: self._store.set(key, value))

    def get(self, key: str) -> bytes:
        return self._call(lambda: self._store.get(key))

    def check(self, keys: Sequence[str]) -> bool:
        return self._call(lambda: self._store.check(list(keys)))

    def wait(self, keys: Sequence[str], timeout: timedelta) -> None:
        self._call(lambda: self._store.wait(list(keys), timeout), timeout.total_seconds() + _SAY_SECONDS)

    def compare_set(self, key: str, expected: str, value: str | bytes) -> bytes:
        return self._call(lambda: self._store.compare_set(key, expected, value))

    def _call(self, call: Callable[[], T], seconds: float | None = None) -> T:
        limit = self._seconds if seconds is None else seconds
        if self._is_silent:
            raise SilenceError(f"no answer within {limit:g} s")
        try:
            return within(limit, call)
        except SilenceError:
            self._is_silent = True
            raise
