# SPDX-License-Identifier: Apache-2.0
"""A policy goes through its form and comes out as it was; what is filled in comes out as Azure writes it; words and the
calendar of a what-if."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from keepstone.errors import InvalidRequest
from keepstone.portal.policies import calendar, form, words
from keepstone.vault import default_policies, read_policy

pytestmark = pytest.mark.portal

TODAY = date(2026, 11, 26)
DEFAULTS = default_policies(datetime(2026, 3, 1, tzinfo=UTC))


def rule(count: int, unit: str, **more: Any) -> dict[str, Any]:
    return {"retentionDuration": {"count": count, "durationType": unit}, **more}


def by_week(*weeks: str) -> dict[str, Any]:
    week = {"daysOfTheWeek": ["Sunday", "Friday"], "weeksOfTheMonth": list(weeks)}
    return {"retentionScheduleFormatType": "Weekly", "retentionScheduleWeekly": week}


RICH: dict[str, dict[str, Any]] = {
    "every second week": {
        "backupManagementType": "MAB",
        "timeZone": "W. Europe Standard Time",
        "schedulePolicy": {
            "schedulePolicyType": "SimpleSchedulePolicy",
            "scheduleRunFrequency": "Weekly",
            "scheduleRunDays": ["Tuesday", "Saturday"],
            "scheduleRunTimes": ["2025-01-07T05:30:00Z", "2025-01-07T22:15:00Z"],
            "scheduleWeeklyFrequency": 2,
        },
        "retentionPolicy": {
            "retentionPolicyType": "LongTermRetentionPolicy",
            "weeklySchedule": rule(5, "Weeks", daysOfTheWeek=["Saturday"]),
            "monthlySchedule": rule(
                7,
                "Months",
                retentionScheduleFormatType="Daily",
                retentionScheduleDaily={"daysOfTheMonth": [{"date": 1, "isLast": False}, {"date": 0, "isLast": True}]},
            ),
            "yearlySchedule": rule(3, "Years", monthsOfYear=["January", "July"], **by_week("First", "Last")),
        },
    },
    "often": {
        "backupManagementType": "AzureIaasVM",
        "policyType": "V2",
        "timeZone": "UTC",
        "snapshotConsistencyType": "OnlyCrashConsistent",
        "instantRPDetails": {"azureBackupRGNamePrefix": "mine"},
        "instantRpRetentionRangeInDays": 7,
        "keepstone": {"drillEveryDays": 30},
        "schedulePolicy": {"schedulePolicyType": "LogSchedulePolicy", "scheduleFrequencyInMins": 15},
        "retentionPolicy": {
            "retentionPolicyType": "LongTermRetentionPolicy",
            "dailySchedule": rule(9, "Days", retentionTimes=["2026-01-01T11:00:00Z"]),
        },
    },
    "with differences": {
        "backupManagementType": "AzureWorkload",
        "workLoadType": "SQLDataBase",
        "settings": {"timeZone": "UTC", "issqlcompression": True, "isCompression": True},
        "subProtectionPolicy": [
            {
                "policyType": "Full",
                "schedulePolicy": {
                    "schedulePolicyType": "SimpleSchedulePolicy",
                    "scheduleRunFrequency": "Weekly",
                    "scheduleRunDays": ["Sunday"],
                    "scheduleRunTimes": ["2026-11-26T01:00:00Z"],
                    "scheduleWeeklyFrequency": 0,
                },
                "retentionPolicy": {
                    "retentionPolicyType": "LongTermRetentionPolicy",
                    "weeklySchedule": rule(9, "Weeks", daysOfTheWeek=["Sunday"]),
                },
            },
            {
                "policyType": "Differential",
                "schedulePolicy": {
                    "schedulePolicyType": "SimpleSchedulePolicy",
                    "scheduleRunFrequency": "Weekly",
                    "scheduleRunDays": ["Monday", "Wednesday"],
                    "scheduleRunTimes": ["2026-11-26T02:00:00Z"],
                    "scheduleWeeklyFrequency": 0,
                },
                "retentionPolicy": {"retentionPolicyType": "SimpleRetentionPolicy", **rule(11, "Days")},
            },
        ],
    },
}


@pytest.mark.parametrize("name", [*DEFAULTS, *RICH])
def test_a_policy_that_nobody_changes_stays_as_it_is(name: str) -> None:
    there = (DEFAULTS | RICH)[name]
    before = deepcopy(there)
    made = form.properties(form.filled(there), there, TODAY)
    assert made == before == there
    assert read_policy("p", made) == read_policy("p", there)


def test_what_a_new_form_has_is_a_policy() -> None:
    for kind in form.KINDS:
        made = form.properties({**form.filled(None), "kind": [kind]}, None, TODAY)
        assert read_policy("p", made).zone == "UTC"
    assert made["workLoadType"] == "SQLDataBase"


def test_a_rules_time_of_the_day_follows_the_schedule() -> None:
    """Where it was the schedule's; another one stays, and a rule that had none gets none."""
    there = deepcopy(DEFAULTS["DefaultPolicy"])
    kept = there["retentionPolicy"]
    kept["weeklySchedule"] = rule(2, "Weeks", daysOfTheWeek=["Sunday"], retentionTimes=["2026-03-01T09:00:00Z"])
    kept["yearlySchedule"] = rule(2, "Years", monthsOfYear=["May"], **by_week("First"))
    given = form.filled(there) | {"times": ["4:30"], "monthly": ["on"]}
    made = form.properties(given, there, TODAY)["retentionPolicy"]
    assert made["dailySchedule"]["retentionTimes"] == ["2026-03-01T04:30:00Z"]
    assert made["monthlySchedule"]["retentionTimes"] == ["2026-03-01T04:30:00Z"]
    assert made["weeklySchedule"]["retentionTimes"] == ["2026-03-01T09:00:00Z"]
    assert "retentionTimes" not in made["yearlySchedule"]


def test_a_machines_policy_changes_its_kind() -> None:
    there = DEFAULTS["DefaultPolicy"]
    given = {**form.filled(there), "kind": ["V2"], "snapshots": [""], "drill": ["14"]}
    made = form.properties(given, there, TODAY)
    assert (made["policyType"], made["keepstone"]) == ("V2", {"drillEveryDays": 14})
    assert made["schedulePolicy"]["dailySchedule"] == {"scheduleRunTimes": ["2026-03-01T16:00:00Z"]}
    assert "instantRpRetentionRangeInDays" not in made
    back = form.properties({**form.filled(made), "kind": ["V1"], "drill": [""]}, made, TODAY)
    assert "policyType" not in back
    assert "keepstone" not in back
    assert back["schedulePolicy"] == there["schedulePolicy"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"kind": ["x"]}, "what the policy is for"),
        ({"frequency": []}, "how often"),
        ({"times": ["24:00"]}, "'24:00' is no time"),
        ({"times": ["٠٨:٠٠"]}, "is no time"),
        ({"daily-count": ["many"]}, "'many' is no whole number"),
        ({"daily-count": [""]}, "no whole number"),
        ({"daily-count": ["9" * 5000]}, "no whole number"),
        ({"monthly": ["on"], "monthly-by": ["Daily"], "monthly-dates": ["1, first"]}, "'first'"),
        ({"frequency": ["Interval"], "minutes": ["-5"]}, "'-5'"),
    ],
)
def test_what_cannot_be_read_is_named(wrong: dict[str, list[str]], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        form.properties({**form.filled(None), **wrong}, None, TODAY)


def test_a_policy_in_words() -> None:
    two = RICH["every second week"]
    assert words.schedule(two) == "every 2 weeks on Tuesday and Saturday at 05:30 and 22:15"
    assert words.retention(two) == "weekly 5 weeks, monthly 7 months, yearly 3 years"
    assert words.said(two)["Keeps yearly"] == "3 years, of the first and last Sunday and Friday of January and July"
    assert words.said(two)["Keeps monthly"] == "7 months, of day 1 and the last day"
    assert words.schedule(DEFAULTS["EnhancedPolicy"]) == "every 4 hours from 08:00 for 12 hours"
    assert words.schedule(DEFAULTS["HourlyLogBackup"]) == "Full: daily at 16:00; Log: every 1 hour"
    assert words.said(RICH["often"])["Restore drills"] == "every 30 days"
    assert words.span(1 * 1440 + 2 * 60 + 1) == "1 day 2 hours 1 minute"


def test_a_calendar_has_every_point_once() -> None:
    first = date(2024, 1, 31)
    days: list[dict[str, Any]] = [
        {"date": (first + timedelta(days=number)).isoformat(), "kept": 1, "lost": number % 2, "shortened": 0,
         "lengthened": 0}
        for number in range(800)
    ]  # fmt: skip
    earlier = {"kept": 0, "lost": 7, "shortened": 0, "lengthened": 0}
    months, years = calendar.months(days), calendar.years(days, earlier)
    assert [one.first for one in months][:2] == [date(2026, 4, 1), date(2026, 3, 1)]
    cells = [day for month in months for week in month.weeks for day in week if day is not None]
    assert all(len(week) == 7 for month in months for week in month.weeks)
    assert all(week[day.day.weekday()] is day for month in months for week in month.weeks for day in week if day)
    assert {day.tone for day in cells if day.day.isoformat() <= days[-1]["date"]} == {"lost", "kept"}
    drawn = sum(count for day in cells for outcome, count in day.counts if outcome == "kept")
    told = sum(count for year in years for outcome, count in year.counts if outcome == "kept")
    assert drawn + told == 800
    assert years[-1] == calendar.Year("before", [("lost", 7)])
    assert [year.label for year in years] == ["2025", "2024", "before"]
