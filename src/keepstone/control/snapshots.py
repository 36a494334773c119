# SPDX-License-Identifier: Apache-2.0
"""Which points have snapshots on their hypervisors still (Azure's instant restore, `instantRpRetentionRangeInDays`).

The hypervisor is right about that, and the table is what was last seen: after each backup, every hour, and when a
restore finds nothing. They all go where their folder has hardly any room left: others may need it. Where whoever runs
the service named no folder for them (`keepstone up --snapshots`), none stay.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from datetime import timedelta
from uuid import UUID

import sqlalchemy as sa

from keepstone.catalogue import every, items, one, snapshots
from keepstone.control import policies, virtual_machines
from keepstone.control.plane import Change, Plane
from keepstone.errors import KeepstoneError, NotFound, SourceMissing
from keepstone.store import PointRecord, Store
from keepstone.vault import Item, RecoveryPoint, StoredPolicy

__all__ = ["days_of", "has", "look", "look_all", "note", "owner_of", "there"]

_log = logging.getLogger(__name__)


def owner_of(store: Store, item: Item) -> str:
    """What an item has in a hypervisor goes by this."""
    return f"{store.descriptor.store}/{item.id}"


def days_of(plane: Plane, item: Item) -> int:
    """For how many days a snapshot of a new point stays; 0 for none."""
    if plane.snapshots is None or item.policy is None:
        return 0
    with plane.look() as connection:
        policy = one(connection, StoredPolicy, id=item.policy)
    return policies.parsed(policy).snapshot_days or 0 if policy is not None else 0


def note(change: Change, point: RecoveryPoint, record: PointRecord, days: int, stamps: Collection[int]) -> None:
    """A point was made, and these are the snapshots of its item that are there now."""
    from keepstone.workloads.machines.naming import stamp_of
    from keepstone.workloads.machines.root import tokens

    stamp = next(map(stamp_of, tokens(record).values()), 0)
    _only(change.connection, point.item, stamps)
    mine = snapshots.c.item == point.item, snapshots.c.point == point.name
    change.connection.execute(snapshots.delete().where(*mine))
    if stamp in stamps:
        until = point.made + timedelta(days=days)
        row = {"item": point.item, "point": point.name, "stamp": stamp, "until": until}
        change.connection.execute(snapshots.insert().values(**row))


def there(connection: sa.Connection, item: Item) -> frozenset[str]:
    """The names of the points of an item whose snapshots were there when somebody last looked."""
    query = sa.select(snapshots.c.point).where(snapshots.c.item == item.id)
    return frozenset(connection.execute(query).scalars())


def has(plane: Plane, item: Item, point: RecoveryPoint) -> bool:
    """Whether the snapshot of this point was there."""
    with plane.look() as connection:
        return point.name in there(connection, item)


def look_all(plane: Plane) -> None:
    """Look at those of all items, and let those go whose time is over."""
    with plane.look() as connection:
        found = every(connection, Item, items.c.id.in_(sa.select(snapshots.c.item)))
    for item in found:
        look(plane, item)


def look(plane: Plane, item: Item, *, none: bool = False) -> None:
    """The same of one item that had some, or let all of them go. What has no time now is looked at the next time."""
    from keepstone.workloads.hypervisors.near import still_kept

    with plane.look() as connection:
        if not there(connection, item):
            return
    none = none or item.deleted is not None or not _has_room(plane)
    try:
        for path in virtual_machines.paths(item.source):
            plane.reach.check(path)
        stamps: Sequence[int] = still_kept(
            plane.env, item.source, owner_of(plane.stores.open(item.vault), item), none=none
        )
    except (SourceMissing, NotFound):
        stamps = []  # QEMU has ended, and nothing of them is left
    except KeepstoneError as error:
        _log.warning("the snapshots of '%s' are looked at the next time: %s", item.friendly, error)
        return
    with plane.database.change() as connection:
        _only(connection, item.id, stamps)


def _has_room(plane: Plane) -> bool:
    """Whether there is a folder for them, with enough room to go on."""
    from keepstone.workloads.machines import Room

    try:
        return plane.snapshots is not None and not Room(plane.env, plane.snapshots).ends()
    except OSError:
        return False


def _only(connection: sa.Connection, item: UUID, stamps: Collection[int]) -> None:
    connection.execute(snapshots.delete().where(snapshots.c.item == item, snapshots.c.stamp.not_in(list(stamps))))
