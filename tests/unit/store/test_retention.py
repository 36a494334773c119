# SPDX-License-Identifier: Apache-2.0
"""Rules of retention keep what they say, of each item by itself."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepstone.errors import UsageError
from keepstone.store.retention import Retention, Stamp, retained

pytestmark = pytest.mark.store


def at(text: str, item: str = "a") -> Stamp:
    """A point named after its time."""
    moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
    return Stamp(f"{item} {text}", item, int(moment.timestamp()) * 10**9)


def names(kept: dict[str, list[str]]) -> set[str]:
    return {name.removeprefix("a ") for name in kept}


def test_newest_of_each_day_is_kept() -> None:
    points = [at("2024-03-01 23:59:59"), at("2024-03-02 00:00:00"), at("2024-03-02 12:00"), at("2024-03-05 01:00")]

    assert names(retained(points, Retention(daily=2))) == {"2024-03-02 12:00", "2024-03-05 01:00"}
    assert names(retained(points, Retention(daily=3))) == {
        "2024-03-01 23:59:59",
        "2024-03-02 12:00",
        "2024-03-05 01:00",
    }


def test_weeks_begin_on_monday_and_run_over_new_year() -> None:
    points = [at("2024-12-29"), at("2024-12-30"), at("2025-01-01"), at("2025-01-05"), at("2025-01-06")]

    kept = retained(points, Retention(weekly=9))

    assert names(kept) == {"2024-12-29", "2025-01-05", "2025-01-06"}


def test_months_and_years() -> None:
    points = [at("2022-12-31"), at("2023-01-01"), at("2023-01-31"), at("2023-02-01"), at("2024-02-29")]

    assert names(retained(points, Retention(monthly=3))) == {"2023-01-31", "2023-02-01", "2024-02-29"}
    assert names(retained(points, Retention(yearly=2))) == {"2023-02-01", "2024-02-29"}


def test_reasons_name_every_rule() -> None:
    points = [at("2024-01-01"), at("2024-01-02")]

    assert retained(points, Retention(last=1, daily=2, yearly=1)) == {
        "a 2024-01-02": ["last", "daily", "yearly"],
        "a 2024-01-01": ["daily"],
    }


def test_each_item_stands_for_itself() -> None:
    old = [at("2001-01-01", "old"), at("2001-01-02", "old")]
    new = [at(f"2024-01-{day:02}") for day in range(1, 31)]

    kept = retained([*old, *new], Retention(last=1, daily=1))

    assert set(kept) == {"old 2001-01-02", "a 2024-01-30"}


def test_item_that_is_no_longer_backed_up_keeps_what_it_has() -> None:
    points = [at("1999-12-30"), at("1999-12-31")]

    assert names(retained(points, Retention(daily=7))) == {"1999-12-30", "1999-12-31"}


@pytest.mark.parametrize("counts", [{}, {"daily": 0}, {"daily": -1, "last": 2}])
def test_rule_that_keeps_nothing_is_refused(counts: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        Retention(**counts)


counts = st.integers(0, 6)


@given(st.lists(st.integers(0, 3000), max_size=60), counts, counts, counts, counts, counts, st.randoms())
def test_whatever_the_rules(
    hours: list[int], last: int, daily: int, weekly: int, monthly: int, yearly: int, chance: random.Random
) -> None:
    if not any((last, daily, weekly, monthly, yearly)):
        last = 1
    rules = Retention(last=last, daily=daily, weekly=weekly, monthly=monthly, yearly=yearly)
    begin = datetime(2023, 12, 20, tzinfo=UTC)
    stamps = [
        Stamp(f"{index}", "a", int((begin + timedelta(hours=hour)).timestamp()) * 10**9)
        for index, hour in enumerate(hours)
    ]

    kept = retained(stamps, rules)

    shuffled = stamps[:]
    chance.shuffle(shuffled)
    assert retained(shuffled, rules) == kept  # the order in which points are given says nothing
    survivors = [stamp for stamp in stamps if stamp.id in kept]
    assert retained(survivors, rules) == kept  # what was kept once is kept by the same rules again
    if stamps:
        assert max(stamps, key=lambda stamp: (stamp.time, stamp.id)).id in kept
    reasons = [reason for rules_ in kept.values() for reason in rules_]
    for rule in ("last", "daily", "weekly", "monthly", "yearly"):
        assert reasons.count(rule) <= getattr(rules, rule)
    assert reasons.count("last") == min(last, len(stamps))
