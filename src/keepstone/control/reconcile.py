# SPDX-License-Identifier: Apache-2.0
"""The table of points made right by the store, which knows which points there are.

They differ after a worker died between the commit of a point and the end of its job, and after a database came back
from an older copy of itself.

Invariants
* A point of an item that the table knows is never removed, but for a second one of the same job: a worker that was
  taken for dead had finished it, and the one that took over had, too.
* Points of items that nobody knows stay, and are told: whoever restored an old database wants them back.
* A row whose point is damaged or lost stays: `verify` and people decide about it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from uuid import UUID

import sqlalchemy as sa

from keepstone.catalogue import every, items, jobs, points
from keepstone.control import points as made
from keepstone.control import retention
from keepstone.control.plane import Plane
from keepstone.jobs import Status
from keepstone.store import Point
from keepstone.vault import Item, RecoveryPoint, Vault

__all__ = ["Found", "reconcile"]

_log = logging.getLogger(__name__)
_OVER = (Status.COMPLETED, Status.WARNED, Status.FAILED, Status.CANCELLED)


@dataclass(slots=True)
class Found:
    """What was different. `adopted`: points that the table did not have; `doubled`: second ones of a job, removed;
    `vanished`: rows whose points are gone, removed; `strangers`: points of items that nobody knows."""

    adopted: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    vanished: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)


def reconcile(plane: Plane, vault: Vault) -> Found:
    """Compare the table with the store, and make it right. Jobs that go on are left alone."""
    store = plane.stores.open(vault.id)
    with plane.look() as connection:  # the table first: a point that is made meanwhile is none that it misses
        rows = every(connection, RecoveryPoint, points.c.vault == vault.id)
        known = {item.id: item for item in every(connection, Item, items.c.vault == vault.id)}
        query = sa.select(jobs.c.id).where(jobs.c.vault == vault.id, jobs.c.status.not_in(_OVER))
        going_on = set(connection.execute(query).scalars())
    there = {point.id: point for point in store.points.list(deleted=True)}
    lost = set(store.points.lost())
    listed = {row.commit_id for row in rows}
    found = Found()
    ended = {made.job_of(there[commit].record) for commit in listed if commit in there} - {None}
    for point in sorted(there.values(), key=lambda one: (one.record.started, one.id)):
        job, item = made.job_of(point.record), known.get(made.item_of(point.record) or _NOBODY)
        if point.id in listed or job in going_on:
            continue
        if item is None:
            found.strangers.append(point.id)
        elif job is not None and job in ended:
            made.destroy(store, point.id)
            found.doubled.append(point.id)
        else:
            _adopt(plane, item, point)
            found.adopted.append(point.id)
            ended.add(job)
    for row in rows:
        if row.commit_id not in there and row.commit_id not in lost:
            retention.remove(plane, vault.id, [row])
            found.vanished.append(row.commit_id)
    _tell(vault, found)
    return found


_NOBODY = UUID(int=0)


def _adopt(plane: Plane, item: Item, point: Point) -> None:
    row = made.of_record(item, point.id, point.record)
    with plane.database.change() as connection:
        made.add(connection, row)
        later = sa.or_(items.c.newest.is_(None), items.c.newest < row.made)
        connection.execute(items.update().where(items.c.id == item.id, later).values(newest=row.made))


def _tell(vault: Vault, found: Found) -> None:
    """To the log: each of these is unusual."""
    for what, commits in (
        ("points that the catalogue did not know are listed again", found.adopted),
        ("points that were the second of their job were removed", found.doubled),
        ("points that the catalogue knew are not in the store any more", found.vanished),
        ("points are of items that the catalogue does not know; they stay", found.strangers),
    ):
        if commits:
            _log.warning("vault '%s': %d %s: %s …", vault.name, len(commits), what, ", ".join(commits[:5]))
