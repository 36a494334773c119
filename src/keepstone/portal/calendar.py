# SPDX-License-Identifier: Apache-2.0
"""The points of an item on a calendar: a column for each week, a square for each day, drawn as SVG. How many there are
is its shade, and a day without one that should be there has a cross: nobody needs a colour to see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from keepstone.portal.api import Document
from keepstone.portal.dates import MONTHS, short
from keepstone.portal.speech import _, counted

__all__ = ["SIDE", "Calendar", "Square", "calendar"]

SIDE = 15
"""Of a square, with the gap to the next one."""
_TOP, _LEFT = 18, 32
_SHADES = (1, 2, 4)  # points of a day, from which on a square is darker


@dataclass(frozen=True, slots=True)
class Square:
    """`x`, `y`: its corner. `shade`: from 0, no point, to 3. `missed`: whether a run made no point on that day, and
    none is there. `title`: what it says, in words."""

    x: int
    y: int
    shade: int
    missed: bool
    title: str


@dataclass(frozen=True, slots=True)
class Calendar:
    """`months`: their names and where they begin. `with_points`: how many days have points. `missing`: the days that
    have fewer than the policy wants, each with how many runs made none."""

    squares: Sequence[Square]
    months: Sequence[tuple[int, str]]
    width: int
    height: int
    with_points: int
    missing: Sequence[tuple[date, int]]


def calendar(begin: date, today: date, days: Sequence[Document]) -> Calendar:
    """From a Monday until today. `days`: those that have points, or lack some."""
    known: Mapping[str, Document] = {one["day"]: one for one in days}
    squares, months, missing, with_points = [], [], [], 0
    for number in range((today - begin).days + 1):
        day = begin + timedelta(days=number)
        x, y = _LEFT + number // 7 * SIDE, _TOP + number % 7 * SIDE
        if day.day == 1 or (not number and day.day < 20):
            months.append((x, short(MONTHS[day.month - 1])))
        about = known.get(f"{day}", {})
        count, missed = about.get("recoveryPointCount", 0), about.get("missed", 0)
        with_points += count > 0
        if missed:
            missing.append((day, missed))
        shade = sum(count >= least for least in _SHADES)
        squares.append(Square(x, y, shade, bool(missed), f"{day}: {_words(count, missed)}"))
    weeks = ((today - begin).days // 7) + 1
    return Calendar(squares, months, _LEFT + weeks * SIDE, _TOP + 7 * SIDE, with_points, missing)


def _words(count: int, missed: int) -> str:
    points = counted("%(number)s point", "%(number)s points", count) if count else _("no point")
    if not missed:
        return points
    return counted("%(points)s; %(number)s missing", "%(points)s; %(number)s missing", missed, points=points)
