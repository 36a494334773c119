# SPDX-License-Identifier: Apache-2.0
"""When the items of a policy are due: one row for each part of the policy of each item."""

from __future__ import annotations

from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from keepstone.catalogue import first, items, policies, schedules
from keepstone.control.plane import Change
from keepstone.jobs import Plans
from keepstone.vault import BackupType, Item, Policy, Schedule, StoredPolicy, read_policy, zone

__all__ = ["ItemPlans", "drop", "plan"]


def plan(change: Change, item: Item, policy: Policy) -> None:
    """Make the item's schedule anew."""
    drop(change, item)
    now = change.now
    for part in policy.parts:
        due = next(part.schedule.runs(now, zone(policy.zone)), None)
        if due is not None:
            row = {"item": item.id, "part": str(part.type), "vault": item.vault, "due": due}
            change.connection.execute(schedules.insert().values(**row))


def drop(change: Change, item: Item) -> None:
    """It is not due any more."""
    change.connection.execute(schedules.delete().where(schedules.c.item == item.id))


class ItemPlans(Plans):
    """What the scheduler asks: the schedule of an item's policy as it is now."""

    def schedule(self, connection: sa.Connection, item: UUID, part: str) -> tuple[Schedule, ZoneInfo] | None:
        query = sa.select(items.c.policy).where(items.c.id == item, items.c.deleted.is_(None))
        identity = connection.execute(query).scalar()
        stored = first(connection, StoredPolicy, policies.c.id == identity) if identity is not None else None
        if stored is None:
            return None
        policy = read_policy(stored.name, stored.properties)
        found = policy.part(BackupType(part))
        return None if found is None else (found.schedule, zone(policy.zone))
