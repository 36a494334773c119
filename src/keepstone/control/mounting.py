# SPDX-License-Identifier: Apache-2.0
"""Asking for a point to be shown in the tree of a machine, and for the end of that.

A mount is a job of the machine's agent that goes on until somebody cancels it, the machine unmounts it, or its agent
ends. Whoever waits for its end waits for days: `progress` has where it is as soon as it is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa

from keepstone.catalogue import jobs
from keepstone.control import agents, containers, items, restores
from keepstone.control.plane import Change
from keepstone.errors import Conflict, NotFound, Unsupported
from keepstone.vault import Container, Item, RecoveryPoint, Vault

__all__ = ["MOST", "MOUNT", "Wanted", "mount", "unmount"]

MOUNT = "Mount"
MOST = 8
"""Mounts that a machine has at a time: each takes a process with a cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """`target`: an empty directory of the machine, or a new one. `container`: the machine, by the name of its
    container; None for the item's own. `shared`: for all users there, with the permissions of the entries."""

    target: str
    container: str | None = None
    shared: bool = False


def mount(
    change: Change, vault: Vault, held: Container, item: Item, point: RecoveryPoint, wanted: Wanted, activity: str
) -> UUID:
    """Ask for a mount; its job. `InvalidRequest`; `NotFound` where the vault has no such machine, `Unsupported` where
    it has no agent and never had one, `Conflict` where it has none any more or has `MOST` mounts."""
    there = restores.machine(change, vault, held, wanted.container, wanted.target)
    machine = agents.serving(change.connection, there)
    if machine is None:
        raise Unsupported(
            f"'{there.friendly}' has no agent, and only an agent mounts points; register one with `keepstone agent "
            "register` there, choose another machine, or look into the point with `keepstone recoverypoint browse`"
        )
    target = restores.place(there, wanted.target, elsewhere=True)
    if len(_open(change.connection, jobs.c.machine == machine)) >= MOST:
        raise Conflict(
            f"'{there.friendly}' has {MOST} points mounted, or is asked to; end one of them with `keepstone "
            "recoverypoint unmount`"
        )
    about = {"target": target, "shared": wanted.shared, "point": point.name, "user": True}
    if there.id != held.id:
        about["to"] = there.friendly
    return items.work(change, vault, held, item, MOUNT, activity, about, machine)


def unmount(change: Change, vault: Vault, item: Item, point: RecoveryPoint, container: str | None) -> list[UUID]:
    """Ask for the end of all mounts of a point, or of those on one machine; their jobs. `NotFound` where there is
    none."""
    where = [jobs.c.item == item.id]
    if container is not None:
        where.append(jobs.c.machine == containers.find(change.connection, vault, container).id)
    found = [job for job, name in _open(change.connection, *where) if name == point.name]
    if not found:
        raise NotFound(
            f"point {point.name} of '{item.friendly}' is not mounted; `keepstone job list --operation {MOUNT}` shows "
            "what was"
        )
    for job in found:
        change.plane.queue.cancel(change.connection, job)
    return found


def _open(connection: sa.Connection, *where: sa.ColumnElement[bool]) -> list[tuple[UUID, str]]:
    """The mounts that are asked for or go on, each with its point."""
    mine = jobs.c.ended.is_(None), jobs.c.operation == MOUNT
    rows = connection.execute(sa.select(jobs.c.id, jobs.c.arguments).where(*mine, *where)).all()
    return [(job, str(arguments.get("point"))) for job, arguments in rows]
