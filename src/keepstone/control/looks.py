# SPDX-License-Identifier: Apache-2.0
"""Jobs that look at snapshots, or let them go: on the host of an agent nobody else can, and people ask for it as well.

One job a machine and hour asks about all of its items that had some; which those are is said when its agent takes it. A
job of one item lets all of its snapshots go, wherever they are. An agent tells which of those that the service knew of
are gone, and not which are there: a backup may have made one meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from keepstone.catalogue import containers, every, first, items, jobs
from keepstone.catalogue import vaults as known
from keepstone.control import agents, snapshots, virtual_machines
from keepstone.control.items import work
from keepstone.control.plane import Change, Plane
from keepstone.errors import InvalidRequest
from keepstone.jobs import Claim, Status
from keepstone.remote.wire import LOOK
from keepstone.vault import Container, Item, Vault

__all__ = ["LOOK", "ask", "ask_all", "purged", "told", "wanted"]

_ITEMS = "items"
_MOST = 64  # snapshots of an item of which an agent tells


def ask(change: Change, vault: Vault, held: Container, item: Item, activity: str) -> UUID:
    """Ask that all snapshots of an item go; the job. `InvalidRequest` for one that can have none, `Conflict` where its
    machine has no agent any more."""
    if not virtual_machines.is_running(item):
        raise InvalidRequest(f"'{item.friendly}' is no machine of a hypervisor, and has no snapshots that stay")
    machine = agents.serving(change.connection, held)
    return work(change, vault, held, item, LOOK, activity, {"user": True}, machine)


def ask_all(plane: Plane) -> None:
    """Ask the agents that have to do with some, each once; what was asked for and has not begun is not asked again."""
    with plane.change() as change:
        asked = {machine for _, machine in snapshots.keepers(change.connection) if machine is not None}
        waiting = jobs.c.operation == LOOK, jobs.c.item.is_(None), jobs.c.status == Status.QUEUED
        for machine, arguments in change.connection.execute(
            sa.select(jobs.c.machine, jobs.c.arguments).where(*waiting)
        ):
            if _ITEMS not in arguments:
                asked.discard(machine)
        for machine in asked:
            _enqueue(change, machine, {})


def purged(plane: Plane, held: Container, item: Item) -> None:
    """An item is about to be forgotten: none of its snapshots is to stay."""
    with plane.look() as connection:
        machine = agents.machine_of(connection, held)
    if machine is None:
        snapshots.look(plane, item, none=True)
        return
    with plane.change() as change:
        if snapshots.stamps_of(change.connection, item.id):
            _enqueue(change, machine, {_ITEMS: [_about(change.connection, item, none=True)]})


def _enqueue(change: Change, machine: UUID, more: Mapping[str, Any]) -> None:
    """A job of this agent, where there is one."""
    agent = agents.of_container(change.connection, machine)
    if agent is None or agent.revoked is not None:
        return
    held = first(change.connection, Container, containers.c.id == machine)
    vault = first(change.connection, Vault, known.c.id == agent.vault)
    assert held is not None
    assert vault is not None
    about = {"entity": vault.name, "machine": held.friendly, **more}
    change.plane.queue.enqueue(change.connection, LOOK, about, vault=vault.id, machine=machine, priority=-1)


def wanted(plane: Plane, mine: Claim) -> list[dict[str, Any]]:
    """The items that the agent which holds this job is asked about, as `wire.LOOK` has them."""
    given: list[dict[str, Any]] | None = mine.arguments.get(_ITEMS)
    if given is not None:
        return given
    with plane.look() as connection:
        if mine.item is not None:
            return [_about(connection, item, none=True) for item in every(connection, Item, items.c.id == mine.item)]
        found = snapshots.keepers(connection, items.c.vault == mine.vault)
        return [
            _about(connection, item, none=item.deleted is not None)
            for item, machine in found
            if machine == mine.machine
        ]


def _about(connection: sa.Connection, item: Item, *, none: bool) -> dict[str, Any]:
    stamps = snapshots.stamps_of(connection, item.id)
    return {"item": str(item.id), "name": item.friendly, "source": item.source, "stamps": stamps, "none": none}


def told(change: Change, mine: Claim, found: Iterable[Mapping[str, Any]]) -> None:
    """Keep what an agent tells, which may be anything: of items that are its own."""
    reach = snapshots.keepers(change.connection, items.c.vault == mine.vault)
    own = {str(item.id): item for item, machine in reach if machine == mine.machine}
    for one in found:
        item = own.pop(str(one.get("item")), None)
        if item is not None:
            snapshots.gone(change.connection, item.id, _stamps(one.get("gone")))


def _stamps(told: object) -> Sequence[int]:
    """Those that can be some."""
    if not isinstance(told, list):
        return []
    return [stamp for stamp in told[:_MOST] if type(stamp) is int and 0 <= stamp < 1 << 32]
