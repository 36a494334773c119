# SPDX-License-Identifier: Apache-2.0
"""Recovery of files by a script: the disks of a point are served for some hours, and another machine attaches them.

A session is a job that goes on until somebody revokes it, or its time is over. What a script brings is known to it by
the certificate that was made for that script alone, and that is all that the service keeps of it: asked again, it makes
another one, with another password.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from keepstone.catalogue import jobs
from keepstone.control import items
from keepstone.control.attaching import Script, script
from keepstone.control.plane import Change
from keepstone.control.sources import FILES
from keepstone.errors import Conflict, NotFound, Unsupported
from keepstone.identity import new_credentials
from keepstone.jobs import Status
from keepstone.vault import Container, Item, RecoveryPoint, Vault

__all__ = ["HOURS", "SERVE", "begin", "issue", "revoke", "sessions", "wanted"]

SERVE = "RecoverFiles"
"""The operation of the job."""
HOURS = 12
"""How long a session lasts, as in Azure."""
_MOST = 16  # scripts of one session


def begin(change: Change, vault: Vault, held: Container, item: Item, point: RecoveryPoint, activity: str) -> UUID:
    """Ask for a session of a point, or for another `HOURS` of the one that there is; its job. `Unsupported` for
    files."""
    _check_kind(item)
    until = change.now + timedelta(hours=HOURS)
    there = sessions(change.connection, item).get(point.name)
    if there is not None:
        _rewrite(change.connection, there, {"until": until.isoformat()})
        return there
    about = {"point": point.name, "until": until.isoformat(), "clients": [], "user": True}
    return items.work(change, vault, held, item, SERVE, activity, about)


def sessions(connection: sa.Connection, item: Item) -> dict[str, UUID]:
    """The points of an item that are served, or are about to be, with their jobs."""
    mine = jobs.c.item == item.id, jobs.c.operation == SERVE, jobs.c.ended.is_(None)
    rows = connection.execute(sa.select(jobs.c.id, jobs.c.arguments).where(*mine, jobs.c.status != Status.CANCELLING))
    return {str(arguments["point"]): job for job, arguments in rows}


def revoke(change: Change, item: Item, point: RecoveryPoint) -> list[UUID]:
    """End the session of a point; its job, or none where there is no session."""
    there = sessions(change.connection, item).get(point.name)
    if there is None:
        return []
    change.plane.queue.cancel(change.connection, there)
    return [there]


def issue(change: Change, item: Item, point: RecoveryPoint, host: str, authority: bytes) -> Script:
    """A new script for the session of a point. `host`: where clients find the service; `authority`: the certificate
    that they know it by. `NotFound` where there is no session, `Conflict` where it is not served yet; `Unsupported`."""
    _check_kind(item)
    connection = change.connection
    job = sessions(connection, item).get(point.name)
    if job is None:
        raise NotFound(
            f"point {point.name} of '{item.friendly}' is not served; begin with `az backup restore files mount-rp`"
        )
    # one after the other: each adds to what is there
    row = connection.execute(
        sa.select(jobs.c.arguments, jobs.c.progress).where(jobs.c.id == job).with_for_update()
    ).one()
    target = (row.progress or {}).get("target")
    if not target:
        raise Conflict(f"point {point.name} of '{item.friendly}' is not served yet; ask again in a few seconds")
    port, _, disks = str(target).partition(" ")
    env = change.plane.env
    session = new_credentials(env, f"file recovery {job}", 1)
    clients = [*row.arguments["clients"], session.certificate.decode()][-_MOST:]
    _rewrite(connection, job, {"clients": clients})
    return script(env, item.friendly, disks.split(), host, int(port), authority, session)


def _check_kind(item: Item) -> None:
    if item.workload == FILES:
        raise Unsupported(
            f"'{item.friendly}' has no disks; look into its points with `keepstone recoverypoint browse`, and restore "
            "from them with `keepstone restore files`"
        )


def _rewrite(connection: sa.Connection, job: UUID, facts: dict[str, Any]) -> None:
    row = connection.execute(sa.select(jobs.c.arguments).where(jobs.c.id == job)).scalar_one()
    connection.execute(jobs.update().where(jobs.c.id == job).values(arguments={**row, **facts}))


def wanted(connection: sa.Connection, job: UUID) -> tuple[Status, datetime, list[str]]:
    """(the state of a session, until when it goes on, the certificates of those that may come, PEM)."""
    row = connection.execute(sa.select(jobs.c.status, jobs.c.arguments).where(jobs.c.id == job)).one()
    return Status(row.status), datetime.fromisoformat(row.arguments["until"]), list(row.arguments["clients"])
