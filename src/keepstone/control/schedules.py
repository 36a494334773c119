# SPDX-License-Identifier: Apache-2.0
"""When the items of a policy are due: one row for each part of the policy of each item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

import sqlalchemy as sa

from keepstone.catalogue import containers, every, items, policies, schedules
from keepstone.control import agents
from keepstone.control.jobs import about
from keepstone.control.plane import Change
from keepstone.jobs import Plan, Plans
from keepstone.vault import Container, Item, Policy, StoredPolicy, read_policy, zone

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
    """What the scheduler asks: the schedules of items' policies as they are now."""

    def of(self, connection: sa.Connection, parts: Sequence[tuple[UUID, str]]) -> Mapping[tuple[UUID, str], Plan]:
        wanted = items.c.id.in_({item for item, _ in parts}), items.c.policy.is_not(None), items.c.deleted.is_(None)
        found = every(connection, Item, *wanted)
        stored = every(connection, StoredPolicy, policies.c.id.in_({item.policy for item in found}))
        known = {policy.id: read_policy(policy.name, policy.properties) for policy in stored}
        held = every(connection, Container, containers.c.id.in_({item.container for item in found}))
        holders = {container.id: container for container in held}
        machines = agents.machines_of(connection, held)
        return {
            (item.id, str(part.type)): Plan(
                part.schedule, zone(policy.zone), about(holders[item.container], item), machines[item.container]
            )
            for item in found
            if item.policy is not None
            for policy in [known[item.policy]]
            for part in policy.parts
        }
