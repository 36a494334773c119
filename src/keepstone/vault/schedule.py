# SPDX-License-Identifier: Apache-2.0
"""When an item is to be backed up.

A schedule is a rule for clocks on a wall; with a time zone it gives moments. `runs` lists them, so the scheduler asks
for the first one after the last that it has seen and never counts seconds: a server that was away for a night finds
what it missed. What a change of clocks does to a run says `zones.instant`.

Azure's limits on a schedule (once a day; hourly only every 4, 6, 8, 12) are not kept: any interval from 5 minutes is
one. Weeks begin on Sunday, as they do in Azure's policies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Protocol
from zoneinfo import ZoneInfo

from keepstone.errors import InvalidPolicy
from keepstone.vault.zones import instant

__all__ = ["SHORTEST", "Daily", "Hourly", "Interval", "Schedule", "Weekly", "longest_gap", "week_of"]

SHORTEST = timedelta(minutes=5)
"""No schedule may run more often."""
_DAY = timedelta(days=1)
_SUNDAY = 6  # as date.weekday() counts
_EVEN = ZoneInfo("UTC")


class Schedule(Protocol):
    """A rule that names moments without end."""

    def runs(self, after: datetime, rules: ZoneInfo) -> Iterator[datetime]:
        """Every moment later than `after`, in order, in UTC."""


def week_of(day: date) -> date:
    """The Sunday on or before this day."""
    return day - timedelta(days=(day.weekday() - _SUNDAY) % 7)


@dataclass(frozen=True, slots=True)
class Daily:
    """Every day at these times."""

    times: tuple[time, ...]

    def __post_init__(self) -> None:
        _check_times(self.times)

    def runs(self, after: datetime, rules: ZoneInfo) -> Iterator[datetime]:
        return _later(after, (instant(datetime.combine(day, at), rules) for day in _days(after, rules)
                              for at in sorted(self.times)))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Weekly:
    """On these days (0 Monday … 6 Sunday) of every `every`-th week, counted from the week of `anchor`."""

    days: frozenset[int]
    times: tuple[time, ...]
    every: int = 1
    anchor: date = date(1970, 1, 4)

    def __post_init__(self) -> None:
        _check_times(self.times)
        if not self.days or not self.days <= set(range(7)):
            raise InvalidPolicy("a weekly schedule needs a day of the week", target="schedulePolicy.scheduleRunDays")
        if not 1 <= self.every <= 52:
            raise InvalidPolicy(
                f"a schedule cannot run every {self.every} weeks; choose 1 to 52",
                target="schedulePolicy.scheduleWeeklyFrequency",
            )

    def runs(self, after: datetime, rules: ZoneInfo) -> Iterator[datetime]:
        return _later(after, (instant(datetime.combine(day, at), rules) for day in _days(after, rules)
                              if self._is_due(day) for at in sorted(self.times)))  # fmt: skip

    def _is_due(self, day: date) -> bool:
        weeks = day.toordinal() // 7 - self.anchor.toordinal() // 7  # day 7 of the calendar was a Sunday
        return day.weekday() in self.days and weeks % self.every == 0


@dataclass(frozen=True, slots=True)
class Hourly:
    """Each day from `start` on, every `interval` until `window` has passed; the end of the window counts."""

    start: time
    interval: timedelta
    window: timedelta

    def __post_init__(self) -> None:
        if not SHORTEST <= self.interval <= _DAY:
            raise InvalidPolicy(
                f"an interval of {self.interval} is not possible; choose 5 minutes to 24 hours",
                target="schedulePolicy.hourlySchedule.interval",
            )
        if not timedelta() <= self.window <= _DAY:
            raise InvalidPolicy(
                f"a window of {self.window} is not possible; choose up to 24 hours",
                target="schedulePolicy.hourlySchedule.scheduleWindowDuration",
            )

    def runs(self, after: datetime, rules: ZoneInfo) -> Iterator[datetime]:
        return _later(after, self._from(after, rules))

    def _from(self, after: datetime, rules: ZoneInfo) -> Iterator[datetime]:
        count = self.window // self.interval + 1
        if self.window == _DAY and count * self.interval > _DAY:
            count -= 1  # the window's end is the next one's beginning
        for day in _days(after, rules):
            begin = datetime.combine(day, self.start)
            yield from (instant(begin + index * self.interval, rules) for index in range(count))


@dataclass(frozen=True, slots=True)
class Interval:
    """Every so often, whatever clocks show; counted from 1970, so that all servers agree."""

    every: timedelta

    def __post_init__(self) -> None:
        if not SHORTEST <= self.every <= timedelta(days=366):
            raise InvalidPolicy(
                f"a schedule cannot run every {self.every}; choose 5 minutes to a year",
                target="schedulePolicy.scheduleFrequencyInMins",
            )

    def runs(self, after: datetime, rules: ZoneInfo) -> Iterator[datetime]:
        epoch = datetime(1970, 1, 1, tzinfo=UTC)
        number = (after - epoch) // self.every
        while True:
            number += 1
            yield epoch + number * self.every


def longest_gap(schedule: Schedule) -> timedelta:
    """The longest time from one run to the next, by clocks that nobody sets forward or back."""
    if isinstance(schedule, Interval):
        return schedule.every
    period = 7 * schedule.every * _DAY if isinstance(schedule, Weekly) else _DAY
    runs = schedule.runs(datetime(2001, 1, 7, tzinfo=UTC), _EVEN)
    first = last = next(runs)
    longest = timedelta()
    for run in runs:
        longest, last = max(longest, run - last), run
        if run >= first + period:
            break
    return longest


def _check_times(times: tuple[time, ...]) -> None:
    target = "schedulePolicy.scheduleRunTimes"
    if not times:
        raise InvalidPolicy("a schedule needs a time of the day", target=target)
    minutes = sorted(at.hour * 60 + at.minute for at in times)
    if any(later - earlier < SHORTEST // timedelta(minutes=1) for earlier, later in pairwise(minutes)):
        raise InvalidPolicy("two times of a schedule are less than 5 minutes apart; leave one out", target=target)


def _days(after: datetime, rules: ZoneInfo) -> Iterator[date]:
    """The days, by the clocks there, on which a run after this moment may be; the window of the day before may last."""
    day = after.astimezone(rules).date() - 2 * _DAY
    while True:
        yield day
        try:
            day += _DAY
        except OverflowError:  # the calendar ends with the year 9999
            return


def _later(after: datetime, moments: Iterator[datetime]) -> Iterator[datetime]:
    """Those after this moment, each once: two times that a change of clocks skipped are one moment."""
    for moment in moments:
        if moment > after:
            after = moment
            yield moment
