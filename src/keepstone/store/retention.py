# SPDX-License-Identifier: Apache-2.0
"""Which points a rule of retention keeps: arithmetic over names and times, nothing else.

Each item stands for itself, so that one with rare backups does not lose them to another with many. Days, weeks (from
Monday, ISO 8601), months and years are those of UTC. A rule of N days keeps the newest point of each of the N newest
days that have one, counted from the item's newest point and not from today: an item that is no longer backed up keeps
what it has. Where rules overlap a point is kept if any rule keeps it. Times in the future count like others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass
from datetime import UTC, date, datetime
from typing import NamedTuple

from keepstone.errors import UsageError

__all__ = ["Retention", "Stamp", "retained"]


class Stamp(NamedTuple):
    """A point: its id, the item that it is of, and its wall clock time in nanoseconds."""

    id: str
    item: str
    time: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How many points each rule keeps of each item. `UsageError` where that is negative, or no rule keeps anything."""

    last: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0

    def __post_init__(self) -> None:
        counts: tuple[int, ...] = astuple(self)
        if min(counts) < 0 or not any(counts):
            raise UsageError("a rule of retention keeps at least one point; give a count above 0")


_PERIODS: dict[str, Callable[[date], object]] = {
    "daily": lambda day: day,
    "weekly": lambda day: day.isocalendar()[:2],
    "monthly": lambda day: (day.year, day.month),
    "yearly": lambda day: day.year,
}


def retained(points: Iterable[Stamp], keep: Retention) -> dict[str, list[str]]:
    """The points that are kept, by id, each with the names of the rules that keep it; the others may go."""
    items: dict[str, list[Stamp]] = {}
    for point in points:
        items.setdefault(point.item, []).append(point)
    kept: dict[str, list[str]] = {}
    for stamps in items.values():
        stamps.sort(key=lambda stamp: (stamp.time, stamp.id), reverse=True)
        for stamp in stamps[: keep.last]:
            kept.setdefault(stamp.id, []).append("last")
        for rule, period in _PERIODS.items():
            _keep_newest_of_each(stamps, rule, period, getattr(keep, rule), kept)
    return kept


def _keep_newest_of_each(
    stamps: list[Stamp], rule: str, period: Callable[[date], object], count: int, kept: dict[str, list[str]]
) -> None:
    """Keep the newest of `stamps`, which are sorted from the newest on, in each of the `count` newest periods."""
    seen: set[object] = set()
    for stamp in stamps:
        if len(seen) == count:
            return
        current = period(datetime.fromtimestamp(stamp.time // 10**9, UTC).date())
        if current not in seen:
            seen.add(current)
            kept.setdefault(stamp.id, []).append(rule)
