# SPDX-License-Identifier: Apache-2.0
"""The scheduler: asks for a backup when a schedule says so.

Each item has a row for each part of its policy, with the moment of the next run. What is due becomes a job and gets
its next moment in one transaction, so several servers may look at once and nothing runs twice or never. A server that
was away finds what was due meanwhile; of several runs that were missed one is made up for, because the newest state is
all that can be had. An item whose last run still waits or goes on gets no second one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from keepstone.catalogue import Database, schedules
from keepstone.env import Env
from keepstone.jobs.queue import JobQueue, Wanted
from keepstone.vault import Schedule

__all__ = ["BACKUP", "Plan", "Plans", "Scheduler"]

BACKUP = "Backup"
"""The operation that it asks for; its arguments name the `part` of the policy."""
_BATCH = 500


@dataclass(frozen=True, slots=True)
class Plan:
    """When an item is backed up: a schedule and the time zone of its times. `about`: what the job says of the item.
    `machine`: whose agent does it; None: a worker of the server."""

    schedule: Schedule
    rules: ZoneInfo
    about: Mapping[str, Any] = field(default_factory=dict)
    machine: UUID | None = None


class Plans(Protocol):
    """Where the scheduler learns when items are to be backed up."""

    def of(self, connection: sa.Connection, parts: Sequence[tuple[UUID, str]]) -> Mapping[tuple[UUID, str], Plan]:
        """The plans of these items, each for a part of its policy; without those that there are none for any more."""


class Scheduler:
    """Any number of them may run beside one another."""

    def __init__(self, database: Database, queue: JobQueue, env: Env, plans: Plans) -> None:
        self._database = database
        self._queue = queue
        self._env = env
        self._plans = plans

    def plan(self, connection: sa.Connection, vault: UUID, item: UUID, part: str) -> datetime | None:
        """Take up this part of an item's policy, or take it up anew where it has changed; its next run. None, and no
        row, where the policy has no such part."""
        mine = schedules.c.item == item, schedules.c.part == part
        connection.execute(schedules.delete().where(*mine))
        found = self._plans.of(connection, [(item, part)]).get((item, part))
        due = None if found is None else next(found.schedule.runs(self._env.utc(), found.rules), None)
        if due is not None:
            connection.execute(schedules.insert().values(vault=vault, item=item, part=part, due=due))
        return due

    def tick(self) -> int:
        """Ask for all that is due; how many jobs that made."""
        made = 0
        while True:
            with self._database.change() as connection:
                asked, seen = self._batch(connection)
            made += asked
            if seen < _BATCH:
                return made

    def _batch(self, connection: sa.Connection) -> tuple[int, int]:
        now = self._env.utc()
        due = (
            sa.select(schedules)
            .where(schedules.c.due <= now)
            .order_by(schedules.c.due)
            .limit(_BATCH)
            .with_for_update(skip_locked=True)
        )
        rows = {(row["item"], row["part"]): row for row in connection.execute(due).mappings()}
        if not rows:
            return 0, 0
        plans = self._plans.of(connection, list(rows))
        following = _following({(plan.schedule, plan.rules) for plan in plans.values()}, now)
        busy = self._queue.open_parts(connection, BACKUP)
        moved, over, wanted = [], [], []
        for (item, part), row in rows.items():
            plan = plans.get((item, part))
            run = None if plan is None else following[plan.schedule, plan.rules]
            if plan is None or run is None:
                over.append({"item_": item, "part_": part})
                continue
            moved.append({"item_": item, "part_": part, "due_": run})
            if (item, part) not in busy:
                about = {"part": part, **plan.about}
                wanted.append(Wanted(row["vault"], item, about, row["due"], plan.machine))
        mine = schedules.c.item == sa.bindparam("item_"), schedules.c.part == sa.bindparam("part_")
        if moved:
            connection.execute(schedules.update().where(*mine).values(due=sa.bindparam("due_")), moved)
        if over:
            connection.execute(schedules.delete().where(*mine), over)
        self._queue.enqueue_all(connection, BACKUP, wanted)
        return len(wanted), len(rows)


def _following(
    schedules: set[tuple[Schedule, ZoneInfo]], now: datetime
) -> dict[tuple[Schedule, ZoneInfo], datetime | None]:
    """The next run of each; a thousand items have few policies."""
    return {(schedule, rules): next(schedule.runs(now, rules), None) for schedule, rules in schedules}
