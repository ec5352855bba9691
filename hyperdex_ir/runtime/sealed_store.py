"""A store of torch.distributed with sealed values: without the key, nobody can write one or move it elsewhere.

The store itself knows no secret. A stranger who reaches its port can read all of it, remove values, fill it, or replace
a value, which is then refused when it is read. gloo finds the other processes by such a store too.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from datetime import timedelta

from torch.distributed import Store  # pyright: ignore[reportPrivateImportUsage]

from hyperdex_ir.runtime.secret import SEAL_BYTES, SealError, seal
from hyperdex_ir.runtime.timed_store import TimedStore

#: Bytes of the longest value; gloo's addresses of a process take about 150 for each other one.
LONGEST_VALUE = 1 << 16


class SealedStore(Store):
    """Values in `store` under their keys. timeout: the longest wait for a key that is not set.

    All calls raise RuntimeError when the store is gone, SilenceError when it does not answer.
    """

    def __init__(self, store: TimedStore, key: bytes, timeout: timedelta):
        super().__init__()
        self._store, self._key, self._longest = store, key, timeout

    def set(self, key: str, value: str | bytes) -> None:
        """Puts a value there."""
        self._store.set(key, self._sealed(key, value))

    def get(self, key: str) -> bytes:
        """The value, waited for. Raises SealError when it is a stranger's, RuntimeError when there is none in time."""
        self._store.wait([key], self._longest)
        return self._opened(key, self._store.get(key))

    def check(self, keys: Sequence[str]) -> bool:
        """Test that there is a value under each key, also a stranger's."""
        return self._store.check(keys)

    def wait(self, keys: Sequence[str], timeout: timedelta | None = None) -> None:
        """Returns when each key has a value. Raises as `get`."""
        self._store.wait(keys, timeout or self._longest)
        for key in keys:
            self.get(key)

    def first(self, key: str, value: str | bytes) -> bytes:
        """Puts a value there unless there is one; returns the one that is there. Raises SealError as `get`."""
        sealed = self._sealed(key, value)
        return self._opened(key, self._store.compare_set(key, "", sealed))

    def _sealed(self, key: str, value: str | bytes) -> bytes:
        content = value.encode() if isinstance(value, str) else bytes(value)
        if len(content) > LONGEST_VALUE:
            raise ValueError(f"{key}: a value of {len(content)} bytes, expected at most {LONGEST_VALUE}")
        return seal(self._key, "store", key.encode(), content) + content

    def _opened(self, key: str, value: bytes) -> bytes:
        if len(value) > SEAL_BYTES + LONGEST_VALUE:  # no holder of the key writes that
            raise SealError(key)
        found, content = value[:SEAL_BYTES], value[SEAL_BYTES:]
        if not hmac.compare_digest(found, seal(self._key, "store", key.encode(), content)):
            raise SealError(key)
        return content
