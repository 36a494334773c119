# SPDX-License-Identifier: Apache-2.0
"""Which points an item should have: one for each run of its policy, made before the next one, as long as retention
would have kept it until now.

A run whose point retention has taken since counts neither for nor against anybody: nothing is left that would tell.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from keepstone.vault.policy import Part
from keepstone.vault.retention import judge

__all__ = ["MOST", "Span", "expected", "has_point"]

MOST = 1000
"""Of more runs than these only the newest are looked at."""
_BEFORE = timedelta(days=35)  # a rule of retention chooses among the points of a whole month


@dataclass(frozen=True, slots=True)
class Span:
    """From a run until the next one: there should be a point that was made in between."""

    begin: datetime
    end: datetime


def expected(part: Part, rules: ZoneInfo, since: datetime, now: datetime) -> list[Span]:
    """The spans that began after `since` and are over, in order."""
    runs: list[datetime] = []
    for run in part.schedule.runs(since - _BEFORE, rules):
        if run >= now:
            break
        runs.append(run)
    kept = judge(part.retention, {str(number): run for number, run in enumerate(runs)}, rules)
    spans = []
    for number, (begin, end) in enumerate(pairwise(runs)):
        until = kept[str(number)].until
        if begin > since and until is not None and until > now:
            spans.append(Span(begin, end))
    return spans[-MOST:]


def has_point(span: Span, made: Sequence[datetime]) -> bool:
    """Whether one of these moments, which are in order, lies in it."""
    at = bisect_left(made, span.begin)
    return at < len(made) and made[at] < span.end
