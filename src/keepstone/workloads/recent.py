# SPDX-License-Identifier: Apache-2.0
"""What was used last: a cache that knows how large it is."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ["Recent"]

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Values by key, of at most `limit` together, in whatever unit their sizes are. Safe for several threads.

    A value that is larger than all may be is kept alone.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._lock = threading.Lock()
        self.size = 0

    def get(self, key: K) -> V | None:
        """The value, which is the newest now; None where there is none."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
            return found[0]

    def put(self, key: K, value: V, size: int = 1) -> None:
        """Keep a value, and let go of the oldest ones that are too much now."""
        with self._lock:
            before = self._values.pop(key, None)
            if before is not None:
                self.size -= before[1]
            self._values[key] = value, size
            self.size += size
            while self.size > self._limit and len(self._values) > 1:
                self.size -= self._values.popitem(last=False)[1][1]
