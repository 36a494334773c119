# SPDX-License-Identifier: Apache-2.0
"""A restore drill. A point that does not come up is what it found out, and a warning of the job."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from keepstone.control import drills, points
from keepstone.control.plane import Plane
from keepstone.control.work.loading import ending, subject
from keepstone.control.work.reporter import Reporter
from keepstone.jobs import Context, Status
from keepstone.workloads.hypervisors import FLEECING
from keepstone.workloads.running import drill as start
from keepstone.workloads.running import startable

__all__ = ["drill"]


def drill(plane: Plane, context: Context) -> None:
    """The handler. Its argument: `point`."""
    about = subject(plane, context)
    with plane.look() as connection:
        point = points.find(connection, about.item, context.claim.arguments["point"])
    reporter = Reporter(context)
    context.note(f"starts point {point.name} of {point.made:%Y-%m-%d %H:%M} where it reaches nobody")
    with points.opened(plane.stores.open(about.vault.id), point) as reader:
        outcome = start(plane.env, startable(reader), Path(FLEECING))
    told = msgspec.to_builtins(msgspec.structs.replace(outcome, screenshot=b""))
    told.pop("screenshot")
    record = drills.Drill(
        id=plane.new_id(),
        item=about.item.id,
        point=point.name,
        began=datetime.fromtimestamp(outcome.began // 10**9, UTC),
        level=str(outcome.level),
        seconds=outcome.seconds,
        outcome=told,
    )
    context.note(f"{outcome.reason}; the drill took {outcome.total:.0f} s")
    if not outcome.level.is_up:
        reporter.warn(point.name.encode(), f"did not come up: {outcome.reason}")
    context.result({"files": 1, "point": point.name, "target": outcome.reason, "warnings": reporter.warnings})
    with ending(plane, context, Status.WARNED if reporter.count else Status.COMPLETED) as change:
        drills.add(change, record, outcome.screenshot)
