# SPDX-License-Identifier: Apache-2.0
"""What a changed policy would do to the recovery points of its items, before anybody saves it.

The points are judged as retention will judge them (`retention.py`): each type of backup by its own part, the newest
point of an item stays, a locked point stays until its lock is over, and in an immutable vault no point's time gets
shorter.

All points are counted, on the day on which each was made; by name only those are kept in hand for which something
changes, and of those no more than is asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from keepstone.catalogue import containers, every, points
from keepstone.control import policies, retention
from keepstone.vault import Container, Item, Kept, Policy, StoredPolicy, Vault, read_policy, zone
from keepstone.vault.properties import is_immutable

__all__ = ["DAYS", "Fate", "Foreseen", "Foresight", "Outcome", "Pace", "Point", "Tally", "foresee"]

DAYS = 1100
"""Days that are told apart, the newest ones; three years."""
_TOGETHER = 100
"""Items whose points are in memory at a time."""


class Outcome(StrEnum):
    """What becomes of a point. `KEPT`: nothing changes for it."""

    KEPT = "kept"
    LOST = "lost"
    SHORTENED = "shortened"
    LENGTHENED = "lengthened"


class Point(NamedTuple):
    """What is read of a point; the columns of the same names."""

    item: UUID
    name: str
    type: str
    made: datetime
    own: datetime | None
    until: datetime | None
    locked: datetime | None
    stored: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """A point under both policies. `now` and `then`: until when each keeps it; None where it goes at once, or stays
    only for as long as it is the newest."""

    point: Point
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


@dataclass(slots=True)
class Tally:
    """Points by what becomes of them. `freed`: bytes that were stored for those that are lost; what other points have
    too stays, so it is the most that may come free."""

    counts: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    freed: int = 0

    def add(self, outcome: Outcome, stored: int) -> None:
        """One more point, for which so many bytes were stored."""
        self.counts[outcome] += 1
        if outcome is Outcome.LOST:
            self.freed += stored

    def join(self, other: Tally) -> None:
        """All those of another one."""
        for outcome, count in other.counts.items():
            self.counts[outcome] += count
        self.freed += other.freed

    @property
    def changed(self) -> int:
        """For how many something changes."""
        return sum(self.counts.values()) - self.counts[Outcome.KEPT]


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """An item. `fates`: those of its points for which something changes, oldest first, as far as they are named.
    `late_now`, `late_then`: its newest point is older than the longest time between two runs of the policy."""

    container: Container
    item: Item
    tally: Tally
    fates: Sequence[Fate]
    newest: datetime | None
    late_now: bool
    late_then: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often a policy makes points. `gap`: the longest time between two runs. `late`: how many items have a newest
    point that is older than that."""

    policy: Policy
    gap: timedelta
    late: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Foresight:
    """All items of a policy, those that lose most before the others. `days`: of the new policy's time zone, the last
    `DAYS` of those on which points were made; `earlier`: the days before."""

    items: Sequence[Foreseen]
    total: Tally
    days: Mapping[date, Tally]
    earlier: Tally
    now: Pace
    then: Pace


def foresee(
    connection: sa.Connection,
    vault: Vault,
    policy: StoredPolicy,
    properties: Mapping[str, Any],
    moment: datetime,
    most: int,
) -> Foresight:
    """The items of `policy`, if it had these properties from `moment` on; up to `most` of their points by name.
    `InvalidPolicy`."""
    before, after = policies.parsed(policy), read_policy(policy.name, properties)
    look = _Look(before, after, is_immutable(vault.properties), moment, most)
    held = {one.id: one for one in every(connection, Container, containers.c.vault == vault.id)}
    subjects = policies.items_of(connection, policy)
    found: list[Foreseen] = []
    for at in range(0, len(subjects), _TOGETHER):
        together = subjects[at : at + _TOGETHER]
        mine = _points_of(connection, together)
        found += (look.at(held[item.container], item, mine[item.id]) for item in together)
    order = (Outcome.LOST, Outcome.SHORTENED, Outcome.LENGTHENED)
    found.sort(key=lambda one: ([-one.tally.counts[outcome] for outcome in order], not one.late_then, one.item.key))
    total = Tally()
    for one in found:
        total.join(one.tally)
    days, earlier = _last_days(look.days)
    return Foresight(
        items=found,
        total=total,
        days=days,
        earlier=earlier,
        now=Pace(policy=before, gap=look.gap_now, late=sum(one.late_now for one in found)),
        then=Pace(policy=after, gap=look.gap_then, late=sum(one.late_then for one in found)),
    )


class _Look:
    """Both policies, and what is gathered over all items."""

    def __init__(self, before: Policy, after: Policy, immutable: bool, moment: datetime, most: int) -> None:
        self._before, self._after, self._immutable, self._moment, self._most = before, after, immutable, moment, most
        self._zone = zone(after.zone)
        self.gap_now, self.gap_then = before.longest_gap, after.longest_gap
        self.days: dict[date, Tally] = defaultdict(Tally)

    def at(self, container: Container, item: Item, found: Sequence[Point]) -> Foreseen:
        tally, named = Tally(), []
        for fate in _fates(found, self._before, self._after, self._immutable, self._moment):
            outcome = fate.outcome
            tally.add(outcome, fate.point.stored)
            self.days[_day(fate.point.made, self._zone)].add(outcome, fate.point.stored)
            if outcome is not Outcome.KEPT and self._most:
                self._most -= 1
                named.append(fate)
        newest = found[-1].made if found else None
        age = self._moment - newest if newest is not None else timedelta()
        return Foreseen(
            container=container,
            item=item,
            tally=tally,
            fates=named,
            newest=newest,
            late_now=age > self.gap_now,
            late_then=age > self.gap_then,
        )


def _points_of(connection: sa.Connection, subjects: Sequence[Item]) -> Mapping[UUID, list[Point]]:
    """Those of each item, oldest first."""
    columns = [points.c[name] for name in Point._fields]
    query = sa.select(*columns).where(points.c.item.in_([item.id for item in subjects]))
    found: dict[UUID, list[Point]] = defaultdict(list)
    for row in connection.execute(query.order_by(points.c.made, points.c.name)):
        found[row[0]].append(Point(*row))
    return found


def _last_days(days: Mapping[date, Tally]) -> tuple[dict[date, Tally], Tally]:
    ordered = sorted(days)
    earlier = Tally()
    for day in ordered[:-DAYS]:
        earlier.join(days[day])
    return {day: days[day] for day in ordered[-DAYS:]}, earlier


def _day(moment: datetime, rules: ZoneInfo) -> date:
    return moment.astimezone(rules).date()


def _fates(found: Sequence[Point], before: Policy, after: Policy, immutable: bool, moment: datetime) -> Iterator[Fate]:
    judged = retention.judged(before, found), retention.judged(after, found)

    def until(kept: Mapping[str, Kept], point: Point) -> datetime | None:
        dates = [kept[point.name].until, point.locked, point.until if immutable else None]
        return max((date for date in dates if date is not None and date > moment), default=None)

    for point in found:
        now, then = until(judged[0], point), until(judged[1], point)
        if immutable and now is not None:
            then = now if then is None else max(now, then)
        yield Fate(point=point, now=now, then=then, newest=point is found[-1])
