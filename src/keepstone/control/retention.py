# SPDX-License-Identifier: Apache-2.0
"""Retention: until when each point is kept, and the removal of those whose time is over.

Invariants
* The newest point of an item stays, however old it is: retention never leaves an item without one.
* A point goes from the store first, and then from the table: a crash in between leaves a row whose point is gone, which
  the next run removes.
* A locked point stays until its lock is over. A soft-deleted item, and one whose protection was stopped to retain its
  data for ever, keep what they have.
* An item is judged again when something has changed that verdicts depend on, and when the time of a point is over; and
  once in a while whatever happens, for the rules of a time zone are none of ours. What a sweep leaves out would not
  have changed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import sqlalchemy as sa

from keepstone.catalogue import every, judging, one, points, policies
from keepstone.catalogue.judging import Judgement
from keepstone.control import points as made
from keepstone.control import policies as stored
from keepstone.control.plane import Plane
from keepstone.control.vaults import each
from keepstone.vault import Kept, Policy, RecoveryPoint, StoredPolicy, Vault, judge, zone
from keepstone.vault.properties import is_immutable

__all__ = ["Dated", "Judged", "apply", "judged", "remove", "sweep"]

_TOGETHER = 25
"""Items that one transaction reads, and whose dates one transaction writes: it has the lock for some milliseconds."""
_LATEST = timedelta(days=7)
"""After which an item is judged again, although nothing is known to have changed."""


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


class Dated(Protocol):
    """What a point is judged by."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def made(self) -> datetime: ...
    @property
    def own(self) -> datetime | None: ...


def judged(policy: Policy, found: Sequence[Dated]) -> dict[str, Kept]:
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
    """The same for every item of every vault where something can have changed; how many points went."""
    gone: list[Judged] = []
    each(plane, "retention", lambda vault: gone.extend(_sweep(plane, vault)))
    return len(gone)


def _sweep(plane: Plane, vault: Vault) -> Iterator[Judged]:
    with plane.look() as connection:
        mine = judging.due(connection, vault.id, plane.env.utc())
    for at in range(0, len(mine), _TOGETHER):
        yield from _apply(plane, vault, mine[at : at + _TOGETHER])


def remove(plane: Plane, vault: UUID, gone: Iterable[RecoveryPoint | Judged]) -> None:
    """Remove points for ever."""
    for point in gone:
        made.destroy(plane.stores.open(vault), point.commit_id)
        with plane.database.change() as connection:
            made.remove(connection, point.item, point.name)


def _apply(plane: Plane, vault: Vault, subjects: Sequence[UUID]) -> list[Judged]:
    with plane.look() as connection:
        chosen = judging.versions(connection, subjects)  # first of all: what changes after it was not judged
        current = one(connection, Vault, id=vault.id)
        mentioned = policies.c.id.in_({policy for policy, _ in chosen.values()})
        known = {policy.id: policy for policy in every(connection, StoredPolicy, mentioned)}
        columns = [points.c[name] for name in Judged._fields]
        found: dict[UUID, list[Judged]] = defaultdict(list)
        for row in connection.execute(sa.select(*columns).where(points.c.item.in_(chosen))):
            found[row[0]].append(Judged(*row))
    if current is None:
        return []
    now, immutable = plane.env.utc(), is_immutable(current.properties)
    over: list[Judged] = []
    changed: list[dict[str, Any]] = []
    settled: list[Judgement] = []
    for item, (policy, version) in chosen.items():
        due: datetime | None = now + _LATEST
        if mine := found[item]:
            due = _settle(now, judged(stored.parsed(known[policy]), mine), mine, immutable, over, changed)
        settled.append(Judgement(item, version, due))
    _write(plane, changed, settled)
    remove(plane, vault.id, over)
    return over


def _settle(
    now: datetime,
    kept: dict[str, Kept],
    found: Sequence[Judged],
    immutable: bool,
    over: list[Judged],
    changed: list[dict[str, Any]],
) -> datetime | None:
    """Gathers the points of an item whose time is over, and what is to be written down. In an immutable vault a changed
    policy makes no point's time shorter. When the item is to be judged again: when the next point's time is over, or
    None for at once, where points go now that others may have to stand for."""
    newest = max(found, key=lambda point: (point.made, point.name))
    due: datetime | None = now + _LATEST
    for point in found:
        verdict = kept[point.name]
        until = verdict.until or point.made  # one for which no rule speaks may go
        if immutable and point.until is not None and until < point.until:
            until = point.until
        end = until if point.locked is None else max(until, point.locked)
        if point is newest:
            pass  # it may go when there is a newer one, which is a change
        elif end <= now:
            over.append(point)
            due = None
        elif due is not None:
            due = min(due, end)
        reason = max(verdict.reasons, key=lambda one: verdict.reasons[one], default=None)
        rule = str(reason) if reason is not None else None
        if until != point.until or rule != point.rule:
            changed.append({"item_": point.item, "name_": point.name, "until_": until, "rule_": rule})
    return due


def _write(plane: Plane, changed: list[dict[str, Any]], settled: list[Judgement]) -> None:
    mine = points.c.item == sa.bindparam("item_"), points.c.name == sa.bindparam("name_")
    dates: dict[str, Any] = {"until": sa.bindparam("until_"), "rule": sa.bindparam("rule_")}
    with plane.database.change() as connection:
        if changed:
            connection.execute(points.update().where(*mine).values(**dates), changed)
        judging.settle(connection, settled)
