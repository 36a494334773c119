# SPDX-License-Identifier: Apache-2.0
"""The jobs of a vault, as people look at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from keepstone.catalogue import jobs
from keepstone.errors import JobNotFound
from keepstone.jobs import BACKUP, Status
from keepstone.vault import Container, Item, Vault, folded

__all__ = ["UNUSUAL", "Job", "about", "counts", "find", "listing"]


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
    machine: UUID | None
    log: Sequence[Sequence[str]] | None


# Of many jobs the logs would be much, and nobody reads them in a list.
_ALL = sa.select(*(jobs.c[name] if name != "log" else sa.null().label(name) for name in Job.__slots__))
_BY_ID = sa.select(*(jobs.c[name] for name in Job.__slots__)).where(
    jobs.c.vault == sa.bindparam("vault"), jobs.c.id == sa.bindparam("id")
)


def about(held: Container, item: Item) -> dict[str, Any]:
    """What a job says of its item, also when that is gone."""
    return {
        "entity": item.friendly,
        "management": item.management,
        "workload": item.workload,
        "container": held.name,
        "machine": held.friendly,
    }


def find(connection: sa.Connection, vault: Vault, name: str) -> Job:
    """`JobNotFound`."""
    try:
        row = connection.execute(_BY_ID, {"vault": vault.id, "id": UUID(name)}).first()
    except ValueError:
        row = None
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
    mine = jobs.c.vault == vault.id
    where = [mine]
    is_rare = operation is not None and folded(operation) != folded(BACKUP)
    if operation is not None:
        word = _spelled(connection, jobs.c.operation, operation, mine, _NO_BACKUP) if is_rare else BACKUP
        if word is None:
            return []
        where.append(jobs.c.operation == word)
    kind, kind_beside = [], []
    if management is not None:
        word = _spelled(connection, jobs.c.management, management, mine)
        if word is None:
            return []
        kind, kind_beside = [jobs.c.management == word], [sa.func.coalesce(jobs.c.management, "") == word]
    if begin is not None:
        where.append(jobs.c.created >= begin)
    if end is not None:
        where.append(jobs.c.created <= end)
    if before is not None:
        seen = sa.tuple_(sa.literal(before[0], jobs.c.created.type), sa.literal(before[1], jobs.c.id.type))
        where.append(sa.tuple_(jobs.c.created, jobs.c.id) < seen)
    query = _ALL.where(*where).order_by(jobs.c.created.desc(), jobs.c.id.desc()).limit(limit)
    found: list[Job] = []
    for status in (None,) if statuses is None else statuses:  # each by itself: an index has those of one in order
        only = query if status is None else query.where(jobs.c.status == status)
        if is_rare:
            only = only.where(_NO_BACKUP, *kind_beside)
        elif status not in (None, Status.COMPLETED):
            only = only.where(UNUSUAL, *kind_beside)
        else:
            only = only.where(*kind)
        found += [_job(row) for row in connection.execute(only)]
    return sorted(found, key=lambda job: (job.created, job.id), reverse=True)[:limit]


def counts(connection: sa.Connection) -> dict[tuple[str, str], int]:
    """How many jobs there are of each operation and state, in all vaults. What is rare is counted by its index; the
    rest are backups that went well."""
    what = jobs.c.operation, jobs.c.status
    found: dict[tuple[str, str], int] = {}
    for rare in (UNUSUAL, _NO_BACKUP):
        rows = connection.execute(sa.select(*what, sa.func.count()).where(rare).group_by(*what))
        found |= {(operation, status): number for operation, status, number in rows}
    rest = connection.execute(sa.select(sa.func.count()).select_from(jobs)).scalar_one() - sum(found.values())
    return found | ({(BACKUP, str(Status.COMPLETED)): rest} if rest > 0 else {})


# The database does not know what is rare, so it is told which index to use: that of rare operations, or that of rare
# states, by the words of the index itself (`catalogue/tables/work.py`), and then not that of kinds, by a function of
# the kind.
_NO_BACKUP = jobs.c.operation != sa.literal_column(f"'{BACKUP}'")
UNUSUAL = jobs.c.status != sa.literal_column(f"'{Status.COMPLETED}'")
"""That a job is none that went well, as the index of those says it."""


def _spelled(
    connection: sa.Connection, column: sa.Column[Any], word: str, *where: sa.ColumnElement[bool]
) -> str | None:
    """How a word stands in a column, whatever its case; None where it does not. Goes from one word to the next by an
    index, and not through the rows."""
    words = sa.select(sa.func.min(column).label("word")).where(*where).cte(recursive=True)
    following = sa.select(sa.func.min(column)).where(*where, column > words.c.word).scalar_subquery()
    words = words.union_all(sa.select(following).where(words.c.word.is_not(None)))
    known = connection.execute(sa.select(words.c.word).where(words.c.word.is_not(None))).scalars()
    return next((one for one in known if folded(one) == folded(word)), None)


def _job(row: Sequence[Any]) -> Job:
    fields = dict(zip(Job.__slots__, row, strict=True))
    return Job(**fields | {"status": Status(fields["status"])})
