# SPDX-License-Identifier: Apache-2.0
"""Restore drills of an item: a point of it is started where it reaches nobody, and what came of it is kept.

One is made when somebody asks for it, or when the policy says so (`keepstone.drillEveryDays`): then of the newest
point. The newest `_KEPT` of each item are kept.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from keepstone.catalogue import containers, drills, every, first, items, jobs, points, vaults
from keepstone.catalogue import policies as stored
from keepstone.control import items as control
from keepstone.control import policies
from keepstone.control.plane import Change, Plane
from keepstone.control.sources import FILES
from keepstone.errors import Conflict, NotFound, Unsupported
from keepstone.vault import Container, Item, RecoveryPoint, StoredPolicy, Vault

__all__ = ["DRILL", "Drill", "add", "ask", "ask_due", "find", "last", "listing", "newest", "pictured", "screenshot"]

DRILL = "RestoreDrill"
"""The operation of the job."""
_KEPT = 50
_IS_OPEN = jobs.c.operation == DRILL, jobs.c.ended.is_(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """Fields mean what the columns of the same name mean (`catalogue/tables/protection.py`)."""

    id: UUID
    item: UUID
    point: str
    began: datetime
    level: str
    seconds: float | None
    outcome: dict[str, Any]


_COLUMNS = [drills.c[name] for name in Drill.__slots__]


def ask(change: Change, vault: Vault, held: Container, item: Item, point: RecoveryPoint, activity: str) -> UUID:
    """Ask for a drill of a point; its job. `Unsupported` for files, `Conflict` while there is one of this item."""
    if item.workload == FILES:
        raise Unsupported(f"'{item.friendly}' has files; only machines and disks can be started")
    if change.connection.execute(sa.select(jobs.c.id).where(*_IS_OPEN, jobs.c.item == item.id)).first() is not None:
        raise Conflict(f"a drill of '{item.friendly}' goes on or waits for its turn; wait for its job")
    return control.work(change, vault, held, item, DRILL, activity, {"point": point.name, "user": bool(activity)})


def ask_due(plane: Plane) -> int:
    """Ask for those that are due by the policies of their items; how many."""
    asked = 0
    with plane.change() as change:
        connection = change.connection
        for policy in every(connection, StoredPolicy, stored.c.management == "AzureIaasVM"):
            days = policies.parsed(policy).drill_days
            if days is None:
                continue
            since = change.now - timedelta(days=days)
            recent = sa.select(drills.c.item).where(drills.c.began > since)
            tried = sa.select(jobs.c.item).where(
                jobs.c.operation == DRILL, sa.or_(jobs.c.created > since, jobs.c.ended.is_(None))
            )
            due = items.c.policy == policy.id, items.c.id.not_in(recent), items.c.id.not_in(tried)
            for item in every(connection, Item, *due, items.c.newest.is_not(None), items.c.deleted.is_(None)):
                mine = points.c.item == item.id, points.c.deleted.is_(None)
                found = every(connection, RecoveryPoint, *mine, order=points.c.made.desc(), limit=1)
                held = first(connection, Container, containers.c.id == item.container)
                vault = first(connection, Vault, vaults.c.id == item.vault)
                if found and held is not None and vault is not None:
                    ask(change, vault, held, item, found[0], "")
                    asked += 1
    return asked


def add(change: Change, drill: Drill, screenshot: bytes) -> None:
    """Keep what came of one, and no more than `_KEPT` of its item."""
    row = {name: getattr(drill, name) for name in Drill.__slots__} | {"screenshot": screenshot}
    change.connection.execute(drills.insert().values(**row))
    mine = sa.select(drills.c.id).where(drills.c.item == drill.item).order_by(drills.c.began.desc())
    old = change.connection.execute(mine.offset(_KEPT)).scalars().all()
    change.connection.execute(drills.delete().where(drills.c.id.in_(old)))


def listing(connection: sa.Connection, item: Item) -> list[Drill]:
    """Those of an item, the newest first."""
    query = sa.select(*_COLUMNS).where(drills.c.item == item.id).order_by(drills.c.began.desc())
    return [Drill(**row._mapping) for row in connection.execute(query)]


def newest(connection: sa.Connection, of: Collection[UUID]) -> dict[UUID, dict[str, Drill]]:
    """Of these items that had drills: the newest of each point, by the point's name."""
    query = sa.select(*_COLUMNS).where(drills.c.item.in_(of)).order_by(drills.c.began)
    found: dict[UUID, dict[str, Drill]] = {}
    for row in connection.execute(query):
        drill = Drill(**row._mapping)
        found.setdefault(drill.item, {})[drill.point] = drill
    return found


def last(connection: sa.Connection, of: Collection[UUID]) -> dict[UUID, Drill]:
    """Of these items that had drills: the newest of each."""
    newest = sa.select(drills.c.item, sa.func.max(drills.c.began).label("began")).where(drills.c.item.in_(of))
    each = newest.group_by(drills.c.item).subquery()
    is_last = sa.and_(drills.c.item == each.c.item, drills.c.began == each.c.began)
    found = connection.execute(sa.select(*_COLUMNS).join(each, is_last))
    return {row.item: Drill(**row._mapping) for row in found}


def pictured(connection: sa.Connection, of: Collection[UUID]) -> set[UUID]:
    """Those of these drills that have a picture."""
    query = sa.select(drills.c.id).where(drills.c.id.in_(of), sa.func.length(drills.c.screenshot) > 0)
    return set(connection.execute(query).scalars())


def find(connection: sa.Connection, item: Item, name: str) -> Drill:
    """One by its id. `NotFound`."""
    found = [drill for drill in listing(connection, item) if str(drill.id) == name]
    if not found:
        raise NotFound(f"there is no drill '{name}' of '{item.friendly}'; `keepstone drill list` shows those there are")
    return found[0]


def screenshot(connection: sa.Connection, drill: Drill) -> bytes:
    """The picture of its screen, a PNG. `NotFound` where there is none."""
    picture: bytes = connection.execute(sa.select(drills.c.screenshot).where(drills.c.id == drill.id)).scalar_one()
    if not picture:
        raise NotFound("this drill has no picture: the machine showed no screen")
    return picture
