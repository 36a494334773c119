# SPDX-License-Identifier: Apache-2.0
"""Places, fewer than those who want one, given in the order in which they came.

Whoever waits costs nothing but his thread: no look at a clock or a database, and nobody is woken in vain.
"""

from __future__ import annotations

import threading

__all__ = ["Places"]


class _Turn:
    def __init__(self) -> None:
        self.called = threading.Event()
        self.given = False

    def call(self, *, given: bool) -> None:
        self.given = given
        self.called.set()


class Places:
    """`most` of them. Safe for several threads."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._waiting: dict[str, _Turn] = {}  # in the order in which they came
        self._closed = False
        self._lock = threading.Lock()

    def take(self, who: str, seconds: float) -> bool:
        """A place, at once or within so many seconds; False where none came. Who asks again while he waits has his turn
        with the later question, and the earlier one gets none."""
        turn = _Turn()
        with self._lock:
            if self._closed:
                return False
            if self._free:
                self._free -= 1
                return True
            if who in self._waiting:
                self._waiting[who].call(given=False)
            self._waiting[who] = turn
        if not turn.called.wait(seconds):
            with self._lock:
                if self._waiting.get(who) is turn:
                    del self._waiting[who]
        return turn.given

    def give(self) -> None:
        """It is somebody else's now."""
        with self._lock:
            if not self._waiting:
                self._free += 1
                return
            first = next(iter(self._waiting))
            self._waiting.pop(first).call(given=True)

    def close(self) -> None:
        """Nobody gets one any more, nor waits for it."""
        with self._lock:
            self._closed = True
            for turn in self._waiting.values():
                turn.call(given=False)
            self._waiting.clear()
