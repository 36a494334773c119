# SPDX-License-Identifier: Apache-2.0
"""A backup: the item's workload writes a point into the vault's store, and the catalogue learns of it.

The point exists from its commit in the store on, and carries the id of its job. A worker that takes the job over looks
for such a point first, so a job makes one point however many workers it takes. What a dead worker had stored is found
by its ids, and is not stored again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from keepstone.catalogue import first, items, points
from keepstone.control import clientkeys, retention, snapshots, virtual_machines, writers
from keepstone.control import points as made
from keepstone.control.plane import Change, Plane
from keepstone.control.sizes import octets
from keepstone.control.work.loading import Subject, ending, subject
from keepstone.control.work.reporter import Reporter
from keepstone.errors import KeepstoneError
from keepstone.jobs import Context, Status
from keepstone.store import PointRecord, Store
from keepstone.vault import RecoveryPoint
from keepstone.workloads.files import Selection, backup_files

__all__ = ["Snapshots", "backup", "enlist", "failed", "make", "own_date", "remember"]


@dataclass(slots=True)
class Snapshots:
    """For how many days that of a new point stays on its hypervisor, and what there is of them then; None where nobody
    told."""

    days: int
    there: Sequence[int] | None = None


def backup(plane: Plane, context: Context) -> None:
    """The handler. Its arguments: `part`, a type of backup; `until`, when the point's own time is over."""
    about = subject(plane, context)
    try:
        for path in virtual_machines.paths(about.item.source):
            plane.reach.check(path)
        clientkeys.check_open(about.item)
        store = plane.stores.open(about.vault.id)
        reporter = Reporter(context)
        wanted = Snapshots(snapshots.days_of(plane, about.item) if plane.snapshots is not None else 0)
        commit, record = make(plane, context, about, store, reporter, wanted)
    except KeepstoneError:
        failed(plane, about)
        raise
    remember(plane, context, about, commit, record, reporter.warnings, count=reporter.count, wanted=wanted)


def make(
    plane: Plane,
    context: Context,
    about: Subject,
    store: Store,
    reporter: Reporter,
    wanted: Snapshots | None = None,
) -> tuple[str, PointRecord]:
    """The point of a job: the one that an earlier attempt of it made, or a new one. `wanted`: the snapshot of it that
    stays; without, those that are there are left as they are."""
    found = made.commit_of_job(store, context.claim.id) if context.claim.attempt > 1 else None
    if found is not None:
        context.note("its point is in the store already: whoever had the job before made it")
        return found
    return _make(plane, context, about, store, reporter, wanted)


def _make(
    plane: Plane, context: Context, about: Subject, store: Store, reporter: Reporter, wanted: Snapshots | None
) -> tuple[str, PointRecord]:
    env, source = plane.env, about.item.source
    kind = made.kind(about.item)
    name = made.store_name(about.container.friendly, about.item)
    arguments = context.claim.arguments
    context.note(f"reads {about.item.friendly}, and stores what the vault has not")
    tags = made.tags(about.item.id, context.claim.id, arguments.get("part", "Full"), own_date(arguments))
    writers.note(plane, about.vault.id)
    with store.writer(name, kind, tags=tags) as writer:
        if kind == made.FILES:
            report = backup_files(env, writer, os.fsencode(source["path"]), _selection(plane, source), reporter)
            commit = report.commit
        elif kind == made.MACHINE:
            from keepstone.workloads.hypervisors.backup import backup_vm
            from keepstone.workloads.kvm import Keep

            owner = snapshots.owner_of(store, about.item)
            keep = None if wanted is None else Keep(wanted.days)
            folder = plane.snapshots
            reach = plane.reach.check
            commit = backup_vm(
                env, writer, source, reporter, owner=owner, snapshots=folder, keep=keep, readable=reach
            ).commit
            if wanted is not None and keep is not None:
                wanted.there = keep.there
        else:
            from keepstone.disks import open_disk
            from keepstone.workloads.images import backup_image

            path = Path(source["path"])
            with open_disk(env, path, allowed=plane.reach.check) as disk:
                commit = backup_image(env, writer, disk, reporter, name=os.fsencode(path)).commit
    record = store.commits.get(commit)
    assert isinstance(record, PointRecord)
    return commit, record


def own_date(arguments: Mapping[str, Any]) -> datetime | None:
    """When the point's own time is over, where its job says so."""
    given = arguments.get("until")
    return datetime.fromisoformat(given) if given else None


def _selection(plane: Plane, source: Mapping[str, Any]) -> Selection:
    """What of the tree is taken; never the service's own folder, which has the keys."""
    root, top = plane.reach.root, Path(source["path"]).resolve()
    never = [str(root.relative_to(top))] if root.is_relative_to(top) else []
    return Selection(
        exclude=source.get("exclude", ()),
        include=source.get("include", ()),
        one_file_system=source.get("oneFileSystem", False),
        skip_caches=source.get("excludeCaches", False),
        never=never,
    )


def remember(
    plane: Plane,
    context: Context,
    about: Subject,
    commit: str,
    record: PointRecord,
    warnings: Sequence[str],
    *,
    count: int = 0,
    wanted: Snapshots | None = None,
) -> None:
    """The point and the end of its job, as one fact; then what its policy says of older points."""
    point = made.of_record(about.item, commit, record)
    warned = record.warnings or count
    context.result({"files": record.files, "warnings": [*warnings], "fresh": record.added, "point": point.name})
    context.note(f"point {point.name} is in the store; {octets(record.added)} of it are new there")
    with ending(plane, context, Status.WARNED if warned else Status.COMPLETED) as change:
        enlist(change, point)
        if wanted is not None and wanted.there is not None:
            snapshots.note(change, point, record, wanted.days, wanted.there)
    retention.apply(plane, about.vault, about.item.id)


def enlist(change: Change, point: RecoveryPoint) -> None:
    """List a point that was made, and what it means to its item; once more changes nothing."""
    connection = change.connection
    mine = points.c.item == point.item, points.c.name == point.name
    if first(connection, RecoveryPoint, *mine) is None:
        made.add(connection, point)
    newest = sa.case((items.c.newest > point.made, items.c.newest), else_=sa.literal(point.made, items.c.newest.type))
    values = {"backed_up": change.now, "outcome": "Completed", "newest": newest}
    connection.execute(items.update().where(items.c.id == point.item).values(**values))


def failed(plane: Plane, about: Subject) -> None:
    """The newest run of a backup has failed."""
    with plane.database.change() as connection:
        values = {"backed_up": plane.env.utc(), "outcome": "Failed"}
        connection.execute(items.update().where(items.c.id == about.item.id).values(**values))
