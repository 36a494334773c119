# SPDX-License-Identifier: Apache-2.0
"""When backups run, whatever clocks do."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepstone.errors import InvalidPolicy
from keepstone.vault import Daily, Hourly, Interval, Schedule, Weekly, zone
from keepstone.vault.schedule import longest_gap
from keepstone.vault.zones import instant, windows_names

pytestmark = pytest.mark.service

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia"]
).map(ZoneInfo)
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2037, 1, 1), timezones=st.just(UTC))
TIMES = st.lists(st.integers(0, 287), min_size=1, max_size=4, unique=True).map(
    lambda fives: tuple(time(five * 5 // 60, five * 5 % 60) for five in fives)
)
SCHEDULES: st.SearchStrategy[Schedule] = st.one_of(
    st.builds(Daily, TIMES),
    st.builds(Weekly, st.frozensets(st.integers(0, 6), min_size=1), TIMES, st.integers(1, 5)),
    st.builds(
        Hourly,
        st.integers(0, 23).map(time),
        st.integers(1, 288).map(lambda fives: timedelta(minutes=5 * fives)),
        st.integers(0, 24).map(lambda hours: timedelta(hours=hours)),
    ),
    st.builds(Interval, st.integers(5, 10_000).map(lambda minutes: timedelta(minutes=minutes))),
)


def first(schedule: Schedule, after: datetime, rules: ZoneInfo, count: int = 3) -> list[str]:
    return [run.strftime("%Y-%m-%d %H:%M") for run in islice(schedule.runs(after, rules), count)]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_every_day_at_the_same_time_of_the_clocks_there() -> None:
    runs = first(Daily((time(22, 30),)), utc("2026-03-27 21:29"), BERLIN, 4)

    # clocks are set forward on the 29th
    assert runs == ["2026-03-27 21:30", "2026-03-28 21:30", "2026-03-29 20:30", "2026-03-30 20:30"]


def test_a_time_that_never_comes_is_the_moment_at_which_clocks_are_set_forward() -> None:
    assert first(Daily((time(2, 30),)), utc("2026-03-28 12:00"), BERLIN, 2) == ["2026-03-29 01:00", "2026-03-30 00:30"]


def test_times_that_never_come_are_one_run() -> None:
    assert first(Daily((time(2, 10), time(2, 50))), utc("2026-03-28 12:00"), BERLIN, 2) == [
        "2026-03-29 01:00",
        "2026-03-30 00:10",
    ]


def test_a_time_that_comes_twice_is_one_run() -> None:
    assert first(Daily((time(2, 30),)), utc("2026-10-24 12:00"), BERLIN, 2) == ["2026-10-25 00:30", "2026-10-26 01:30"]


def test_a_day_that_never_came() -> None:
    """Samoa went from the 29th to the 31st of December 2011."""
    apia = ZoneInfo("Pacific/Apia")

    assert first(Daily((time(12),)), utc("2011-12-29 23:00"), apia, 3) == [
        "2011-12-30 10:00",  # the first moment of the 31st stands for the noon of the 30th
        "2011-12-30 22:00",
        "2011-12-31 22:00",
    ]


def test_every_second_week() -> None:
    schedule = Weekly(frozenset({6, 2}), (time(1),), every=2, anchor=date(2026, 11, 26))

    assert first(schedule, utc("2026-11-20 00:00"), ZoneInfo("UTC"), 4) == [
        "2026-11-22 01:00",
        "2026-11-25 01:00",
        "2026-12-06 01:00",
        "2026-12-09 01:00",
    ]


def test_hours_of_a_window_with_both_its_ends() -> None:
    schedule = Hourly(time(8), timedelta(hours=4), timedelta(hours=12))

    assert first(schedule, utc("2026-06-01 07:59"), ZoneInfo("UTC"), 5) == [
        "2026-06-01 08:00",
        "2026-06-01 12:00",
        "2026-06-01 16:00",
        "2026-06-01 20:00",
        "2026-06-02 08:00",
    ]


def test_a_window_that_lasts_into_the_next_day() -> None:
    schedule = Hourly(time(20), timedelta(hours=6), timedelta(hours=12))

    assert first(schedule, utc("2026-06-01 21:00"), ZoneInfo("UTC"), 3) == [
        "2026-06-02 02:00",
        "2026-06-02 08:00",
        "2026-06-02 20:00",
    ]


def test_an_interval_is_the_same_on_every_server() -> None:
    schedule = Interval(timedelta(minutes=15))

    assert first(schedule, utc("2026-06-01 07:59"), BERLIN, 2) == ["2026-06-01 08:00", "2026-06-01 08:15"]


@given(SCHEDULES, MOMENTS, ZONES)
def test_runs_come_in_order_each_once_and_later(schedule: Schedule, after: datetime, rules: ZoneInfo) -> None:
    runs = list(islice(schedule.runs(after, rules), 40))

    assert len(runs) == 40
    assert runs[0] > after
    assert all(earlier < later for earlier, later in pairwise(runs))
    assert all(run.tzinfo is UTC for run in runs)


@given(SCHEDULES, MOMENTS, ZONES, st.integers(0, 20))
def test_who_asks_later_gets_the_same_runs(schedule: Schedule, after: datetime, rules: ZoneInfo, seen: int) -> None:
    """So a server that was away for a while misses none."""
    runs = list(islice(schedule.runs(after, rules), seen + 20))

    assert list(islice(schedule.runs(runs[seen], rules), 19)) == runs[seen + 1 :]


@given(
    st.datetimes(datetime(1990, 1, 1), datetime(2037, 1, 1)).map(lambda moment: moment.replace(microsecond=0)), ZONES
)
def test_an_instant_is_the_first_moment_at_which_clocks_show_as_much(local: datetime, rules: ZoneInfo) -> None:
    moment = instant(local, rules)

    assert moment.astimezone(rules).replace(tzinfo=None) >= local
    assert (moment - timedelta(seconds=1)).astimezone(rules).replace(tzinfo=None) < local


@pytest.mark.parametrize(
    ("name", "iana"),
    [
        ("UTC", "Etc/UTC"),
        ("Pacific Standard Time", "America/Los_Angeles"),
        ("w. europe standard time", "Europe/Berlin"),
        ("Asia/Kolkata", "Asia/Kolkata"),
    ],
)
def test_zones_have_windows_names_and_others(name: str, iana: str) -> None:
    assert zone(name).key == iana


@pytest.mark.parametrize(
    "name", ["", "Nowhere", "../etc/passwd", "/etc/passwd", "Europe", "a\0b", "Europe/" + "x" * 9000]
)
def test_what_is_no_zone(name: str) -> None:
    with pytest.raises(InvalidPolicy, match="no time zone is called") as raised:
        zone(name)
    assert raised.value.target == "properties.timeZone"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Daily(()),
        lambda: Daily((time(1), time(1))),
        lambda: Daily((time(1), time(1, 4))),
        lambda: Weekly(frozenset(), (time(1),)),
        lambda: Weekly(frozenset({7}), (time(1),)),
        lambda: Weekly(frozenset({1}), (time(1),), every=0),
        lambda: Hourly(time(1), timedelta(minutes=4), timedelta(hours=1)),
        lambda: Hourly(time(1), timedelta(hours=25), timedelta(hours=1)),
        lambda: Hourly(time(1), timedelta(hours=1), timedelta(hours=25)),
        lambda: Interval(timedelta(minutes=4)),
        lambda: Interval(timedelta(days=400)),
    ],
)
def test_schedules_that_cannot_be(make: object) -> None:
    assert callable(make)
    with pytest.raises(InvalidPolicy) as raised:
        make()
    assert raised.value.target.startswith("schedulePolicy.")


@given(SCHEDULES, MOMENTS)
def test_no_two_runs_are_further_apart_than_the_longest_gap(schedule: Schedule, after: datetime) -> None:
    """By clocks that nobody sets; and two of any period are as far apart."""
    runs = islice(schedule.runs(after, ZoneInfo("UTC")), 300)
    gaps = {later - earlier for earlier, later in pairwise(runs)}
    assert max(gaps) <= longest_gap(schedule)
    if not isinstance(schedule, Hourly) or schedule.interval >= timedelta(minutes=15):  # else a day has more runs
        assert max(gaps) == longest_gap(schedule)


def test_windows_names_are_zones() -> None:
    assert {"UTC", "W. Europe Standard Time"} <= set(windows_names())
    assert all(zone(name) for name in windows_names())
