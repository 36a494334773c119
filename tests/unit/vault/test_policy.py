# SPDX-License-Identifier: Apache-2.0
"""Which policies can be carried out, and what a change of one would do."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from keepstone.errors import InvalidPolicy
from keepstone.vault import (
    BackupType,
    Daily,
    Duration,
    Interval,
    Management,
    Part,
    Policy,
    Retention,
    Rule,
    Schedule,
    Unit,
    Weekly,
    what_if,
)

pytestmark = pytest.mark.service

MONTH = Retention(daily=Duration(30, Unit.DAYS))
DAILY = Daily((time(1),))
SUNDAYS = Weekly(frozenset({6}), (time(1),))
WORKDAYS = Weekly(frozenset(range(5)), (time(1),))
OFTEN = Interval(timedelta(minutes=15))


def part(kind: BackupType, schedule: Schedule = DAILY) -> Part:
    return Part(kind, schedule, MONTH)


def test_a_database_has_several_types_of_backup() -> None:
    policy = Policy(
        name="sql",
        management=Management.WORKLOAD,
        parts=(
            part(BackupType.FULL, SUNDAYS),
            part(BackupType.DIFFERENTIAL, WORKDAYS),
            part(BackupType.LOG, OFTEN),
        ),
    )

    log = policy.part(BackupType.LOG)
    assert log is not None
    assert log.schedule == OFTEN
    assert policy.part(BackupType.INCREMENTAL) is None


@pytest.mark.parametrize(
    ("management", "parts", "message"),
    [
        (Management.VM, (), "needs full backups"),
        (Management.WORKLOAD, (part(BackupType.LOG, OFTEN),), "needs full backups"),
        (Management.WORKLOAD, (part(BackupType.FULL), part(BackupType.FULL)), "each type of backup once"),
        (Management.VM, (part(BackupType.FULL), part(BackupType.LOG, OFTEN)), "full backups only"),
        (Management.WORKLOAD, (part(BackupType.FULL), part(BackupType.DIFFERENTIAL, WORKDAYS)), "weekly full"),
        (
            Management.WORKLOAD,
            (part(BackupType.FULL, SUNDAYS), part(BackupType.DIFFERENTIAL, SUNDAYS)),
            "cannot fall on one day",
        ),
        (
            Management.WORKLOAD,
            (part(BackupType.FULL, SUNDAYS), part(BackupType.INCREMENTAL)),
            "cannot fall on one day",
        ),
        (
            Management.WORKLOAD,
            (
                part(BackupType.FULL, SUNDAYS),
                part(BackupType.DIFFERENTIAL, WORKDAYS),
                part(BackupType.INCREMENTAL, WORKDAYS),
            ),
            "either differential or incremental",
        ),
        (Management.WORKLOAD, (part(BackupType.FULL), part(BackupType.LOG)), "at an interval"),
    ],
)
def test_policies_that_cannot_be(management: Management, parts: tuple[Part, ...], message: str) -> None:
    with pytest.raises(InvalidPolicy, match=message) as raised:
        Policy(name="p", management=management, parts=parts)
    assert raised.value.target.startswith("properties.")


def test_zone_and_snapshots_are_checked() -> None:
    full = (part(BackupType.FULL),)
    with pytest.raises(InvalidPolicy, match="no time zone"):
        Policy(name="p", management=Management.VM, parts=full, zone="Nowhere")
    with pytest.raises(InvalidPolicy, match="snapshots cannot stay for 31 days"):
        Policy(name="p", management=Management.VM, parts=full, snapshot_days=31)


def test_what_a_change_would_do() -> None:
    now = datetime(2026, 11, 26, 12, tzinfo=UTC)
    points = {f"{age} days": now - timedelta(days=age) for age in (1, 4, 20, 40)}
    old = Retention(daily=Duration(30, Unit.DAYS))
    new = Retention(daily=Duration(7, Unit.DAYS), weekly=Rule(Duration(52, Unit.WEEKS), weekdays=frozenset({6})))

    outcome = what_if(old, new, points, ZoneInfo("UTC"), now)

    # each is alone in its week, but for the first two: those of Wednesday and Sunday of one
    assert [change.point for change in outcome.changes] == ["40 days", "20 days", "4 days", "1 days"]
    assert outcome.lost == []
    assert outcome.lengthened == ["40 days", "20 days", "4 days"]
    assert outcome.shortened == ["1 days"]


def test_a_lock_outlasts_a_shorter_policy() -> None:
    now = datetime(2026, 11, 26, tzinfo=UTC)
    points = {"locked": now - timedelta(days=10), "free": now - timedelta(days=11)}
    lock = now + timedelta(days=5)

    outcome = what_if(
        Retention(daily=Duration(30, Unit.DAYS)),
        Retention(daily=Duration(7, Unit.DAYS)),
        points,
        ZoneInfo("UTC"),
        now,
        locks={"locked": lock},
    )

    assert outcome.lost == ["free"]
    assert outcome.shortened == ["locked"]
    assert outcome.changes[1].until_after == lock
