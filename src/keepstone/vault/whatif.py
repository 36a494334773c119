# SPDX-License-Identifier: Apache-2.0
"""What a changed policy would do to the recovery points that there are, before anybody saves it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from keepstone.vault.retention import Kept, Retention, judge

__all__ = ["Change", "WhatIf", "what_if"]


@dataclass(frozen=True, slots=True)
class Change:
    """One point: what kept it, what would keep it, and until when; the date is None where it goes at once."""

    point: str
    before: Kept
    after: Kept
    until_before: datetime | None
    until_after: datetime | None


@dataclass(frozen=True, slots=True)
class WhatIf:
    """All points, oldest first."""

    changes: list[Change]

    @property
    def lost(self) -> list[str]:
        """Points that are kept now, and would not be."""
        return [change.point for change in self.changes if change.until_before and not change.until_after]

    @property
    def shortened(self) -> list[str]:
        """Points that would stay for a shorter time than now."""
        return [
            change.point
            for change in self.changes
            if change.until_before and change.until_after and change.until_after < change.until_before
        ]

    @property
    def lengthened(self) -> list[str]:
        """Points that would stay longer."""
        return [
            change.point
            for change in self.changes
            if change.until_after and (not change.until_before or change.until_after > change.until_before)
        ]


def what_if(
    old: Retention,
    new: Retention,
    points: Mapping[str, datetime],
    rules: ZoneInfo,
    now: datetime,
    *,
    own: Mapping[str, datetime] | None = None,
    locks: Mapping[str, datetime] | None = None,
) -> WhatIf:
    """Judge the points by both. `own`: see `judge`. `locks`: until when a point is locked, whatever its policy says."""
    locks = locks or {}
    before, after = judge(old, points, rules, own=own), judge(new, points, rules, own=own)

    def until(kept: Kept, point: str) -> datetime | None:
        dates = [date for date in (kept.until, locks.get(point)) if date is not None and date > now]
        return max(dates, default=None)

    return WhatIf(
        [
            Change(point, before[point], after[point], until(before[point], point), until(after[point], point))
            for point in sorted(points, key=lambda point: (points[point], point))
        ]
    )
