# SPDX-License-Identifier: Apache-2.0
"""Counting what the items of a vault cost."""

from __future__ import annotations

from keepstone.control import footprint
from keepstone.control.footprint import COUNT
from keepstone.control.plane import Plane
from keepstone.control.work.loading import ending
from keepstone.jobs import Context, Status

__all__ = ["COUNT", "count"]

_NAMED = 20  # warnings that are kept with the job


def count(plane: Plane, context: Context) -> None:
    """The handler. What is damaged is left out and told as warnings."""

    def tick(done: int, expected: int) -> None:
        context.progress(0, 0, f"{done:,} of {expected:,} points")
        context.check()

    found = footprint.count(plane, context.claim.vault, tick)
    context.note(f"{found.points:,} points were counted")
    context.result({"points": found.points, "warnings": found.damage[:_NAMED]})
    with ending(plane, context, Status.WARNED if found.damage else Status.COMPLETED) as change:
        footprint.keep(plane, change.connection, context.claim.vault, found)
