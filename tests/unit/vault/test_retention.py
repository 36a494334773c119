# SPDX-License-Identifier: Apache-2.0
"""Which points are kept, for what reason and until when."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepstone.errors import InvalidPolicy
from keepstone.vault import Days, Duration, Reason, Retention, Rule, Unit, WeekDays, judge
from keepstone.vault.schedule import week_of

pytestmark = pytest.mark.service

UTC_ZONE = ZoneInfo("UTC")
SUNDAY, MONDAY, WEDNESDAY, FRIDAY = 6, 0, 2, 4


def days(count: int) -> Duration:
    return Duration(count, Unit.DAYS)


def made(*texts: str) -> dict[str, datetime]:
    return {text: datetime.fromisoformat(text).replace(tzinfo=UTC) for text in texts}


def daily_points(first: str, count: int, hour: int = 1) -> dict[str, datetime]:
    begin = date.fromisoformat(first)
    return made(*(f"{begin + timedelta(days=n)} {hour:02}:00" for n in range(count)))


def named(retention: Retention, points: dict[str, datetime], reason: Reason, rules: ZoneInfo = UTC_ZONE) -> list[str]:
    kept = judge(retention, points, rules)
    return sorted(point for point in points if reason in kept[point].reasons)


def test_every_point_is_kept_for_the_days() -> None:
    points = daily_points("2026-11-01", 2)

    kept = judge(Retention(daily=days(30)), points, UTC_ZONE)

    assert {point: k.until for point, k in kept.items()} == {
        point: when + timedelta(days=30) for point, when in points.items()
    }


def test_the_longest_reason_counts() -> None:
    retention = Retention(daily=days(7), weekly=Rule(Duration(4, Unit.WEEKS), weekdays=frozenset({SUNDAY})))

    kept = judge(retention, daily_points("2026-11-01", 2), UTC_ZONE)

    assert kept["2026-11-01 01:00"].until == datetime(2026, 11, 29, 1, tzinfo=UTC)
    assert kept["2026-11-02 01:00"].until == datetime(2026, 11, 9, 1, tzinfo=UTC)


def test_a_missing_day_is_stood_for_by_the_next_one_of_the_week() -> None:
    points = daily_points("2026-11-01", 14)
    del points["2026-11-01 01:00"], points["2026-11-02 01:00"]
    retention = Retention(weekly=Rule(Duration(4, Unit.WEEKS), weekdays=frozenset({SUNDAY})))

    assert named(retention, points, Reason.WEEKLY) == ["2026-11-03 01:00", "2026-11-08 01:00"]


def test_where_none_comes_any_more_the_last_one_before_stands() -> None:
    points = made("2026-11-02 01:00", "2026-11-03 01:00")
    retention = Retention(weekly=Rule(Duration(4, Unit.WEEKS), weekdays=frozenset({FRIDAY})))

    assert named(retention, points, Reason.WEEKLY) == ["2026-11-03 01:00"]


def test_days_of_a_month_and_its_last() -> None:
    points = daily_points("2026-02-01", 59)
    retention = Retention(monthly=Rule(Duration(12, Unit.MONTHS), days=Days(frozenset({1, 15, 0}))))

    assert named(retention, points, Reason.MONTHLY) == [
        "2026-02-01 01:00",
        "2026-02-15 01:00",
        "2026-02-28 01:00",
        "2026-03-01 01:00",
        "2026-03-15 01:00",
        "2026-03-31 01:00",
    ]


def test_weekdays_of_the_first_and_the_last_week() -> None:
    points = daily_points("2026-11-01", 30)
    rule = Rule(Duration(12, Unit.MONTHS), days=WeekDays(frozenset({SUNDAY, WEDNESDAY}), frozenset({1, 0})))

    assert named(Retention(monthly=rule), points, Reason.MONTHLY) == [
        "2026-11-01 01:00",
        "2026-11-04 01:00",
        "2026-11-25 01:00",
        "2026-11-29 01:00",
    ]


def test_a_year_has_its_months() -> None:
    points = daily_points("2026-01-01", 365)
    rule = Rule(Duration(10, Unit.YEARS), days=Days(frozenset({1})), months=frozenset({1, 7}))

    assert named(Retention(yearly=rule), points, Reason.YEARLY) == ["2026-01-01 01:00", "2026-07-01 01:00"]


def test_of_a_day_the_last_point_counts_or_the_one_of_the_named_time() -> None:
    points = made("2026-11-01 02:00", "2026-11-01 10:00", "2026-11-01 18:00")
    rule = Rule(Duration(4, Unit.WEEKS), weekdays=frozenset({SUNDAY}))
    at_ten = Rule(Duration(4, Unit.WEEKS), weekdays=frozenset({SUNDAY}), at=time(9))

    assert named(Retention(weekly=rule), points, Reason.WEEKLY) == ["2026-11-01 18:00"]
    assert named(Retention(weekly=at_ten), points, Reason.WEEKLY) == ["2026-11-01 10:00"]


def test_days_are_those_of_the_zone() -> None:
    points = made("2026-11-01 06:00", "2026-11-02 06:00")
    retention = Retention(weekly=Rule(Duration(4, Unit.WEEKS), weekdays=frozenset({SUNDAY})))

    # in Los Angeles the second one is made at 22:00 of the Sunday, and the first one on Saturday
    assert named(retention, points, Reason.WEEKLY, ZoneInfo("America/Los_Angeles")) == [
        "2026-11-01 06:00",
        "2026-11-02 06:00",
    ]
    assert named(retention, points, Reason.WEEKLY) == ["2026-11-01 06:00"]


def test_a_backup_on_demand_has_its_own_date_and_stands_for_nothing() -> None:
    points = made("2026-11-01 01:00", "2026-11-01 12:00")
    until = datetime(2027, 1, 1, tzinfo=UTC)
    retention = Retention(weekly=Rule(Duration(4, Unit.WEEKS), weekdays=frozenset({SUNDAY})))

    kept = judge(retention, points, UTC_ZONE, own={"2026-11-01 12:00": until})

    assert dict(kept["2026-11-01 12:00"].reasons) == {Reason.ON_DEMAND: until}
    assert Reason.WEEKLY in kept["2026-11-01 01:00"].reasons


@pytest.mark.parametrize(
    ("duration", "end"),
    [
        (Duration(1, Unit.MONTHS), "2024-02-29"),
        (Duration(13, Unit.MONTHS), "2025-02-28"),
        (Duration(1, Unit.YEARS), "2025-01-31"),
        (Duration(99, Unit.YEARS), "2123-01-31"),
        (Duration(5, Unit.WEEKS), "2024-03-06"),
    ],
)
def test_durations_are_those_of_the_calendar(duration: Duration, end: str) -> None:
    assert duration.after(datetime(2024, 1, 31, tzinfo=UTC)).date().isoformat() == end


def test_a_duration_ends_with_the_calendar() -> None:
    assert Duration(99, Unit.YEARS).after(datetime(9950, 1, 31, tzinfo=UTC)).year == 9999


RULES = st.builds(
    Retention,
    daily=st.integers(1, 40).map(days),
    weekly=st.builds(Rule, st.just(Duration(9, Unit.WEEKS)), st.frozensets(st.integers(0, 6), min_size=1)),
    monthly=st.builds(
        Rule,
        st.just(Duration(12, Unit.MONTHS)),
        days=st.one_of(
            st.builds(Days, st.frozensets(st.integers(0, 28), min_size=1)),
            st.builds(
                WeekDays, st.frozensets(st.integers(0, 6), min_size=1), st.frozensets(st.integers(0, 4), min_size=1)
            ),
        ),
    ),
)
POINTS = st.sets(st.integers(0, 24 * 90), min_size=1, max_size=60).map(
    lambda hours: {str(hour): datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hour) for hour in hours}
)


@given(RULES, POINTS)
def test_no_week_or_month_with_points_goes_without_one(retention: Retention, points: dict[str, datetime]) -> None:
    kept = judge(retention, points, UTC_ZONE)
    months = {(when.year, when.month) for when in points.values()}

    named_months = {
        (points[point].year, points[point].month) for point in points if Reason.MONTHLY in kept[point].reasons
    }
    assert named_months == months
    assert all(Reason.DAILY in kept[point].reasons for point in points)
    weekly = [when for point, when in points.items() if Reason.WEEKLY in kept[point].reasons]
    assert {week_of(when.date()) for when in weekly} == {week_of(when.date()) for when in points.values()}


@given(RULES, POINTS)
def test_what_went_is_not_missed(retention: Retention, points: dict[str, datetime]) -> None:
    """Points that have expired and are removed do not change what is kept of the others: one pass is enough."""
    now = max(points.values()) + timedelta(days=20)
    before = judge(retention, points, UTC_ZONE)
    left = {point: when for point, when in points.items() if (before[point].until or now) > now}
    after = judge(retention, left, UTC_ZONE)

    assert all((after[point].until or now) >= (before[point].until or now) for point in left)


@pytest.mark.parametrize(
    "make",
    [
        Retention,
        lambda: Duration(0, Unit.DAYS),
        lambda: Duration(100, Unit.YEARS),
        lambda: Days(frozenset()),
        lambda: Days(frozenset({29})),
        lambda: WeekDays(frozenset(), frozenset({1})),
        lambda: WeekDays(frozenset({1}), frozenset({5})),
        lambda: Retention(weekly=Rule(days(7))),
        lambda: Retention(monthly=Rule(days(7))),
        lambda: Retention(yearly=Rule(days(7), days=Days(frozenset({1})))),
    ],
)
def test_retentions_that_cannot_be(make: object) -> None:
    assert callable(make)
    with pytest.raises(InvalidPolicy):
        make()
