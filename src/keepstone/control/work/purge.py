# SPDX-License-Identifier: Apache-2.0
"""The end of a deleted item: its points go from the store, and then it is forgotten."""

from __future__ import annotations

from keepstone.catalogue import every, points, schedules
from keepstone.control import looks, retention, virtual_machines
from keepstone.control.items import PURGE
from keepstone.control.plane import Plane
from keepstone.control.work.loading import ending, subject
from keepstone.errors import Conflict
from keepstone.jobs import Context
from keepstone.vault import RecoveryPoint

__all__ = ["PURGE", "purge"]


def purge(plane: Plane, context: Context) -> None:
    """The handler. `Conflict` where the item was taken back meanwhile."""
    about = subject(plane, context)
    item = about.item
    if item.deleted is None or item.purge is None or item.purge > plane.env.utc():
        raise Conflict(f"'{item.friendly}' was taken back; nothing of it was removed")
    if virtual_machines.is_running(item):
        looks.purged(plane, about.container, item)
    with plane.look() as connection:
        found = every(connection, RecoveryPoint, points.c.item == item.id)
    for number, point in enumerate(found):
        context.progress(number, len(found), f"{number} of {len(found)} points removed")
        context.check()
        retention.remove(plane, about.vault.id, [point])
    with ending(plane, context) as change:
        change.connection.execute(schedules.delete().where(schedules.c.item == item.id))
        change.remove(item)
