# SPDX-License-Identifier: Apache-2.0
"""Policies as clients send them: what they mean, and what is wrong with them."""

from __future__ import annotations

import copy
from datetime import date, time, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepstone.errors import InvalidPolicy
from keepstone.vault import (
    BackupType,
    Daily,
    Days,
    Duration,
    Hourly,
    Interval,
    Management,
    Policy,
    Retention,
    Rule,
    Unit,
    WeekDays,
    Weekly,
    read_policy,
)

pytestmark = pytest.mark.service

AT = "2022-05-13T16:00:00Z"
MONTH: dict[str, Any] = {"count": 30, "durationType": "Days"}
DAILY: dict[str, Any] = {"retentionTimes": [AT], "retentionDuration": MONTH}
# What Azure puts into a new vault.
DEFAULT: dict[str, Any] = {
    "backupManagementType": "AzureIaasVM",
    "instantRPDetails": {},
    "schedulePolicy": {
        "schedulePolicyType": "SimpleSchedulePolicy",
        "scheduleRunFrequency": "Daily",
        "scheduleRunTimes": [AT],
        "scheduleWeeklyFrequency": 0,
    },
    "retentionPolicy": {"retentionPolicyType": "LongTermRetentionPolicy", "dailySchedule": DAILY},
    "instantRpRetentionRangeInDays": 2,
    "timeZone": "UTC",
    "protectedItemsCount": 0,
}
ENHANCED: dict[str, Any] = DEFAULT | {
    "policyType": "V2",
    "schedulePolicy": {
        "schedulePolicyType": "SimpleSchedulePolicyV2",
        "scheduleRunFrequency": "Hourly",
        "hourlySchedule": {
            "interval": 4,
            "scheduleWindowStartTime": "2022-05-13T08:00:00Z",
            "scheduleWindowDuration": 12,
        },
    },
}
LOGS: dict[str, Any] = {
    "backupManagementType": "AzureWorkload",
    "workLoadType": "SQLDataBase",
    "settings": {"timeZone": "W. Europe Standard Time", "issqlcompression": False, "isCompression": False},
    "subProtectionPolicy": [
        {
            "policyType": "Full",
            "schedulePolicy": DEFAULT["schedulePolicy"],
            "retentionPolicy": DEFAULT["retentionPolicy"],
        },
        {
            "policyType": "Log",
            "schedulePolicy": {"schedulePolicyType": "LogSchedulePolicy", "scheduleFrequencyInMins": 60},
            "retentionPolicy": {"retentionPolicyType": "SimpleRetentionPolicy", "retentionDuration": MONTH},
        },
    ],
}
KEPT = Retention(daily=Duration(30, Unit.DAYS))


def changed(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with another value at this path; `None` removes it."""
    whole: Any = copy.deepcopy(document)
    at: Any = whole
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in way:
        at = at[part]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return dict(whole)


def only(policy: Policy) -> tuple[Any, Any]:
    (part,) = policy.parts
    assert part.type is BackupType.FULL
    return part.schedule, part.retention


def test_what_is_in_a_new_vault() -> None:
    policy = read_policy("DefaultPolicy", DEFAULT)

    assert only(policy) == (Daily((time(16),)), KEPT)
    assert (policy.management, policy.zone, policy.snapshot_days) == (Management.VM, "UTC", 2)
    assert only(read_policy("EnhancedPolicy", ENHANCED))[0] == Hourly(time(8), timedelta(hours=4), timedelta(hours=12))
    logs = read_policy("HourlyLogBackup", LOGS)
    assert logs.zone == "W. Europe Standard Time"
    assert [(part.type, part.schedule, part.retention) for part in logs.parts] == [
        (BackupType.FULL, Daily((time(16),)), KEPT),
        (BackupType.LOG, Interval(timedelta(minutes=60)), KEPT),
    ]


def test_weeks() -> None:
    weekly = {
        "schedulePolicyType": "SimpleSchedulePolicy",
        "scheduleRunFrequency": "Weekly",
        "scheduleRunDays": ["Sunday", "wednesday"],
        "scheduleRunTimes": ["2026-11-26T22:30:00+00:00"],
        "scheduleWeeklyFrequency": 2,
    }
    policy = read_policy("p", changed(DEFAULT, "schedulePolicy", weekly))

    assert only(policy)[0] == Weekly(frozenset({6, 2}), (time(22, 30),), 2, date(2026, 11, 26))


def test_the_second_kind_of_schedule() -> None:
    base = {"schedulePolicyType": "SimpleSchedulePolicyV2"}
    daily = base | {"scheduleRunFrequency": "Daily", "dailySchedule": {"scheduleRunTimes": [AT]}}
    weekly = base | {
        "scheduleRunFrequency": "Weekly",
        "weeklySchedule": {"scheduleRunDays": ["Friday"], "scheduleRunTimes": [AT]},
    }

    assert only(read_policy("p", changed(ENHANCED, "schedulePolicy", daily)))[0] == Daily((time(16),))
    assert only(read_policy("p", changed(ENHANCED, "schedulePolicy", weekly)))[0] == Weekly(
        frozenset({4}), (time(16),), 1, date(2022, 5, 13)
    )


def test_every_kind_of_retention() -> None:
    retention = {
        "retentionPolicyType": "LongTermRetentionPolicy",
        "dailySchedule": None,
        "weeklySchedule": {
            "daysOfTheWeek": ["Sunday"],
            "retentionTimes": [AT],
            "retentionDuration": {"count": 12, "durationType": "Weeks"},
        },
        "monthlySchedule": {
            "retentionScheduleFormatType": "Weekly",
            "retentionScheduleWeekly": {"daysOfTheWeek": ["Sunday"], "weeksOfTheMonth": ["First", "Last"]},
            "retentionDuration": {"count": 60, "durationType": "Months"},
        },
        "yearlySchedule": {
            "retentionScheduleFormatType": "Daily",
            "monthsOfYear": ["January", "July"],
            "retentionScheduleDaily": {"daysOfTheMonth": [{"date": 1, "isLast": False}, {"date": 0, "isLast": True}]},
            "retentionDuration": {"count": 10, "durationType": "Years"},
        },
    }

    assert only(read_policy("p", changed(DEFAULT, "retentionPolicy", retention)))[1] == Retention(
        weekly=Rule(Duration(12, Unit.WEEKS), weekdays=frozenset({6}), at=time(16)),
        monthly=Rule(Duration(60, Unit.MONTHS), days=WeekDays(frozenset({6}), frozenset({0, 1}))),
        yearly=Rule(Duration(10, Unit.YEARS), days=Days(frozenset({0, 1})), months=frozenset({1, 7})),
    )


@pytest.mark.parametrize(
    ("document", "path", "value", "target"),
    [
        (DEFAULT, "backupManagementType", "AzureSql", "properties.backupManagementType"),
        (DEFAULT, "backupManagementType", None, "properties.backupManagementType"),
        (DEFAULT, "schedulePolicy", None, "properties.schedulePolicy"),
        (DEFAULT, "schedulePolicy", [], "properties.schedulePolicy"),
        (DEFAULT, "schedulePolicy.schedulePolicyType", "X", "properties.schedulePolicy.schedulePolicyType"),
        (DEFAULT, "schedulePolicy.scheduleRunFrequency", 7, "properties.schedulePolicy.scheduleRunFrequency"),
        (DEFAULT, "schedulePolicy.scheduleRunTimes", [], "properties.schedulePolicy.scheduleRunTimes"),
        (DEFAULT, "schedulePolicy.scheduleRunTimes", ["noon"], "properties.schedulePolicy.scheduleRunTimes"),
        (DEFAULT, "schedulePolicy.scheduleRunTimes", "noon", "properties.schedulePolicy.scheduleRunTimes"),
        (DEFAULT, "schedulePolicy.scheduleRunTimes", [AT] * 2000, "properties.schedulePolicy.scheduleRunTimes"),
        (DEFAULT, "timeZone", "Nowhere", "properties.timeZone"),
        (DEFAULT, "timeZone", 5, "properties.timeZone"),
        (DEFAULT, "instantRpRetentionRangeInDays", 99, "properties.instantRpRetentionRangeInDays"),
        (DEFAULT, "retentionPolicy.dailySchedule", None, "properties.retentionPolicy"),
        (
            DEFAULT,
            "retentionPolicy.dailySchedule.retentionDuration.count",
            0,
            "properties.retentionPolicy.dailySchedule.retentionDuration.count",
        ),
        (
            DEFAULT,
            "retentionPolicy.dailySchedule.retentionDuration.count",
            True,
            "properties.retentionPolicy.dailySchedule.retentionDuration.count",
        ),
        (
            DEFAULT,
            "retentionPolicy.dailySchedule.retentionDuration.durationType",
            "Hours",
            "properties.retentionPolicy.dailySchedule.retentionDuration.durationType",
        ),
        (ENHANCED, "schedulePolicy.hourlySchedule.interval", 99, "properties.schedulePolicy.hourlySchedule.interval"),
        (LOGS, "subProtectionPolicy", [], "properties.subProtectionPolicy"),
        (LOGS, "subProtectionPolicy.1.policyType", "Full", "properties.subProtectionPolicy"),
        (LOGS, "subProtectionPolicy.1.policyType", "?", "properties.subProtectionPolicy[1].policyType"),
        (
            LOGS,
            "subProtectionPolicy.1.schedulePolicy.scheduleFrequencyInMins",
            3,
            "properties.subProtectionPolicy[1].schedulePolicy.scheduleFrequencyInMins",
        ),
        (
            LOGS,
            "subProtectionPolicy.0.retentionPolicy.dailySchedule.retentionDuration.count",
            99999,
            "properties.subProtectionPolicy[0].retentionPolicy.dailySchedule.retentionDuration.count",
        ),
    ],
)
def test_what_is_wrong_is_named(document: dict[str, Any], path: str, value: Any, target: str) -> None:
    with pytest.raises(InvalidPolicy) as raised:
        read_policy("p", changed(document, path, value))
    assert raised.value.target == target


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


@st.composite
def mangled(draw: st.DrawFn) -> dict[str, Any]:
    """A good policy in which something somewhere was replaced by something else."""
    document: Any = copy.deepcopy(draw(st.sampled_from([DEFAULT, ENHANCED, LOGS])))
    at: Any = document
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = draw(st.sampled_from(keys))
        if not at[key] or not isinstance(at[key], dict | list) or draw(st.booleans()):
            at[key] = draw(JSON)
            return dict(document)
        at = at[key]


@given(mangled())
def test_any_document_is_a_policy_or_says_what_is_wrong(document: dict[str, Any]) -> None:
    try:
        policy = read_policy("p", document)
    except InvalidPolicy as error:
        assert error.target.startswith("properties")
        assert str(error)
    else:
        assert policy.parts
