# SPDX-License-Identifier: Apache-2.0
"""A world whose time goes on only while somebody sleeps in it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from keepstone.env import Env

__all__ = ["Clock"]


class Clock(Env):
    """`sleeps`: how long each was. `meanwhile`: called with the time since the begin, in seconds, after each."""

    def __init__(self, now: datetime) -> None:
        super().__init__(threads=0)
        self.sleeps: list[float] = []
        self.meanwhile: Callable[[float], None] = lambda passed: None
        self._wall = int(now.timestamp() * 1e9)
        self._boot = 0

    @property
    def passed(self) -> float:
        return self._boot / 1e9

    def boot_time(self) -> int:
        return self._boot

    def wall_time(self) -> int:
        return self._wall

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.go(seconds)
        self.meanwhile(self.passed)

    def go(self, seconds: float) -> None:
        """Time passes for another reason."""
        self._boot += int(seconds * 1e9)
        self._wall += int(seconds * 1e9)
