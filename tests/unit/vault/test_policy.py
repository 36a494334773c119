# SPDX-License-Identifier: Apache-2.0
"""Which policies can be carried out, and what a change of one would do."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from itertools import islice

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
    Schedule,
    Unit,
    Weekly,
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


def test_all_types_of_backup_make_points() -> None:
    """Each moment once; the gap is that of the part that runs most often."""
    parts = (part(BackupType.FULL), part(BackupType.LOG, Interval(timedelta(hours=1))))
    policy = Policy(name="sql", management=Management.WORKLOAD, parts=parts)
    runs = list(islice(policy.runs(datetime(2026, 1, 1, 0, 30, tzinfo=UTC)), 26))
    assert runs == [datetime(2026, 1, 1, 1, tzinfo=UTC) + timedelta(hours=hour) for hour in range(26)]
    assert policy.longest_gap == timedelta(hours=1)
    assert Policy(name="w", management=Management.VM, parts=(part(BackupType.FULL, SUNDAYS),)).longest_gap.days == 7
