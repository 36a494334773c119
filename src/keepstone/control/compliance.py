# SPDX-License-Identifier: Apache-2.0
"""How well items kept to the schedules of their policies: which of the points that they should have there are
(`vault/rpo.py`), of the last 30 days, and of the days of a calendar.

An item is asked only for runs since it was protected as it is now: by this policy, as that is now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

import msgspec
import sqlalchemy as sa

from keepstone.catalogue import footprints, jobs, points
from keepstone.catalogue.columns import Moment
from keepstone.control import policies
from keepstone.control.footprint import Count, ItemCost
from keepstone.control.growth import MONTH
from keepstone.control.items import PROTECTED
from keepstone.decoders import known
from keepstone.vault import Container, Item, StoredPolicy, last_runs, zone
from keepstone.vault.rpo import Span, expected, has_point

__all__ = ["WEEKS", "Compliance", "Day", "History", "compliance", "cost", "history"]

WEEKS = 26
_CONFIGURED = ("ConfigureBackup", "Undelete")
_DAY = 86_400_000_000  # microseconds, as a column of moments counts
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Compliance:
    """`expected`: runs of the policy from `since` on that are over and whose points would be there still. `kept`: those
    that made one in time."""

    since: datetime
    expected: int
    kept: int


@dataclass(frozen=True, slots=True)
class Day:
    """A day of UTC. `points`: those made on it. `logical`: the bytes of its largest one; `added`: those written for
    them. `missed`: runs that began on it and made no point in time."""

    day: date
    points: int
    logical: int
    added: int
    missed: int


@dataclass(frozen=True, slots=True)
class History:
    """`begin`: the first day of the calendar. `days`: those with points, since ever, and those of the calendar on which
    one is missing, in order. `runs`: the last two of its policy, the earlier one first. Those and `compliance`: nothing
    while nothing makes points."""

    begin: date
    days: list[Day]
    runs: Sequence[datetime]
    compliance: Compliance | None


def compliance(
    connection: sa.Connection, of: Sequence[tuple[Item, StoredPolicy | None]], now: datetime
) -> dict[UUID, Compliance]:
    """Of those of these items that are protected, by their ids. The database looks for the points, span by span."""
    begins = _begins(connection, of, now - MONTH)
    found: dict[UUID, Compliance] = {}
    for policy in {policy.id: policy for item, policy in of if item.id in begins and policy is not None}.values():
        mine = [item for item, its in of if its is not None and its.id == policy.id and item.id in begins]
        spans = _expected(policy, now - MONTH, now)
        counted = _counted(connection, {item.id: begins[item.id] for item in mine}, spans)
        found |= {item.id: Compliance(begins[item.id], *counted.get(item.id, (0, 0))) for item in mine}
    return found


def history(connection: sa.Connection, item: Item, policy: StoredPolicy | None, now: datetime) -> History:
    """Of one item: its days, and how it kept to its policy."""
    today = now.date()
    begin = today - timedelta(days=today.weekday(), weeks=WEEKS - 1)
    number = (sa.type_coerce(points.c.made, sa.BigInteger).op("/")(_DAY)).label("number")
    query = sa.select(number, sa.func.count(), sa.func.max(points.c.logical), sa.func.sum(points.c.stored))
    rows = connection.execute(query.where(points.c.item == item.id).group_by(number))
    made = {
        _EPOCH + timedelta(days=int(number)): (count, logical, int(added)) for number, count, logical, added in rows
    }
    first = datetime.combine(begin, time(), UTC)
    missed = _missed(connection, item, policy, first, now)
    days = [Day(day, *made.get(day, (0, 0, 0)), missed.get(day, 0)) for day in sorted(made.keys() | missed.keys())]
    runs: Sequence[datetime] = ()
    if policy is not None and _is_protected(item):
        said = policies.parsed(policy)
        runs = last_runs(said.parts[0].schedule, zone(said.zone), now)
    return History(begin, days, runs, compliance(connection, [(item, policy)], now).get(item.id))


def cost(connection: sa.Connection, item: Item, held: Container) -> tuple[datetime, ItemCost] | None:
    """What it costs, and when that was counted; None where nobody has counted it yet."""
    row = connection.execute(sa.select(footprints.c.found).where(footprints.c.vault == item.vault)).first()
    if row is None:
        return None
    count = msgspec.convert(row.found, known(Count))
    found = [one for one in count.items if (one.container, one.name) == (held.name, item.name)]
    return (count.began, found[0]) if found else None


def _missed(
    connection: sa.Connection, item: Item, policy: StoredPolicy | None, begin: datetime, now: datetime
) -> Mapping[date, int]:
    begins = _begins(connection, [(item, policy)], begin)
    if item.id not in begins or policy is None:
        return {}
    query = sa.select(points.c.made).where(points.c.item == item.id, points.c.made >= begin).order_by(points.c.made)
    made = connection.execute(query).scalars().all()
    found: dict[date, int] = {}
    for span in _expected(policy, begins[item.id], now):
        if not has_point(span, made):
            found[span.begin.date()] = found.get(span.begin.date(), 0) + 1
    return found


def _expected(policy: StoredPolicy, since: datetime, now: datetime) -> list[Span]:
    said = policies.parsed(policy)
    return expected(said.parts[0], zone(said.zone), since, now)


def _begins(
    connection: sa.Connection, of: Sequence[tuple[Item, StoredPolicy | None]], since: datetime
) -> dict[UUID, datetime]:
    """From when on each of these items that are protected may be asked for points."""
    mine = {item.id: (item, policy) for item, policy in of if policy is not None and _is_protected(item)}
    newest = sa.select(jobs.c.item, sa.func.max(jobs.c.created)).group_by(jobs.c.item)
    configured: dict[Any, datetime] = dict(
        connection.execute(newest.where(jobs.c.item.in_(mine), jobs.c.operation.in_(_CONFIGURED))).all()
    )
    return {
        identity: max(since, item.created, policy.changed, configured.get(identity, since))
        for identity, (item, policy) in mine.items()
        if policy is not None
    }


def _is_protected(item: Item) -> bool:
    return item.state == PROTECTED and item.deleted is None


def _counted(
    connection: sa.Connection, begins: Mapping[UUID, datetime], spans: Sequence[Span]
) -> dict[UUID, tuple[int, int]]:
    """By item: how many of these spans began after it may be asked, and how many of those have a point."""
    if not begins or not spans:
        return {}
    moment = Moment()
    runs = sa.values(sa.column("begin", moment), sa.column("end", moment), name="runs")
    told = runs.data([(span.begin, span.end) for span in spans]).cte("runs")
    asked = sa.values(sa.column("item", sa.Uuid), sa.column("since", moment), name="asked")
    whom = asked.data(list(begins.items())).cte("asked")
    there = sa.exists().where(points.c.item == whom.c.item, points.c.made >= told.c.begin, points.c.made < told.c.end)
    query = (
        sa.select(whom.c.item, sa.func.count(), sa.func.sum(sa.case((there, 1), else_=0)))
        .select_from(whom.join(told, told.c.begin > whom.c.since))
        .group_by(whom.c.item)
    )
    return {row[0]: (int(row[1]), int(row[2])) for row in connection.execute(query)}
