# SPDX-License-Identifier: Apache-2.0
"""How much is stored for the points that there are, by the day on which they were made, and when the disk will be full
if it goes on like this.

The bytes are those that each point brought when it was made. What retention has removed since is not among them, so the
past looks smaller than it was, and the slope steeper: a forecast errs to the early side.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from uuid import UUID
from weakref import WeakKeyDictionary

import sqlalchemy as sa

from keepstone.catalogue import points
from keepstone.control.plane import Plane

__all__ = ["MONTH", "Day", "Forecast", "Growth", "Space", "Stored", "forecast", "growth", "space", "stored"]

MONTH = timedelta(days=30)
_DAY = 86_400_000_000  # microseconds, as a column of moments counts
_KEPT = 60 * 10**9  # ns that a sum is kept which takes long,
_MANY = 100_000  # since it is over more points than these
_FEWEST = 3  # days with a figure, for a line through them
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Stored:
    """Bytes that were written for the points of a vault; `recent`: of those, for points of the last 30 days."""

    points: int
    stored: int
    recent: int


@dataclass(frozen=True, slots=True)
class Day:
    """`points`, `added`: those that were made on this day (UTC), and the bytes written for them. `stored`: all bytes
    until its end."""

    day: date
    points: int
    added: int
    stored: int


@dataclass(frozen=True, slots=True)
class Space:
    """Of the disk that the data folder is on, in bytes."""

    total: int
    free: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """`slope`: bytes a day. `full`: the day on which nothing is free any more; None where it does not grow, or not in
    this calendar."""

    slope: float
    full: date | None


@dataclass(frozen=True, slots=True)
class Growth:
    """`days`: every day of the time that was asked for, in order."""

    days: list[Day]
    space: Space
    forecast: Forecast | None


_remembered: WeakKeyDictionary[Plane, dict[UUID, tuple[int, Stored]]] = WeakKeyDictionary()


def stored(plane: Plane, connection: sa.Connection, vaults: Collection[UUID]) -> dict[UUID, Stored]:
    """Of each of these vaults. A sum over very many points takes long, and is not made again within a minute."""
    known, now = _remembered.setdefault(plane, {}), plane.env.boot_time()
    missing = [vault for vault in vaults if vault not in known or known[vault][0] <= now]
    if missing:
        bytes = points.c.stored
        since = sa.literal(plane.env.utc() - MONTH, points.c.made.type)
        recent = sa.func.sum(sa.case((points.c.made > since, bytes), else_=0))
        query = sa.select(points.c.vault, sa.func.count(), sa.func.sum(bytes), recent)
        mine = points.c.vault.in_(missing), points.c.deleted.is_(None)
        rows = connection.execute(query.where(*mine).group_by(points.c.vault))
        found = {row[0]: Stored(*map(int, row[1:])) for row in rows}
        for vault in missing:
            one = found.get(vault, Stored(0, 0, 0))
            known[vault] = now + (_KEPT if one.points > _MANY else 0), one
    return {vault: known[vault][1] for vault in vaults}


def growth(plane: Plane, connection: sa.Connection, vaults: Collection[UUID], days: int) -> Growth:
    """Of these vaults together, in so many days until today."""
    today = plane.env.utc().date()
    first = today - timedelta(days=days - 1)
    begin = sa.literal(datetime(first.year, first.month, first.day, tzinfo=UTC), points.c.made.type)
    mine = points.c.vault.in_(list(vaults))
    before = sa.select(sa.func.coalesce(sa.func.sum(points.c.stored), 0)).where(mine, points.c.made < begin)
    total = int(connection.execute(before).scalar_one())
    number = (sa.type_coerce(points.c.made, sa.BigInteger).op("/")(_DAY)).label("number")
    query = sa.select(number, sa.func.count(), sa.func.sum(points.c.stored)).where(mine, points.c.made >= begin)
    made = {int(row[0]): (int(row[1]), int(row[2])) for row in connection.execute(query.group_by(number))}
    found = []
    for offset in range(days):
        day = first + timedelta(days=offset)
        count, added = made.get((day - _EPOCH).days, (0, 0))
        total += added
        found.append(Day(day, count, added, total))
    left = space(plane)
    return Growth(found, left, forecast(found, left.free))


def space(plane: Plane) -> Space:
    """Where the vaults of this installation lie."""
    found = plane.env.fs.statvfs(os.fspath(plane.root))
    return Space(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)


def forecast(days: Sequence[Day], free: int) -> Forecast | None:
    """By a line of least squares through the days since the first one with points. None for fewer than three."""
    known = [(place, day.stored) for place, day in enumerate(days) if day.stored]
    if len(known) < _FEWEST:
        return None
    mean_x = sum(x for x, _ in known) / len(known)
    mean_y = sum(y for _, y in known) / len(known)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in known) / sum((x - mean_x) ** 2 for x, _ in known)
    if slope <= 0:
        return Forecast(slope, None)
    try:
        return Forecast(slope, days[-1].day + timedelta(days=int(free / slope)))
    except OverflowError:
        return Forecast(slope, None)
