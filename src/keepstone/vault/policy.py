# SPDX-License-Identifier: Apache-2.0
"""A policy: for each type of backup when it is made and how long it is kept.

Most datasources have one type, `Full`; databases have up to four, which depend on one another. The rules between them
are Azure's (differential and incremental backups stand on a full one, logs on any), for a chain that breaks them
cannot be restored. Azure's limits on numbers are not kept.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import groupby

from keepstone.errors import InvalidPolicy
from keepstone.vault.retention import Retention
from keepstone.vault.schedule import Daily, Interval, Schedule, Weekly, longest_gap
from keepstone.vault.zones import zone

__all__ = ["BackupType", "Management", "Part", "Policy"]


class Management(StrEnum):
    """Azure's backupManagementType: who looks after a kind of datasource."""

    VM = "AzureIaasVM"
    AGENT = "MAB"
    WORKLOAD = "AzureWorkload"


class BackupType(StrEnum):
    """Azure's policyType of a part."""

    FULL = "Full"
    DIFFERENTIAL = "Differential"
    INCREMENTAL = "Incremental"
    LOG = "Log"


@dataclass(frozen=True, slots=True)
class Part:
    """One type of backup."""

    type: BackupType
    schedule: Schedule
    retention: Retention


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """`zone`: the time zone of all its times, by its name. `snapshot_days`: how long snapshots stay where the data is;
    None where there are none. `drill_days`: a restore drill is due so many days after the last one; None for none."""

    name: str
    management: Management
    parts: tuple[Part, ...]
    zone: str = "UTC"
    snapshot_days: int | None = None
    drill_days: int | None = None

    def __post_init__(self) -> None:
        zone(self.zone)
        types = [part.type for part in self.parts]
        if len(types) != len(set(types)):
            raise InvalidPolicy("a policy has each type of backup once", target="properties.subProtectionPolicy")
        if BackupType.FULL not in types:
            raise InvalidPolicy(
                "a policy needs full backups: all others stand on them", target="properties.subProtectionPolicy"
            )
        if self.management is not Management.WORKLOAD and len(types) > 1:
            raise InvalidPolicy(
                f"items of {self.management} have full backups only", target="properties.subProtectionPolicy"
            )
        if self.snapshot_days is not None and not 1 <= self.snapshot_days <= 30:
            raise InvalidPolicy(
                f"snapshots cannot stay for {self.snapshot_days} days; choose 1 to 30",
                target="properties.instantRpRetentionRangeInDays",
            )
        if self.drill_days is not None and (self.management is not Management.VM or not 1 <= self.drill_days <= 366):
            raise InvalidPolicy(
                f"a drill every {self.drill_days} days is none that can be; choose 1 to 366, in a policy of "
                f"{Management.VM}",
                target="properties.keepstone.drillEveryDays",
            )
        self._check_chain()

    def part(self, kind: BackupType) -> Part | None:
        """The part of this type."""
        return next((part for part in self.parts if part.type is kind), None)

    def runs(self, after: datetime) -> Iterator[datetime]:
        """Every moment later than `after` at which it makes a point of any type, in order, in UTC."""
        rules = zone(self.zone)
        moments = heapq.merge(*(part.schedule.runs(after, rules) for part in self.parts))
        return (moment for moment, _ in groupby(moments))

    @property
    def longest_gap(self) -> timedelta:
        """No two points are made further apart than this, where every run makes one."""
        return min(longest_gap(part.schedule) for part in self.parts)

    def _check_chain(self) -> None:
        full, log = self.part(BackupType.FULL), self.part(BackupType.LOG)
        between = [part for part in self.parts if part.type in (BackupType.DIFFERENTIAL, BackupType.INCREMENTAL)]
        if len(between) > 1:
            raise InvalidPolicy(
                "a policy has either differential or incremental backups", target="properties.subProtectionPolicy"
            )
        for part in between:
            if full is None or not isinstance(full.schedule, Weekly):
                raise InvalidPolicy(
                    f"{part.type.lower()} backups go with weekly full ones; a daily full backup makes them pointless",
                    target="properties.subProtectionPolicy",
                )
            if isinstance(part.schedule, Daily) or (
                isinstance(part.schedule, Weekly) and part.schedule.days & full.schedule.days
            ):
                raise InvalidPolicy(
                    f"a full and a {part.type.lower()} backup cannot fall on one day; choose other days of the week",
                    target="properties.subProtectionPolicy",
                )
        if log is not None and not isinstance(log.schedule, Interval):
            raise InvalidPolicy("logs are backed up at an interval", target="properties.subProtectionPolicy")
