# SPDX-License-Identifier: Apache-2.0
"""What a service does for its vaults again and again, without anybody asking."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import sqlalchemy as sa

from keepstone.catalogue import every, jobs, vaults
from keepstone.control import (
    agents,
    alerts,
    attempts,
    drills,
    hypervisors,
    items,
    logins,
    looks,
    operations,
    retention,
    snapshots,
)
from keepstone.control import vaults as control
from keepstone.control.plane import Plane
from keepstone.control.postman import Postman
from keepstone.control.reconcile import reconcile
from keepstone.control.watch import Watch
from keepstone.control.work.reclaim import RECLAIM
from keepstone.control.work.verify import VERIFY
from keepstone.jobs import Status
from keepstone.vault import Vault

__all__ = ["chores"]

_SOON, _MINUTE, _WHILE, _HOUR, _DAY = 10.0, 60.0, 300.0, 3600.0, 86_400.0
_OPEN = (Status.QUEUED, Status.RUNNING, Status.CANCELLING)


def chores(plane: Plane) -> list[tuple[str, float, Callable[[], object]]]:
    """(what, every how many seconds, the work), in no order."""
    return [
        ("telling people of alerts", _SOON, Postman(plane).run),
        ("looking for what nobody reports", _WHILE, Watch(plane).look),
        ("putting what is left of the journals into their stores", _MINUTE, plane.journal.ship_all),
        ("asking for the removal of soft-deleted items", _MINUTE, lambda: items.purge_due(plane)),
        ("destroying deleted vaults", _MINUTE, lambda: control.purge(plane)),
        ("forgetting old operations, alerts, credentials and failed logins", _HOUR, lambda: _forget(plane)),
        ("retention", _HOUR, lambda: retention.sweep(plane)),
        ("asking for reclaims", _HOUR, lambda: ask_for(plane, RECLAIM)),
        ("asking for restore drills", _HOUR, lambda: drills.ask_due(plane)),
        ("asking what hypervisors have", _HOUR, lambda: hypervisors.ask_all(plane)),
        ("looking at the snapshots that hypervisors keep", _HOUR, lambda: snapshots.look_all(plane)),
        ("asking agents for the snapshots that their machines keep", _HOUR, lambda: looks.ask_all(plane)),
        ("asking for verifications", _HOUR, lambda: ask_for(plane, VERIFY)),
        ("comparing the catalogue with the stores", _DAY, lambda: _reconcile(plane)),
    ]


def ask_for(plane: Plane, operation: str) -> int:
    """A job of this kind a day for each vault whose last one is over; how many were asked for."""
    asked = 0
    with plane.database.change() as connection:
        since = plane.env.utc() - timedelta(seconds=_DAY)
        recent = sa.select(jobs.c.vault).where(
            jobs.c.operation == operation, sa.or_(jobs.c.created > since, jobs.c.status.in_(_OPEN))
        )
        due = vaults.c.deleted.is_(None), vaults.c.created <= since, vaults.c.id.not_in(recent)
        for vault in every(connection, Vault, *due):
            plane.queue.enqueue(connection, operation, {"entity": vault.name}, vault=vault.id, priority=-1)
            asked += 1
    return asked


def _forget(plane: Plane) -> None:
    with plane.change() as change:
        operations.forget(change)
        alerts.forget(change)
        agents.forget(change)
        attempts.forget(change.connection, change.now)
        logins.forget(change.connection, change.now)


def _reconcile(plane: Plane) -> None:
    control.each(plane, "the comparison with its store", lambda vault: reconcile(plane, vault))
