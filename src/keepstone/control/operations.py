# SPDX-License-Identifier: Apache-2.0
"""What a client that was answered 202 asks about.

Azure calls an operation the work of taking a request on: it is over when the job that does the rest has begun. So most
are over before the first poll, for which clients would otherwise wait five seconds. The few whose answer is what a job
finds are over when that is, or, where it stands until somebody ends it, when it says where it is to be had; the job
says how it ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from keepstone.catalogue import jobs, operations
from keepstone.control.plane import Change
from keepstone.errors import NotFound
from keepstone.jobs import Status

__all__ = ["Operation", "find", "forget", "record"]

_KEPT = timedelta(days=7)
_OVER, _WAITING = "Succeeded", "InProgress"
_BY_ID = sa.select(operations).where(operations.c.id == sa.bindparam("id"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """`status`: InProgress, Succeeded, Failed or Canceled. `job`: the job that the request began; `beside`: others that
    have to be over too."""

    id: UUID
    vault: UUID | None
    job: UUID | None
    beside: Sequence[str] | None
    status: str
    started: datetime
    ended: datetime | None
    error: dict[str, Any] | None
    result: dict[str, Any] | None


def record(
    change: Change,
    vault: UUID | None,
    *,
    job: UUID | None = None,
    beside: Sequence[UUID] = (),
    result: dict[str, Any] | None = None,
    wait: bool = False,
) -> Operation:
    """An operation that is over; or, with `wait`, is when its job is, or stands, and all of those `beside` it are."""
    now = change.now
    operation = Operation(
        id=change.plane.new_id(),
        vault=vault,
        job=job,
        beside=[str(one) for one in beside] or None,
        status=_WAITING if wait else _OVER,
        started=now,
        ended=now,
        error=None,
        result=result,
    )
    row = {name: getattr(operation, name) for name in Operation.__slots__}
    change.connection.execute(operations.insert().values(**row))
    return operation


def find(connection: sa.Connection, name: str, vault: UUID | None) -> Operation:
    """An operation by its name: of this vault, or of none, as those are that made an end of theirs. `NotFound`."""
    try:
        row = connection.execute(_BY_ID, {"id": UUID(name)}).mappings().first()
    except ValueError:
        row = None
    if row is None or row["vault"] not in (vault, None):
        raise NotFound(f"There is no operation '{name}'; it is kept for {_KEPT.days} days")
    operation = Operation(**row)
    if operation.status != _WAITING:
        return operation
    job = connection.execute(
        sa.select(jobs.c.status, jobs.c.ended, jobs.c.progress).where(jobs.c.id == operation.job)
    ).first()
    stands = job is not None and job.status == Status.RUNNING and bool((job.progress or {}).get("target"))
    over = (job is None or job.ended is not None or stands) and not _is_any_open(connection, operation.beside or ())
    return replace(operation, ended=job.ended if job else None, status=_OVER if over else _WAITING)


def _is_any_open(connection: sa.Connection, of: Sequence[str]) -> bool:
    mine = jobs.c.id.in_([UUID(one) for one in of]), jobs.c.ended.is_(None)
    return bool(of) and connection.execute(sa.select(jobs.c.id).where(*mine).limit(1)).first() is not None


def forget(change: Change) -> None:
    """Drop those that nobody will ask about any more."""
    change.connection.execute(operations.delete().where(operations.c.ended < change.now - _KEPT))
