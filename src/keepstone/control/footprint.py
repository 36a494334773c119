# SPDX-License-Identifier: Apache-2.0
"""What the items and policies of a vault cost: their bytes in its store, as `store/usage.py` counts them.

A count reads the manifests of all points, which takes seconds, or minutes where there are very many. So a job counts,
and the newest count is kept. Whoever asks gets that one at once; where it is older than a minute, and than twenty times
what it took, a job is asked for another one. Nobody counts what nobody wants to know, and counting is at most a
twentieth of a worker's time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

import msgspec
import sqlalchemy as sa

from keepstone.catalogue import containers, every, footprints, items, policies
from keepstone.control import jobs, points
from keepstone.control.plane import Change, Plane
from keepstone.decoders import known
from keepstone.errors import Conflict
from keepstone.jobs import Status
from keepstone.vault import Container, Item, StoredPolicy, Vault

if TYPE_CHECKING:
    from keepstone.store.usage import Footprint

__all__ = ["COUNT", "Cost", "Count", "Found", "ItemCost", "PolicyCost", "count", "keep", "newest"]

COUNT = "CountUsage"
"""The operation of the job."""
_LEAST, _TIMES = timedelta(minutes=1), 20
_PAUSE = timedelta(minutes=1)  # after a count that failed
_OPEN = (Status.QUEUED, Status.RUNNING, Status.CANCELLING)
C = TypeVar("C", bound="Cost")
_STRAY = ""  # the group of points whose item the catalogue does not know


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """In bytes; each means what it means in `store.usage.Footprint`."""

    points: int
    logical: int
    referenced: int
    unique: int


class ItemCost(Cost, frozen=True, kw_only=True):
    """`container`, `name`: the item's names then. `policy`: None for none. `deleted`: whether it was soft-deleted."""

    container: str
    name: str
    friendly: str
    policy: str | None
    deleted: bool


class PolicyCost(Cost, frozen=True, kw_only=True):
    """`unique`: of the chunks that only items of this policy need."""

    name: str
    items: int


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """`items`, `policies`: those that have points, the one with the most unique bytes first. `stray`: points whose item
    is not known. The others are of the whole store, and mean what they mean in `store.usage.Usage`."""

    began: datetime
    seconds: float
    items: list[ItemCost]
    policies: list[PolicyCost]
    stray: Cost | None
    points: int
    logical: int
    referenced: int
    shared: int
    dead: int
    overhead: int
    damage: list[str]


@dataclass(frozen=True, slots=True)
class Found:
    """`count`: None while there was none. `job`: what counts, or will, once more."""

    count: Count | None
    job: UUID | None


def newest(plane: Plane, vault: Vault, activity: str) -> Found:
    """The newest count, and what is done about one that is old. `Conflict` where there is none, and counting failed
    just now."""
    with plane.look() as connection:
        query = sa.select(footprints.c.due, footprints.c.found).where(footprints.c.vault == vault.id)
        row = connection.execute(query).first()
    job = None
    if row is None or row.due <= plane.env.utc():
        with plane.change() as change:
            job = _asked(change, vault, activity, is_needed=row is None)
    return Found(None if row is None else msgspec.convert(row.found, known(Count)), job)


def ask(change: Change, vault: Vault, activity: str) -> UUID:
    """Ask for a count; its job. `Conflict` where the last one failed just now."""
    job = _asked(change, vault, activity, is_needed=True)
    assert job is not None
    return job


def _asked(change: Change, vault: Vault, activity: str, *, is_needed: bool) -> UUID | None:
    """See to it that there is a job; it. None where the last one failed just now."""
    for last in jobs.listing(change.connection, vault, operation=COUNT, limit=1):
        if last.status in _OPEN:
            return last.id
        if last.status == Status.FAILED and last.ended is not None and last.ended > change.now - _PAUSE:
            if not is_needed:
                return None
            reason = (last.error or {}).get("message", "")
            raise Conflict(f"the usage of vault '{vault.name}' could not be counted: {reason}. Try again in a minute")
    about = {"entity": vault.name}
    return change.plane.queue.enqueue(change.connection, COUNT, about, vault=vault.id, activity=activity)


def keep(plane: Plane, connection: sa.Connection, vault: UUID, found: Count) -> None:
    """Write a count over the one that there was."""
    due = plane.env.utc() + max(_LEAST, _TIMES * timedelta(seconds=found.seconds))
    row = {"due": due, "found": msgspec.to_builtins(found)}
    if not connection.execute(footprints.update().where(footprints.c.vault == vault).values(**row)).rowcount:
        connection.execute(footprints.insert().values(vault=vault, **row))


def count(plane: Plane, vault: UUID, tick: Callable[[int, int], None]) -> Count:
    """Count. `tick` hears of the points that are done and of all; what it raises ends the count."""
    began, clock = plane.env.utc(), plane.env.boot_time()
    with plane.look() as connection:
        known = {str(item.id): item for item in every(connection, Item, items.c.vault == vault)}
        titles = {one.id: one.name for one in every(connection, StoredPolicy, policies.c.vault == vault)}
        held = {one.id: one.name for one in every(connection, Container, containers.c.vault == vault)}
    policy_of = {name: titles.get(item.policy) if item.policy else None for name, item in known.items()}
    used = plane.stores.open(vault).usage(
        lambda record: name if (name := str(points.item_of(record))) in known else _STRAY, policy_of.get, tick
    )
    protected = Counter(policy_of.values())
    return Count(
        began=began,
        seconds=(plane.env.boot_time() - clock) / 1e9,
        items=_dearest(
            ItemCost(
                container=held[known[name].container],
                name=known[name].name,
                friendly=known[name].friendly,
                policy=policy_of[name],
                deleted=known[name].deleted is not None,
                **_bytes(one),
            )
            for name, one in used.groups.items()
            if name != _STRAY
        ),
        policies=_dearest(
            PolicyCost(name=name, items=protected[name], **_bytes(one)) for name, one in used.families.items()
        ),
        stray=Cost(**_bytes(used.groups[_STRAY])) if _STRAY in used.groups else None,
        points=used.points,
        logical=used.logical,
        referenced=used.referenced,
        shared=used.shared,
        dead=used.dead,
        overhead=used.overhead,
        damage=used.damage,
    )


def _bytes(one: Footprint) -> dict[str, int]:
    return {"points": one.points, "logical": one.logical, "referenced": one.referenced, "unique": one.unique}


def _dearest(costs: Iterable[C]) -> list[C]:
    return sorted(costs, key=lambda cost: (-cost.unique, -cost.referenced))
