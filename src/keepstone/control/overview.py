# SPDX-License-Identifier: Apache-2.0
"""Vaults at a look: how many of their items are healthy, what their jobs did, whether anybody tried their points.

Everything is counted by the database; the health of items by the two moments of their policies (`control.health`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa

from keepstone.catalogue import alerts, drills, items, jobs, resources
from keepstone.catalogue import vaults as stored_vaults
from keepstone.control import growth, health
from keepstone.control.items import PROTECTED
from keepstone.control.jobs import UNUSUAL
from keepstone.control.plane import Plane
from keepstone.control.resources import MACHINE
from keepstone.control.sources import FILES
from keepstone.jobs import BACKUP, Status
from keepstone.vault import Health, Vault, folded
from keepstone.vault.alerts import RULES, Condition, Kind, State

__all__ = ["OPEN", "PASSED", "Drilled", "Machines", "Overview", "Rpo", "overview"]

PASSED = ("agent", "login")
"""What a drill has to reach for its point to be proved restorable (`Reached.is_up`, whose package takes long to
import)."""
_DAY = timedelta(days=1)
OPEN = (Status.QUEUED, Status.RUNNING, Status.CANCELLING)
"""Of a job that is not over."""


@dataclass(frozen=True, slots=True)
class Rpo:
    """Protected items with points. `met`: those that have a point since the last run of their policy, or for which it
    goes on now, the run before having made one."""

    met: int
    missed: int


@dataclass(frozen=True, slots=True)
class Machines:
    """Virtual machines that are known: those that have an item, and the others."""

    protected: int
    unprotected: int


@dataclass(frozen=True, slots=True)
class Drilled:
    """`startable`: items that a drill can be made of. `recent`, `passed`: how many of them had one in the last 30 days,
    and one that came up. `newest`: when the last one was that came up, at whatever time; None where none ever did."""

    startable: int
    recent: int
    passed: int
    newest: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """`health`: items that are not deleted; `deleted`: those that can be taken back. `jobs`: those that were asked for
    within a day, by how they ended, and all that are not over. `alerts`: those that go on and that nobody has closed,
    by their severity."""

    vaults: int
    health: Mapping[Health, int]
    deleted: int
    rpo: Rpo
    machines: Machines
    jobs: Mapping[Status, int]
    alerts: Mapping[str, int]
    drills: Drilled
    stored: growth.Stored
    space: growth.Space


def overview(plane: Plane, connection: sa.Connection, vaults: Collection[Vault], *, service: bool) -> Overview:
    """Of these vaults together. `service`: with the alerts of the service itself."""
    mine, now = [vault.id for vault in vaults], plane.env.utc()
    held = _items(connection, mine, now)
    sums = growth.stored(plane, connection, mine).values()
    total = growth.Stored(*(sum(getattr(one, name) for one in sums) for name in growth.Stored.__slots__))
    return Overview(
        vaults=len(mine),
        health=held.health,
        deleted=held.deleted,
        rpo=held.rpo,
        machines=_machines(connection, {folded(vault.subscription) for vault in vaults}),
        jobs=_jobs(connection, mine, now),
        alerts=_alerts(connection, mine, service=service),
        drills=_drills(connection, mine, held.startable, now),
        stored=total,
        space=growth.space(plane),
    )


@dataclass(frozen=True, slots=True)
class _Items:
    health: Mapping[Health, int]
    deleted: int
    rpo: Rpo
    startable: int


def _items(connection: sa.Connection, vaults: list[UUID], now: datetime) -> _Items:
    """By policy and state: how many have no point, one before the last run but one, and one since the last."""
    late, last = health.last_two(connection, vaults, now)
    kind = items.c.policy, items.c.state, items.c.deleted.is_(None).label("alive"), items.c.workload
    counts = (
        sa.func.count(),
        sa.func.count(items.c.newest),
        _count(items.c.newest < late),
        _count(items.c.newest >= last),
    )
    found, gone, kept, of_policies, startable = Counter(dict.fromkeys(Health, 0)), 0, 0, 0, 0
    query = sa.select(*kind, *counts).where(items.c.vault.in_(vaults)).group_by(*kind)
    for policy, state, alive, workload, number, with_points, old, new in connection.execute(query):
        if not alive:
            gone += number
            continue
        judged = policy is not None and state == PROTECTED
        found[Health.PENDING] += number - with_points
        found[Health.UNHEALTHY] += old if judged else 0
        found[Health.HEALTHY] += with_points - (old if judged else 0)
        of_policies += with_points if judged else 0
        kept += new if judged else 0
        startable += with_points if workload != FILES else 0
    going_on = sa.select(jobs.c.item).where(*_open(vaults), jobs.c.operation == BACKUP)
    in_time = items.c.state == PROTECTED, items.c.deleted.is_(None), items.c.newest >= late, items.c.newest < last
    kept += connection.execute(
        sa.select(sa.func.count()).select_from(items).where(items.c.id.in_(going_on), *in_time)
    ).scalar_one()
    return _Items(dict(found), gone, Rpo(kept, of_policies - kept), startable)


def _count(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    """How many rows this is true of."""
    return sa.func.coalesce(sa.func.sum(sa.case((condition, 1), else_=0)), 0)


def _machines(connection: sa.Connection, subscriptions: Collection[str]) -> Machines:
    """Those of a subscription, whichever of its vaults protects them. The key of a machine's item follows from the
    names of the machine and of its group, which are in its id."""
    protected = unprotected = 0
    for subscription in subscriptions:
        ahead = len(f"/subscriptions/{subscription}/resourcegroups/") + len(f"/providers/{MACHINE}/")
        name = sa.func.substr(resources.c.key, sa.func.length(resources.c.group_key) + ahead + 1)
        key = sa.literal("vm;iaasvmcontainerv2;") + resources.c.group_key + ";" + name
        within = sa.select(stored_vaults.c.id).where(stored_vaults.c.subscription == subscription)
        machines = items.c.vault.in_(within), items.c.key >= "vm;", items.c.key < "vm<", items.c.deleted.is_(None)
        query = sa.select(sa.func.count(), _count(key.in_(sa.select(items.c.key).where(*machines))))
        known = resources.c.subscription == subscription, resources.c.type == MACHINE
        number, held = connection.execute(query.where(*known)).one()
        protected, unprotected = protected + held, unprotected + number - held
    return Machines(protected, unprotected)


def _jobs(connection: sa.Connection, vaults: list[UUID], now: datetime) -> dict[Status, int]:
    """What goes on is all that goes on, since whenever."""
    found: Counter[Status] = Counter()
    query = sa.select(jobs.c.status, sa.func.count()).group_by(jobs.c.status)
    recent = query.where(jobs.c.vault.in_(vaults), jobs.c.created > now - _DAY, jobs.c.ended.is_not(None))
    going_on = query.where(*_open(vaults))
    for one in (recent, going_on):
        found.update({Status(status): number for status, number in connection.execute(one)})
    return dict(found)


def _open(vaults: list[UUID]) -> tuple[sa.ColumnElement[bool], ...]:
    """Jobs that are not over, by the index of those that are rare."""
    return jobs.c.vault.in_(vaults), UNUSUAL, jobs.c.status.in_(OPEN)


def _alerts(connection: sa.Connection, vaults: list[UUID], *, service: bool) -> dict[str, int]:
    within = alerts.c.vault.in_(vaults)
    query = (
        sa.select(alerts.c.kind, sa.func.count())
        .where(sa.or_(within, alerts.c.vault.is_(None)) if service else within)
        .where(alerts.c.condition == Condition.FIRED, alerts.c.state != State.CLOSED)
    )
    found: Counter[str] = Counter()
    for kind, number in connection.execute(query.group_by(alerts.c.kind)):
        found[str(RULES[Kind(kind)].severity)] += number
    return dict(found)


def _drills(connection: sa.Connection, vaults: list[UUID], startable: int, now: datetime) -> Drilled:
    mine = sa.exists().where(items.c.id == drills.c.item, items.c.vault.in_(vaults), items.c.deleted.is_(None))
    up = drills.c.level.in_(PASSED)
    each = sa.select(_count(up).label("up")).where(drills.c.began > now - growth.MONTH, mine)
    of_item = each.group_by(drills.c.item).subquery()
    recent, passed = connection.execute(sa.select(sa.func.count(), _count(of_item.c.up > 0)).select_from(of_item)).one()
    newest = sa.select(drills.c.began).where(up, mine).order_by(drills.c.began.desc()).limit(1)
    return Drilled(startable, recent, passed, connection.execute(newest).scalar())
