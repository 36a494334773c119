# SPDX-License-Identifier: Apache-2.0
"""Which points have snapshots on their hypervisors still (Azure's instant restore, `instantRpRetentionRangeInDays`).

The hypervisor is right about that, and the table is what was last seen: after each backup, every hour, and when a
restore finds nothing. They all go where their folder has hardly any room left: others may need it. Where whoever runs
the service named no folder for them (`keepstone up --snapshots`), none stay.

Those on the host of an agent are its own affair, folder and room included (`looks.py`): nothing of them is looked for
here. One whose time is over counts for nothing, also where its agent was not heard of since.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa

from keepstone.catalogue import containers, every, items, one, snapshots
from keepstone.control import agents, policies, virtual_machines
from keepstone.control.plane import Change, Plane
from keepstone.errors import KeepstoneError, NotFound, SourceMissing
from keepstone.store import PointRecord, Store
from keepstone.vault import Container, Item, RecoveryPoint, StoredPolicy

__all__ = [
    "days_of",
    "gone",
    "has",
    "keepers",
    "let_go",
    "look",
    "look_all",
    "note",
    "only",
    "owner_of",
    "stamps_of",
    "there",
]

_log = logging.getLogger(__name__)
_FORGOTTEN = timedelta(days=30)  # after the end of its time a row that no agent was heard of about goes


def owner_of(store: Store, item: Item) -> str:
    """What an item has in a hypervisor goes by this."""
    return f"{store.descriptor.store}/{item.id}"


def days_of(plane: Plane, item: Item) -> int:
    """For how many days a snapshot of a new point stays, by the item's policy; 0 for none."""
    if item.policy is None:
        return 0
    with plane.look() as connection:
        policy = one(connection, StoredPolicy, id=item.policy)
    return policies.parsed(policy).snapshot_days or 0 if policy is not None else 0


def note(change: Change, point: RecoveryPoint, record: PointRecord, days: int, stamps: Collection[int]) -> None:
    """A point was made, and these are the snapshots of its item that are there now."""
    from keepstone.workloads.machines.root import stamp_of

    stamp = stamp_of(record)
    only(change.connection, point.item, stamps)
    mine = snapshots.c.item == point.item, snapshots.c.point == point.name
    change.connection.execute(snapshots.delete().where(*mine))
    if stamp in stamps:
        until = point.made + timedelta(days=days)
        row = {"item": point.item, "point": point.name, "stamp": stamp, "until": until}
        change.connection.execute(snapshots.insert().values(**row))


def there(connection: sa.Connection, item: Item, now: datetime) -> frozenset[str]:
    """The names of the points of an item whose snapshots were there when somebody last looked."""
    query = sa.select(snapshots.c.point).where(snapshots.c.item == item.id, snapshots.c.until > now)
    return frozenset(connection.execute(query).scalars())


def has(plane: Plane, held: Container, item: Item, point: str, machine: UUID | None = None) -> bool:
    """Whether the snapshot of this point was there, and is within the reach of this machine's agent; None: of the
    service. `held`: the item's container."""
    with plane.look() as connection:
        return point in there(connection, item, plane.env.utc()) and agents.machine_of(connection, held) == machine


def keepers(connection: sa.Connection, *where: sa.ColumnElement[bool]) -> list[tuple[Item, UUID | None]]:
    """Those of these items that had some, each with the machine whose agent reaches them; None: the service does."""
    found = every(connection, Item, items.c.id.in_(sa.select(snapshots.c.item)), *where)
    held = every(connection, Container, containers.c.id.in_({item.container for item in found}))
    reach = agents.machines_of(connection, held)
    return [(item, reach[item.container]) for item in found]


def look_all(plane: Plane) -> None:
    """Look at those of all items that the service reaches, and let those go whose time is over."""
    with plane.database.change() as connection:
        connection.execute(snapshots.delete().where(snapshots.c.until < plane.env.utc() - _FORGOTTEN))
        found = keepers(connection)
    for item, machine in found:
        if machine is None:
            look(plane, item)


def look(plane: Plane, item: Item, *, none: bool = False) -> None:
    """The same of one item that had some, or let all of them go. What has no time now is looked at the next time."""
    with plane.look() as connection:
        if not stamps_of(connection, item.id):
            return
    try:
        let_go(plane, item, none=none or item.deleted is not None or not _has_room(plane))
    except KeepstoneError as error:
        _log.warning("the snapshots of '%s' are looked at the next time: %s", item.friendly, error)


def let_go(plane: Plane, item: Item, *, none: bool = True) -> None:
    """Let those of an item go whose time is over, or all of them. `GuardRefused`, `Gone`, `Refused`."""
    from keepstone.workloads.hypervisors.near import still_kept

    for path in virtual_machines.paths(item.source):
        plane.reach.check(path)
    try:
        stamps = still_kept(plane.env, item.source, owner_of(plane.stores.open(item.vault), item), none=none)
    except (SourceMissing, NotFound):
        stamps = []  # QEMU has ended, and nothing of them is left
    with plane.database.change() as connection:
        only(connection, item.id, stamps)


def _has_room(plane: Plane) -> bool:
    """Whether there is a folder for them, with enough room to go on."""
    from keepstone.workloads.machines import Room

    try:
        return plane.snapshots is not None and not Room(plane.env, plane.snapshots).ends()
    except OSError:
        return False


def only(connection: sa.Connection, item: UUID, stamps: Collection[int]) -> None:
    """Of this item those alone are there that began then."""
    connection.execute(snapshots.delete().where(snapshots.c.item == item, snapshots.c.stamp.not_in(list(stamps))))


def gone(connection: sa.Connection, item: UUID, stamps: Collection[int]) -> None:
    """Of this item those are gone that began then."""
    connection.execute(snapshots.delete().where(snapshots.c.item == item, snapshots.c.stamp.in_(list(stamps))))


def stamps_of(connection: sa.Connection, item: UUID) -> list[int]:
    """When those of an item began that were there, over or not."""
    return list(connection.execute(sa.select(snapshots.c.stamp).where(snapshots.c.item == item)).scalars())
