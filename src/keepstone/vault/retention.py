# SPDX-License-Identifier: Apache-2.0
"""How long recovery points are kept, and what a changed policy would do to those that there are.

A point is kept for the longest of all reasons that speak for it:

    daily     every point, for so long
    weekly    one point of each chosen day of a week
    monthly   one of each chosen day of a month
    yearly    one of each chosen day of the chosen months

A chosen day without a good point (a machine was off, a backup failed) is stood for by the next point of the same week
or month, or where none comes by the last one before; so no period goes without one that has any. Of several points of
a day the last one counts, unless the rule names a time of the day: then the first one from that time on, or else the
last.

A rule looks at all points at once and not at the one that was just made: the answer is the same whenever it is asked,
and a changed policy is true of old points as well. What may not be shortened is not decided here.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from zoneinfo import ZoneInfo

from keepstone.errors import InvalidPolicy
from keepstone.vault.schedule import week_of

__all__ = ["Days", "Duration", "Kept", "Reason", "Retention", "Rule", "Unit", "WeekDays", "judge"]

_LONGEST = 99  # years


class Unit(StrEnum):
    """As Azure names them."""

    DAYS = "Days"
    WEEKS = "Weeks"
    MONTHS = "Months"
    YEARS = "Years"


class Reason(StrEnum):
    """Why a point is kept."""

    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    YEARLY = "yearly"
    ON_DEMAND = "on demand"


@dataclass(frozen=True, slots=True)
class Duration:
    """So many days, weeks, months or years of the calendar."""

    count: int
    unit: Unit

    def __post_init__(self) -> None:
        most = {Unit.DAYS: 366, Unit.WEEKS: 53, Unit.MONTHS: 12, Unit.YEARS: 1}[self.unit] * _LONGEST
        if not 1 <= self.count <= most:
            raise InvalidPolicy(
                f"points cannot be kept for {self.count} {self.unit.lower()}; choose 1 to {most}, which is 99 years",
                target="retentionDuration.count",
            )

    def after(self, moment: datetime) -> datetime:
        """The end of it; a day that a month does not have is its last one. The end of the calendar where it is
        later."""
        try:
            if self.unit is Unit.DAYS:
                return moment + timedelta(days=self.count)
            if self.unit is Unit.WEEKS:
                return moment + timedelta(weeks=self.count)
            months = self.count * (12 if self.unit is Unit.YEARS else 1) + moment.month - 1
            year, month = moment.year + months // 12, months % 12 + 1
            day = moment.day if moment.day <= 28 else min(moment.day, monthrange(year, month)[1])
            return moment.replace(year=year, month=month, day=day)
        except (OverflowError, ValueError):
            return datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Days:
    """Days of a month by their numbers; 0 is the last one."""

    numbers: frozenset[int]

    def __post_init__(self) -> None:
        if not self.numbers or not self.numbers <= set(range(29)):
            raise InvalidPolicy(
                "the days of a month are 1 to 28 and the last one", target="retentionScheduleDaily.daysOfTheMonth"
            )

    def of(self, year: int, month: int) -> list[date]:
        """Those of this month."""
        last = monthrange(year, month)[1]
        return sorted({date(year, month, number or last) for number in self.numbers})


@dataclass(frozen=True, slots=True)
class WeekDays:
    """Days of the week (0 Monday … 6 Sunday) in the first to fourth (1 … 4) and the last (0) week of a month."""

    days: frozenset[int]
    weeks: frozenset[int]

    def __post_init__(self) -> None:
        if not self.days or not self.days <= set(range(7)):
            raise InvalidPolicy("a day of the week is missing", target="retentionScheduleWeekly.daysOfTheWeek")
        if not self.weeks or not self.weeks <= set(range(5)):
            raise InvalidPolicy("a week of the month is missing", target="retentionScheduleWeekly.weeksOfTheMonth")

    def of(self, year: int, month: int) -> list[date]:
        """Those of this month."""
        last = monthrange(year, month)[1]
        chosen = set()
        for day in (date(year, month, number) for number in range(1, last + 1)):
            is_last = day.day + 7 > last
            if day.weekday() in self.days and ((day.day + 6) // 7 in self.weeks or (is_last and 0 in self.weeks)):
                chosen.add(day)
        return sorted(chosen)


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a long-term policy. `days`: which days of the month; None for a weekly rule, which has `weekdays`.
    `months`: of a yearly rule. `at`: the time of the day that names the point, None for the last of the day."""

    keep: Duration
    weekdays: frozenset[int] = frozenset()
    days: Days | WeekDays | None = None
    months: frozenset[int] = frozenset()
    at: time | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """A policy's retention; every part may be missing, but not all of them."""

    daily: Duration | None = None
    weekly: Rule | None = None
    monthly: Rule | None = None
    yearly: Rule | None = None

    def __post_init__(self) -> None:
        if self.daily is None and (self.weekly, self.monthly, self.yearly) == (None, None, None):
            raise InvalidPolicy("a policy has to keep points for some time", target="properties.retentionPolicy")
        if self.weekly is not None and not self.weekly.weekdays:
            raise InvalidPolicy(
                "weekly retention needs a day of the week", target="retentionPolicy.weeklySchedule.daysOfTheWeek"
            )
        if self.monthly is not None and self.monthly.days is None:
            raise InvalidPolicy("monthly retention needs days of the month", target="retentionPolicy.monthlySchedule")
        if self.yearly is not None and (self.yearly.days is None or not self.yearly.months):
            raise InvalidPolicy("yearly retention needs months and days", target="retentionPolicy.yearlySchedule")


@dataclass(frozen=True, slots=True)
class Kept:
    """What becomes of a point: the reasons for it, each with the moment until which it holds. None: it may go."""

    reasons: Mapping[Reason, datetime] = field(default_factory=dict)

    @property
    def until(self) -> datetime | None:
        """The last moment at which any reason holds."""
        return max(self.reasons.values(), default=None)


def judge(
    retention: Retention, points: Mapping[str, datetime], rules: ZoneInfo, *, own: Mapping[str, datetime] | None = None
) -> dict[str, Kept]:
    """Until when each point is kept. `points`: when it was made, in UTC. `own`: the date that an on-demand backup was
    given; such a point is kept for that and for nothing else."""
    own = own or {}
    reasons: dict[str, dict[Reason, datetime]] = {point: {} for point in points}
    for point, until in own.items():
        reasons[point][Reason.ON_DEMAND] = until
    local = sorted((made.astimezone(rules), point) for point, made in points.items() if point not in own)
    for reason, duration, chosen in _chosen(retention, local):
        for point in chosen:
            reasons[point][reason] = duration.after(points[point])
    return {point: Kept(why) for point, why in reasons.items()}


_Points = Sequence[tuple[datetime, str]]


def _chosen(retention: Retention, points: _Points) -> Iterator[tuple[Reason, Duration, Iterable[str]]]:
    weekly, monthly, yearly = retention.weekly, retention.monthly, retention.yearly
    if retention.daily is not None:
        yield Reason.DAILY, retention.daily, [point for _, point in points]
    if weekly is not None:
        yield Reason.WEEKLY, weekly.keep, _picked(points, weekly, week_of, _week_days(weekly))
    if monthly is not None:
        yield Reason.MONTHLY, monthly.keep, _picked(points, monthly, _month_of, _month_days(monthly))
    if yearly is not None:
        in_months = [point for point in points if point[0].month in yearly.months]
        yield Reason.YEARLY, yearly.keep, _picked(in_months, yearly, _month_of, _month_days(yearly))


def _month_of(day: date) -> date:
    return day.replace(day=1)


def _week_days(rule: Rule) -> Callable[[date], list[date]]:
    after = [timedelta(days=(day + 1) % 7) for day in rule.weekdays]  # Sunday is 6
    return lambda sunday: sorted(sunday + days for days in after)


def _month_days(rule: Rule) -> Callable[[date], list[date]]:
    days = rule.days
    assert days is not None
    return lambda first: _days_of(days, first.year, first.month)


@lru_cache(maxsize=4096)
def _days_of(days: Days | WeekDays, year: int, month: int) -> list[date]:
    """The same for all items of a policy."""
    return days.of(year, month)


def _picked(
    points: _Points, rule: Rule, period_of: Callable[[date], date], days_of: Callable[[date], list[date]]
) -> set[str]:
    """For each period that has points, those that stand for its chosen days."""
    periods: dict[date, dict[date, list[tuple[datetime, str]]]] = {}
    for made, point in points:
        periods.setdefault(period_of(made.date()), {}).setdefault(made.date(), []).append((made, point))
    picked = set()
    for period, by_day in periods.items():
        for wanted in days_of(period):
            day = min((day for day in by_day if day >= wanted), default=max(by_day))
            picked.add(_of_day(by_day[day], rule.at if day == wanted else None))
    return picked


def _of_day(points: list[tuple[datetime, str]], at: time | None) -> str:
    if at is not None:
        for made, point in points:
            if made.time() >= at:
                return point
    return points[-1][1]
