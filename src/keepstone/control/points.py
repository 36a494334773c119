# SPDX-License-Identifier: Apache-2.0
"""Recovery points of an item. The store has them; the table is what lists and retention look at."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa

from keepstone.catalogue import every, insert, items, one, points
from keepstone.catalogue.judging import outdate
from keepstone.control import sources
from keepstone.errors import NotFound, ObjectMissing, PointNotFound
from keepstone.store import SEALED, LocalReader, Point, PointRecord, Store
from keepstone.vault import Item, RecoveryPoint

__all__ = [
    "DISKS",
    "FILES",
    "MACHINE",
    "Sizes",
    "add",
    "commit_of_job",
    "counts",
    "destroy",
    "find",
    "item_of",
    "job_of",
    "kind",
    "listing",
    "name_of",
    "of_record",
    "opened",
    "remove",
    "sizes",
    "store_name",
    "summary",
    "tags",
]

FILES, DISKS, MACHINE = "files", "images", "machine"
"""The kinds of points of files, of disks and of whole machines."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LEVELS = {"application": "AppConsistent", "file-system": "FileSystemConsistent", "crash": "CrashConsistent"}
_ITEM, _JOB, _TYPE, _OWN = "item=", "job=", "type=", "own="


def store_name(machine: str, item: Item) -> str:
    """What the store calls an item: people find it in `keepstone store list`."""
    return f"{machine}:{item.source.get('machine') or item.source['path']}"


def kind(item: Item) -> str:
    """Of which kind the points of an item are in the store."""
    if item.workload == sources.FILES:
        return FILES
    return MACHINE if "machine" in item.source else DISKS


def tags(item: UUID, job: UUID, type: str, own: datetime | None) -> tuple[str, ...]:
    """What the store remembers with a point, so that a lost catalogue can be made anew: whose it is, which job made it,
    its type of backup, and until when it is kept where that is not its policy's to say."""
    known = f"{_ITEM}{item}", f"{_JOB}{job}", f"{_TYPE}{type}"
    return known if own is None else (*known, f"{_OWN}{own.isoformat()}")


def item_of(record: PointRecord) -> UUID | None:
    """The item that a point of the store belongs to; None where it says none."""
    return _tagged(record, _ITEM)


def job_of(record: PointRecord) -> UUID | None:
    """The job that made it."""
    return _tagged(record, _JOB)


def name_of(commit: str) -> str:
    """What clients call a point: digits, out of the commit's own random part."""
    return str(int(commit.rpartition("-")[2][:15], 16))


def of_record(item: Item, commit: str, record: PointRecord) -> RecoveryPoint:
    """The row of a point."""
    return RecoveryPoint(
        item=item.id,
        vault=item.vault,
        name=name_of(commit),
        commit_id=commit,
        made=_moment(record.started),
        type=_text(record, _TYPE) or "Full",
        consistency=_consistency(record),
        logical=record.logical,
        fresh=record.added,
        stored=record.stored,
        warnings=record.warnings,
        own=_own(record),
        locked=_moment(record.lock_until) if record.lock_until else None,
    )


def add(connection: sa.Connection, point: RecoveryPoint) -> None:
    """List a point that is not listed yet; its item is judged again."""
    insert(connection, point)
    outdate(connection, items.c.id == point.item)


def remove(connection: sa.Connection, item: UUID, name: str) -> None:
    """Take a point off the list; its item is judged again."""
    connection.execute(points.delete().where(points.c.item == item, points.c.name == name))
    outdate(connection, items.c.id == item)


def find(connection: sa.Connection, item: Item, name: str) -> RecoveryPoint:
    """`NotFound`."""
    point = one(connection, RecoveryPoint, item=item.id, name=name)
    if point is None:
        error = NotFound(
            f"There is no recovery point '{name}' of '{item.friendly}'; `az backup recoverypoint list` shows those "
            "that there "
            "are"
        )
        error.code = "BMSUserErrorRecoveryPointNotFound"
        raise error
    return point


def listing(
    connection: sa.Connection,
    item: Item,
    *,
    begin: datetime | None = None,
    end: datetime | None = None,
    limit: int | None = None,
    before: tuple[datetime, str] | None = None,
) -> list[RecoveryPoint]:
    """The points of an item, newest first; those made in a time; `before`: the last one that was seen."""
    where = [points.c.item == item.id]
    if begin is not None:
        where.append(points.c.made >= begin)
    if end is not None:
        where.append(points.c.made <= end)
    if before is not None:
        seen = sa.tuple_(sa.literal(before[0], points.c.made.type), sa.literal(before[1]))
        where.append(sa.tuple_(points.c.made, points.c.name) < seen)
    return every(connection, RecoveryPoint, *where, order=(points.c.made.desc(), points.c.name.desc()), limit=limit)


def summary(connection: sa.Connection, item: Item) -> tuple[int, datetime | None]:
    """How many points an item has, and when the oldest was made."""
    count, oldest = connection.execute(_SUMMARY, {"item": item.id}).one()
    return count, oldest


_SUMMARY = sa.select(sa.func.count(), sa.func.min(points.c.made)).where(points.c.item == sa.bindparam("item"))


def counts(connection: sa.Connection, of: Sequence[UUID]) -> dict[UUID, tuple[int, datetime | None]]:
    """The same for several items."""
    query = sa.select(points.c.item, sa.func.count(), sa.func.min(points.c.made))
    rows = connection.execute(query.where(points.c.item.in_(of)).group_by(points.c.item)).all()
    return {item: (count, oldest) for item, count, oldest in rows}


class Sizes(NamedTuple):
    """Points together: how many, and their bytes, as the columns of the same names have them."""

    number: int
    logical: int
    fresh: int
    stored: int


def sizes(connection: sa.Connection) -> dict[UUID, Sizes]:
    """What the points of each vault that has some take together."""
    sums = [sa.func.sum(points.c[name]) for name in Sizes._fields[1:]]
    query = sa.select(points.c.vault, sa.func.count(), *sums).where(points.c.deleted.is_(None))
    rows = connection.execute(query.group_by(points.c.vault))
    return {vault: Sizes(*(int(value) for value in values)) for vault, *values in rows}


def opened(store: Store, point: RecoveryPoint, *, sealed: bool = False) -> LocalReader:
    """Read a point; `sealed` as in `Store.reader`. `NotFound` where it is gone, `WrongKey`; `CorruptObject`."""
    record = None
    with contextlib.suppress(ObjectMissing):
        record = store.commits.get(point.commit_id)
    if not isinstance(record, PointRecord):
        raise NotFound(f"recovery point {point.name} is gone from the vault's store; choose another one")
    return store.reader(Point(point.commit_id, record), sealed=sealed)


def destroy(store: Store, commit: str) -> None:
    """Remove a point from its store for ever. Nothing where it is gone already."""
    with contextlib.suppress(PointNotFound):
        store.points.forget(store.points.find(commit, deleted=True))
        store.points.purge(store.points.find(commit, deleted=True), now=True)


def commit_of_job(store: Store, job: UUID) -> tuple[str, PointRecord] | None:
    """The point that a job has made in the store; None where it has not come so far."""
    for point in store.points.list(deleted=True):
        if job_of(point.record) == job:
            return point.id, point.record
    return None


def _consistency(record: PointRecord) -> str:
    """In Azure's words. Files are read through their file system, disks as they lie there."""
    if record.kind.removeprefix(SEALED) == FILES:
        return "FileSystemConsistent"
    if record.kind != MACHINE:
        return "CrashConsistent"
    from keepstone.workloads.machines import level_of

    return _LEVELS[level_of(record) or "crash"]


def _text(record: PointRecord, prefix: str) -> str | None:
    return next((tag[len(prefix) :] for tag in record.tags if tag.startswith(prefix)), None)


def _tagged(record: PointRecord, prefix: str) -> UUID | None:
    try:
        return UUID(_text(record, prefix) or "")
    except ValueError:
        return None


def _own(record: PointRecord) -> datetime | None:
    try:
        return datetime.fromisoformat(_text(record, _OWN) or "")
    except ValueError:
        return None


def _moment(nanoseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=nanoseconds // 1000)
