# SPDX-License-Identifier: Apache-2.0
"""Whether an item is protected, as its restorable points say, and not as its jobs claim."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from keepstone.vault.schedule import Schedule

__all__ = ["Health", "health", "last_runs"]


class Health(StrEnum):
    """Azure's words for an item's protection status."""

    PENDING = "IRPending"
    HEALTHY = "Healthy"
    UNHEALTHY = "Unhealthy"


def health(newest: datetime | None, schedule: Schedule | None, rules: ZoneInfo, now: datetime) -> Health:
    """`newest`: when its newest point was made. One run may be missed, or take until the next one: an item is unhealthy
    when the second run after its newest point has passed. Without a schedule a point does not grow too old."""
    if newest is None:
        return Health.PENDING
    if schedule is None:
        return Health.HEALTHY
    runs = schedule.runs(newest, rules)
    next(runs, None)
    second = next(runs, None)
    return Health.UNHEALTHY if second is not None and second < now else Health.HEALTHY


def last_runs(schedule: Schedule, rules: ZoneInfo, now: datetime) -> tuple[datetime, datetime]:
    """The two runs before `now` that were the last, the earlier one first: an item whose newest point is older than
    that one is unhealthy. So a database can count items without asking `health` of each."""
    window = timedelta(days=1)
    while True:
        found: list[datetime] = []
        for run in schedule.runs(now - window, rules):
            if run >= now:
                break
            found = [*found[-1:], run]
        if len(found) == 2:
            return found[0], found[1]
        window *= 2
