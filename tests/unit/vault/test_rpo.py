# SPDX-License-Identifier: Apache-2.0
"""Health by two moments, and the points that an item should have."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from keepstone.vault import (
    BackupType,
    Daily,
    Duration,
    Health,
    Hourly,
    Interval,
    Part,
    Retention,
    Rule,
    Schedule,
    Unit,
    Weekly,
    health,
    last_runs,
    zone,
)
from keepstone.vault.rpo import MOST, Span, expected, has_point

EARLIEST, LATEST = datetime(2023, 1, 1), datetime(2027, 1, 1)
MOMENTS = st.datetimes(EARLIEST, LATEST, timezones=st.just(UTC))
TIMES = st.lists(st.sampled_from([time(hour, 30) for hour in range(24)]), min_size=1, max_size=3, unique=True)
SCHEDULES: st.SearchStrategy[Schedule] = st.one_of(
    st.builds(Daily, TIMES.map(tuple)),
    st.builds(
        Weekly, st.sets(st.integers(0, 6), min_size=1).map(frozenset), TIMES.map(tuple), st.sampled_from([1, 2, 52])
    ),
    st.builds(
        Hourly,
        st.sampled_from([time(0), time(2, 15), time(22)]),
        st.sampled_from([timedelta(minutes=5), timedelta(hours=4), timedelta(hours=5)]),
        st.sampled_from([timedelta(), timedelta(hours=12), timedelta(days=1)]),
    ),
    st.builds(Interval, st.sampled_from([timedelta(minutes=15), timedelta(days=1), timedelta(days=366)])),
)
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"]).map(zone)


@given(SCHEDULES, ZONES, MOMENTS, st.timedeltas(timedelta(0), timedelta(days=800)))
def test_two_moments_say_what_health_says(schedule: Schedule, rules: ZoneInfo, now: datetime, age: timedelta) -> None:
    earlier, last = last_runs(schedule, rules, now)
    assert earlier < last < now
    # somewhere, and at the very moments on which it depends
    for newest in (now - age, earlier, last, earlier - timedelta(microseconds=1)):
        said = health(newest, schedule, rules, now)

        assert (said is Health.UNHEALTHY) == (newest < earlier)


def part(schedule: Schedule, **rules: Duration | Rule) -> Part:
    return Part(BackupType.FULL, schedule, Retention(**rules))  # type: ignore[arg-type]


NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
NIGHTLY = Daily((time(22),))


def test_every_run_that_is_over_and_whose_point_would_be_there() -> None:
    spans = expected(part(NIGHTLY, daily=Duration(30, Unit.DAYS)), zone("UTC"), NOW - timedelta(days=10), NOW)

    runs = [datetime(2026, 6, 5, 22, tzinfo=UTC) + timedelta(days=day) for day in range(10)]
    assert spans == [Span(run, run + timedelta(days=1)) for run in runs[:-1]]  # the last one may still make its point


def test_a_run_whose_point_retention_took_is_not_asked_for() -> None:
    spans = expected(
        part(NIGHTLY, daily=Duration(3, Unit.DAYS), weekly=Rule(Duration(8, Unit.WEEKS), weekdays=frozenset({6}))),
        zone("UTC"),
        NOW - timedelta(days=20),
        NOW,
    )

    days = [span.begin.day for span in spans]
    # the Sundays of three weeks, and what three days keep; but not the 14th, a Sunday whose span is not over
    assert days == [31, 7, 12, 13]


def test_of_very_many_runs_the_newest() -> None:
    spans = expected(
        part(Interval(timedelta(minutes=5)), daily=Duration(60, Unit.DAYS)),
        zone("UTC"),
        NOW - timedelta(days=30),
        NOW,
    )

    assert len(spans) == MOST
    assert spans[-1].end == NOW - timedelta(minutes=5)


def test_a_point_counts_for_the_run_before_it() -> None:
    begin = datetime(2026, 6, 5, 22, tzinfo=UTC)
    span = Span(begin, begin + timedelta(days=1))
    before, after = begin - timedelta(seconds=1), span.end

    assert has_point(span, [before, begin, after])
    assert has_point(span, [before, after - timedelta(seconds=1)])
    assert not has_point(span, [before, after])
    assert not has_point(span, [])
