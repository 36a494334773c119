# SPDX-License-Identifier: Apache-2.0
"""Retention: until when each point is kept, and the removal of those whose time is over.

Invariants
* The newest point of an item stays, however old it is: retention never leaves an item without one.
* A point goes from the store first, and then from the table: a crash in between leaves a row whose point is gone, which
  the next run removes.
* A locked point stays until its lock is over. A soft-deleted item, and one whose protection was stopped to retain its
  data for ever, keep what they have.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa

from keepstone.catalogue import every, items, points, policies
from keepstone.control import points as made
from keepstone.control import policies as stored
from keepstone.control.plane import Plane
from keepstone.control.vaults import each
from keepstone.vault import Kept, Policy, RecoveryPoint, StoredPolicy, Vault, judge, zone
from keepstone.vault.properties import is_immutable

__all__ = ["Judged", "apply", "judged", "remove", "sweep"]

_TOGETHER = 25
"""Items that one transaction reads, and whose dates one transaction writes: it has the lock for some milliseconds."""


class Judged(NamedTuple):
    """What is read of a point to judge it, for there may be a million; the columns of the same names."""

    item: UUID
    name: str
    commit_id: str
    type: str
    made: datetime
    own: datetime | None
    until: datetime | None
    rule: str | None
    locked: datetime | None


def judged(policy: Policy, found: Sequence[RecoveryPoint] | Sequence[Judged]) -> dict[str, Kept]:
    """What a policy says of points, by their names. Each type of backup has a retention of its own; a point of a type
    that the policy does not have any more is judged as a full one."""
    kept: dict[str, Kept] = {}
    parts = {str(part.type): part for part in policy.parts}
    for kind in {point.type if point.type in parts else "Full" for point in found}:
        mine = [point for point in found if (point.type if point.type in parts else "Full") == kind]
        dates = {point.name: point.made for point in mine}
        own = {point.name: point.own for point in mine if point.own is not None}
        kept |= judge(parts[kind].retention, dates, zone(policy.zone), own=own)
    return kept


def apply(plane: Plane, vault: Vault, item: UUID) -> list[Judged]:
    """Judge the points of an item anew, and remove those whose time is over; these."""
    return _apply(plane, vault, [item])


def sweep(plane: Plane) -> int:
    """The same for every item of every vault; how many points went."""
    gone: list[Judged] = []
    each(plane, "retention", lambda vault: gone.extend(_sweep(plane, vault)))
    return len(gone)


def _sweep(plane: Plane, vault: Vault) -> Iterator[Judged]:
    with plane.look() as connection:
        query = sa.select(items.c.id).where(items.c.vault == vault.id, items.c.policy.is_not(None))
        mine = connection.execute(query).scalars().all()
    for at in range(0, len(mine), _TOGETHER):
        yield from _apply(plane, vault, mine[at : at + _TOGETHER])


def remove(plane: Plane, vault: UUID, gone: Iterable[RecoveryPoint | Judged]) -> None:
    """Remove points for ever."""
    for point in gone:
        made.destroy(plane.stores.open(vault), point.commit_id)
        with plane.database.change() as connection:
            mine = points.c.item == point.item, points.c.name == point.name
            connection.execute(points.delete().where(*mine))


def _apply(plane: Plane, vault: Vault, subjects: Sequence[UUID]) -> list[Judged]:
    with plane.look() as connection:
        wanted = items.c.id.in_(subjects), items.c.policy.is_not(None), items.c.deleted.is_(None)
        chosen: dict[UUID, UUID] = dict(connection.execute(sa.select(items.c.id, items.c.policy).where(*wanted)).all())
        known = {one.id: one for one in every(connection, StoredPolicy, policies.c.id.in_(set(chosen.values())))}
        columns = [points.c[name] for name in Judged._fields]
        found: dict[UUID, list[Judged]] = defaultdict(list)
        for row in connection.execute(sa.select(*columns).where(points.c.item.in_(chosen))):
            found[row[0]].append(Judged(*row))
    immutable = is_immutable(vault.properties)
    over: list[Judged] = []
    changed: list[dict[str, Any]] = []
    for item, mine in found.items():
        _settle(plane, judged(stored.parsed(known[chosen[item]]), mine), mine, immutable, over, changed)
    if changed:
        _write(plane, changed)
    remove(plane, vault.id, over)
    return over


def _settle(
    plane: Plane,
    kept: dict[str, Kept],
    found: Sequence[Judged],
    immutable: bool,
    over: list[Judged],
    changed: list[dict[str, Any]],
) -> None:
    """Gathers the points of an item whose time is over, and what is to be written down. In an immutable vault a changed
    policy makes no point's time shorter."""
    now = plane.env.utc()
    newest = max(found, key=lambda point: (point.made, point.name))
    for point in found:
        verdict = kept[point.name]
        until = verdict.until or point.made  # one for which no rule speaks may go
        if immutable and point.until is not None and until < point.until:
            until = point.until
        if until <= now and point is not newest and (point.locked is None or point.locked <= now):
            over.append(point)
        reason = max(verdict.reasons, key=lambda one: verdict.reasons[one], default=None)
        rule = str(reason) if reason is not None else None
        if until != point.until or rule != point.rule:
            changed.append({"item_": point.item, "name_": point.name, "until_": until, "rule_": rule})


def _write(plane: Plane, changed: list[dict[str, Any]]) -> None:
    mine = points.c.item == sa.bindparam("item_"), points.c.name == sa.bindparam("name_")
    dates: dict[str, Any] = {"until": sa.bindparam("until_"), "rule": sa.bindparam("rule_")}
    with plane.database.change() as connection:
        connection.execute(points.update().where(*mine).values(**dates), changed)
