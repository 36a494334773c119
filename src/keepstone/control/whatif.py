# SPDX-License-Identifier: Apache-2.0
"""What a changed policy would do to the recovery points of its items, before anybody saves it.

The points are judged as retention will judge them (`retention.py`): each type of backup by its own part, the newest
point of an item stays, a locked point stays until its lock is over, and in an immutable vault no point's time gets
shorter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from keepstone.catalogue import containers, every, points
from keepstone.control import policies, retention
from keepstone.vault import Container, Item, Kept, Policy, RecoveryPoint, StoredPolicy, Vault, read_policy
from keepstone.vault.properties import is_immutable

__all__ = ["Fate", "Foreseen", "Outcome", "foresee"]


class Outcome(StrEnum):
    """What becomes of a point. `KEPT`: nothing changes for it."""

    KEPT = "kept"
    LOST = "lost"
    SHORTENED = "shortened"
    LENGTHENED = "lengthened"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """A point under both policies. `now` and `then`: until when each keeps it; None where it goes at once, or stays
    only for as long as it is the newest."""

    point: RecoveryPoint
    now: datetime | None
    then: datetime | None
    newest: bool

    @property
    def outcome(self) -> Outcome:
        """In a word."""
        if self.now == self.then:
            return Outcome.KEPT
        if self.now is not None and self.then is None:
            return Outcome.SHORTENED if self.newest else Outcome.LOST
        if self.now is None or (self.then is not None and self.then > self.now):
            return Outcome.LENGTHENED
        return Outcome.SHORTENED


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """An item with its points, oldest first."""

    container: Container
    item: Item
    fates: Sequence[Fate]


def foresee(
    connection: sa.Connection, vault: Vault, policy: StoredPolicy, properties: Mapping[str, Any], moment: datetime
) -> list[Foreseen]:
    """The items of `policy`, if it had these properties from `moment` on. `InvalidPolicy`."""
    before, after = policies.parsed(policy), read_policy(policy.name, properties)
    immutable = is_immutable(vault.properties)
    held = {one.id: one for one in every(connection, Container, containers.c.vault == vault.id)}
    foreseen = []
    for item in policies.items_of(connection, policy):
        found = every(connection, RecoveryPoint, points.c.item == item.id, order=(points.c.made, points.c.name))
        fates = _fates(found, before, after, immutable, moment)
        foreseen.append(Foreseen(container=held[item.container], item=item, fates=fates))
    return foreseen


def _fates(
    found: Sequence[RecoveryPoint], before: Policy, after: Policy, immutable: bool, moment: datetime
) -> list[Fate]:
    judged = retention.judged(before, found), retention.judged(after, found)

    def until(kept: Mapping[str, Kept], point: RecoveryPoint) -> datetime | None:
        dates = [kept[point.name].until, point.locked, point.until if immutable else None]
        return max((date for date in dates if date is not None and date > moment), default=None)

    fates = []
    for point in found:
        now, then = until(judged[0], point), until(judged[1], point)
        if immutable and now is not None:
            then = now if then is None else max(now, then)
        fates.append(Fate(point=point, now=now, then=then, newest=point is found[-1]))
    return fates
