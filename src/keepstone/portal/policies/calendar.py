# SPDX-License-Identifier: Apache-2.0
"""What a changed policy would do, as months whose days have the points that were made on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from keepstone.portal.api import Document
from keepstone.portal.speech import _, later

__all__ = ["MARKS", "OUTCOMES", "Day", "Month", "Year", "months", "years"]

OUTCOMES = (later("lost"), later("shortened"), later("lengthened"), later("kept"))
"""What becomes of points, the worst first."""
MARKS = {"lost": "✕", "shortened": "▼", "lengthened": "▲", "kept": "●"}
"""A shape for each, for who does not see its colour."""
_MONTHS = 12
"""Months that are drawn; those before are one figure a year."""


@dataclass(frozen=True, slots=True)
class Day:
    """`counts`: its points by what becomes of them, the worst first; none of which there are none."""

    day: date
    counts: Sequence[tuple[str, int]]

    @property
    def tone(self) -> str:
        """The worst of it; empty for a day without points."""
        return self.counts[0][0] if self.counts else ""


@dataclass(frozen=True, slots=True)
class Month:
    """`weeks`: from Monday on; None for days of other months."""

    first: date
    weeks: Sequence[Sequence[Day | None]]


@dataclass(frozen=True, slots=True)
class Year:
    """What was made in a year, before the months that are drawn. `label`: the year, or a word for all before."""

    label: str
    counts: Sequence[tuple[str, int]]


def months(days: Sequence[Document]) -> list[Month]:
    """Those of the last months that have points, the newest first. `days`: of a what-if."""
    known = {date.fromisoformat(one["date"]): _counts(one) for one in days}
    return [_month(first, known) for first in _drawn(days)]


def years(days: Sequence[Document], earlier: Document) -> list[Year]:
    """All points that no month shows, the newest first. `earlier`: those of days that are not told apart any more."""
    drawn = set(_drawn(days))
    sums: dict[str, dict[str, int]] = {}
    for one in days:
        if date.fromisoformat(one["date"]).replace(day=1) not in drawn:
            _add(sums.setdefault(one["date"][:4], {}), one)
    found = [Year(label, _counts(one)) for label, one in sorted(sums.items(), reverse=True)]
    return found + ([Year(_("before"), _counts(earlier))] if any(earlier.get(one) for one in OUTCOMES) else [])


def _drawn(days: Sequence[Document]) -> list[date]:
    return sorted({date.fromisoformat(one["date"]).replace(day=1) for one in days}, reverse=True)[:_MONTHS]


def _month(first: date, known: dict[date, list[tuple[str, int]]]) -> Month:
    cells: list[Day | None] = [None] * first.weekday()
    day = first
    while day.month == first.month:
        cells.append(Day(day, known.get(day, [])))
        day += timedelta(days=1)
    cells += [None] * (-len(cells) % 7)
    return Month(first, [cells[at : at + 7] for at in range(0, len(cells), 7)])


def _counts(one: Document) -> list[tuple[str, int]]:
    return [(outcome, one[outcome]) for outcome in OUTCOMES if one.get(outcome)]


def _add(sums: dict[str, int], one: Document) -> None:
    for outcome in OUTCOMES:
        sums[outcome] = sums.get(outcome, 0) + one[outcome]
