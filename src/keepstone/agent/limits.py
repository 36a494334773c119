# SPDX-License-Identifier: Apache-2.0
"""How much of the network and of the processor the agent takes, by weekday and time of day.

A throttle is a bucket that fills at the rate that holds now: who takes from it waits until it was filled often enough
for him and for all who asked before him. One bucket is shared by everybody who takes the same thing, so the limit is
the whole agent's. What nobody takes is saved for `_SAVED` seconds at most.

Rates are looked up again every `_FRESH` seconds while somebody takes, and at once after `change`: so another part of
the day, a clock that is set right, and a new configuration take effect while a job runs. A rate of 0 is a pause: who
takes waits for the part of the day in which there is more.

Without any limit, `take` and `pause` are one comparison.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import tzinfo

from keepstone.agent.configuration import LimitsSettings, Span
from keepstone.env import Env

__all__ = ["Limits", "Share", "Throttle"]

_SAVED = 0.25  # seconds
_FRESH = 5.0  # seconds
_SLICE = 0.5  # seconds that somebody sleeps without looking whether he still has to
_LEAST_SLEEP = 0.001  # seconds: what is left after rounding is no reason to run in circles
_PIECE = 0.05  # seconds of the rate that go out at once
_LEAST = 1 << 14  # bytes that go out at once


def _go_on() -> None:
    """Nobody wants an end."""


class Limits:
    """`settings`: as the configuration has them. `zone`: of the times of day; None for the machine's own.

    `used`: the CPU time of this process, in nanoseconds. Safe for several threads.
    """

    def __init__(
        self,
        env: Env,
        settings: LimitsSettings,
        *,
        zone: tzinfo | None = None,
        used: Callable[[], int] = time.process_time_ns,
    ) -> None:
        self._env = env
        self._zone = zone
        self._used = used
        self._bytes = _Bucket(env, self.bytes_per_second)
        self._cpu = _Bucket(env, self._cpu_per_second)
        self.change(settings)

    def change(self, settings: LimitsSettings) -> None:
        """Follow these from now on; whoever waits looks again within half a second."""
        self._settings = settings
        self._bytes.change(settings.bandwidth is not None or any(one.bandwidth is not None for one in settings.times))
        self._cpu.change(settings.cpu is not None or any(one.cpu is not None for one in settings.times))

    def bandwidth(self, check: Callable[[], None] = _go_on) -> Throttle:
        """For bytes over the network. `check` is asked while somebody waits, and raises where he is to give up."""
        return Throttle(self._bytes, check)

    def cpu(self, check: Callable[[], None] = _go_on) -> Share:
        """For the processor."""
        return Share(self._cpu, self._used, check)

    def bytes_per_second(self) -> float | None:
        """What holds now; None: no limit."""
        return self._now(lambda one: one.bandwidth)

    def _cpu_per_second(self) -> float | None:
        """Nanoseconds, of which a whole core has 1e9."""
        percent = self._now(lambda one: one.cpu)
        return None if percent is None else percent / 100 * 1e9

    def _now(self, part: Callable[[LimitsSettings | Span], float | None]) -> float | None:
        """The first span of time that it is now and that says something of this; else what holds at all times."""
        settings = self._settings
        if settings.times:
            now = self._env.utc().astimezone(self._zone)
            for span in settings.times:
                value = part(span)
                if value is not None and span.has(now):
                    return value
        return part(settings)


class Throttle:
    """Bytes that may go over the network. Safe for several threads."""

    def __init__(self, bucket: _Bucket, check: Callable[[], None]) -> None:
        self._bucket = bucket
        self._check = check

    def take(self, count: int) -> None:
        """Wait until `count` bytes more may go. Raises what `check` raises."""
        if self._bucket.limited:
            self._bucket.take(count, self._check)

    def paced(self, data: bytes | memoryview) -> Iterator[bytes | memoryview]:
        """The same bytes in pieces, each when it may go, so that none of them makes a burst; one piece where there is
        no limit."""
        if not self._bucket.limited:
            yield data
            return
        view = memoryview(data)
        while view:
            size = self._bucket.portion(len(view))
            self._bucket.take(size, self._check)
            yield view[:size]
            view = view[size:]


class Share:
    """Time of the processor. Safe for several threads."""

    def __init__(self, bucket: _Bucket, used: Callable[[], int], check: Callable[[], None]) -> None:
        self._bucket = bucket
        self._used = used
        self._check = check

    def pause(self) -> None:
        """Wait until the whole process has used no more than its share. Called by each thread between two pieces of
        work, of well under a second each. Raises what `check` raises."""
        if self._bucket.limited:
            self._bucket.take_since(self._used(), self._check)


class _Bucket:
    """`limited`: whether there may be a limit, now or later.

    `_asked` and `_served` count from the beginning: who asks gets a number, and his turn is when it is served. So it is
    first come, first served, and a sleeper needs nobody to wake him.
    """

    def __init__(self, env: Env, rate: Callable[[], float | None]) -> None:
        self.limited = False
        self._env = env
        self._find = rate
        self._lock = threading.Lock()
        self._asked = 0.0
        self._served = 0.0
        self._known = 0.0  # what was asked for, where others than the takers count it
        self._rate: float | None = None
        self._looked: float | None = None  # when the rate was looked up; None: look again
        self._at = env.boot_time() / 1e9

    def change(self, limited: bool) -> None:
        """The rates are others."""
        with self._lock:
            self._looked = None
            if limited and not self.limited:
                self._known = -1.0
                self._at = self._env.boot_time() / 1e9
                self._served = self._asked
        self.limited = limited

    def portion(self, most: int) -> int:
        """How much to take at once so that it goes out evenly."""
        with self._lock:
            self._advance()
            return most if self._rate is None else min(most, max(_LEAST, int(self._rate * _PIECE)))

    def take(self, count: float, check: Callable[[], None]) -> None:
        with self._lock:
            self._advance()
            self._asked += count
            turn = self._asked
        self._wait(turn, check)

    def take_since(self, total: float, check: Callable[[], None]) -> None:
        """Take what was added to `total` since anybody's last look."""
        with self._lock:
            self._advance()
            self._asked += 0 if self._known < 0 else max(0.0, total - self._known)
            self._known = max(self._known, total)
            turn = self._asked
        self._wait(turn, check)

    def _wait(self, turn: float, check: Callable[[], None]) -> None:
        while True:
            with self._lock:
                self._advance()
                missing, rate = turn - self._served, self._rate
            if rate is None or missing <= 0 or not self.limited:
                return
            check()
            self._env.sleep(max(_LEAST_SLEEP, min(_SLICE, missing / rate)) if rate > 0 else _SLICE)

    def _advance(self) -> None:
        """Serve what the time since the last call was enough for, at the rate of then."""
        now = self._env.boot_time() / 1e9
        if self._rate is None:
            self._served = self._asked
        else:
            served = self._served + (now - self._at) * self._rate
            self._served = min(served, self._asked + self._rate * _SAVED)
        self._at = now
        if self._looked is None or now - self._looked >= _FRESH:
            self._rate, self._looked = self._find(), now
