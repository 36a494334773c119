# SPDX-License-Identifier: Apache-2.0
"""What `vault.health` decides of one item, for many: as conditions that a database counts and finds them by.

It follows for all items of a policy from two moments, the last two runs before now (`vault.health.last_runs`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa

from keepstone.catalogue import every, items
from keepstone.catalogue import policies as stored
from keepstone.control import policies
from keepstone.control.items import PROTECTED
from keepstone.vault import Health, StoredPolicy, last_runs, zone

__all__ = ["is_of", "last_two"]

Moment = sa.ColumnElement[datetime]


def last_two(connection: sa.Connection, vaults: Collection[UUID], now: datetime) -> tuple[Moment, Moment]:
    """Of an item of these vaults, when its policy ran the last time but one and the last time before `now`; no moment
    where it has none."""
    is_used = sa.exists().where(items.c.policy == stored.c.id)
    runs = {}
    for one in every(connection, StoredPolicy, stored.c.vault.in_(vaults), is_used):
        said = policies.parsed(one)
        runs[one.id] = last_runs(said.parts[0].schedule, zone(said.zone), now)
    before, last = (_by_policy({policy: each[place] for policy, each in runs.items()}) for place in (0, 1))
    return before, last


def is_of(connection: sa.Connection, health: Health, vault: UUID, now: datetime) -> sa.ColumnElement[bool]:
    """Whether this is the health of an item of the vault. One that is deleted has none."""
    alive = items.c.deleted.is_(None)
    if health == Health.PENDING:
        return sa.and_(alive, items.c.newest.is_(None))
    before, _ = last_two(connection, [vault], now)
    # An item without a policy has no moment here, and is none of those whose points grow too old.
    is_old = sa.and_(items.c.state == PROTECTED, sa.func.coalesce(items.c.newest < before, sa.false()))
    return sa.and_(alive, items.c.newest.is_not(None), is_old if health == Health.UNHEALTHY else sa.not_(is_old))


def _by_policy(moments: Mapping[UUID, datetime]) -> Moment:
    if not moments:
        return sa.cast(sa.null(), items.c.newest.type)
    whens = [(items.c.policy == policy, sa.literal(when, items.c.newest.type)) for policy, when in moments.items()]
    return sa.case(*whens, else_=sa.null())
