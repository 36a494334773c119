# SPDX-License-Identifier: Apache-2.0
"""The jobs of a vault, as people look at them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from keepstone.catalogue import jobs
from keepstone.errors import JobNotFound
from keepstone.jobs import Status
from keepstone.vault import Vault

__all__ = ["Job", "find", "listing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Fields mean what the columns of the same name mean (`catalogue/tables/work.py`)."""

    id: UUID
    vault: UUID
    item: UUID | None
    operation: str
    arguments: dict[str, Any]
    status: Status
    created: datetime
    started: datetime | None
    ended: datetime | None
    progress: dict[str, Any] | None
    error: dict[str, Any] | None
    activity: str | None
    attempt: int


def find(connection: sa.Connection, vault: Vault, name: str) -> Job:
    """`JobNotFound`."""
    try:
        identity = UUID(name)
    except ValueError:
        identity = None
    row = None
    if identity is not None:
        query = _select().where(jobs.c.vault == vault.id, jobs.c.id == identity)
        row = connection.execute(query).mappings().first()
    if row is None:
        raise JobNotFound(
            f"There is no job '{name}' in vault '{vault.name}'; `az backup job list` shows those that there are"
        )
    return _job(row)


def listing(
    connection: sa.Connection,
    vault: Vault,
    *,
    statuses: list[Status] | None = None,
    operation: str | None = None,
    begin: datetime | None = None,
    end: datetime | None = None,
    management: str | None = None,
    limit: int,
    before: tuple[datetime, UUID] | None = None,
) -> list[Job]:
    """The jobs of a vault, newest first, that all of this is true of; `before`: the last one that was seen."""
    where = [jobs.c.vault == vault.id]
    if statuses is not None:
        where.append(jobs.c.status.in_(statuses))
    if operation is not None:
        where.append(sa.func.lower(jobs.c.operation) == operation.lower())
    if begin is not None:
        where.append(jobs.c.created >= begin)
    if end is not None:
        where.append(jobs.c.created <= end)
    if management is not None:
        where.append(sa.func.lower(jobs.c.arguments["management"].as_string()) == management.lower())
    if before is not None:
        seen = sa.tuple_(sa.literal(before[0], jobs.c.created.type), sa.literal(before[1], jobs.c.id.type))
        where.append(sa.tuple_(jobs.c.created, jobs.c.id) < seen)
    query = _select().where(*where).order_by(jobs.c.created.desc(), jobs.c.id.desc()).limit(limit)
    return [_job(row) for row in connection.execute(query).mappings()]


def _select() -> sa.Select[Any]:
    return sa.select(*(jobs.c[name] for name in Job.__slots__))


def _job(row: sa.RowMapping) -> Job:
    return Job(**{**row, "status": Status(row["status"])})
