# SPDX-License-Identifier: Apache-2.0
"""The scheduler: asks for a backup when a schedule says so.

Each item has a row for each part of its policy, with the moment of the next run. What is due becomes a job and gets
its next moment in one transaction, so several servers may look at once and nothing runs twice or never. A server that
was away finds what was due meanwhile; of several runs that were missed one is made up for, because the newest state is
all that can be had. An item whose last run still waits or goes on gets no second one.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from keepstone.catalogue import Database, schedules
from keepstone.env import Env
from keepstone.jobs.queue import JobQueue
from keepstone.vault import Schedule

__all__ = ["BACKUP", "Plans", "Scheduler"]

BACKUP = "Backup"
"""The operation that it asks for; its arguments name the `part` of the policy."""
_BATCH = 500


class Plans(Protocol):
    """Where the scheduler learns when an item is to be backed up."""

    def schedule(self, connection: sa.Connection, item: UUID, part: str) -> tuple[Schedule, ZoneInfo] | None:
        """The schedule of this part of the item's policy, and its time zone; None where there is none any more."""


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
        found = self._plans.schedule(connection, item, part)
        if found is None:
            return None
        schedule, rules = found
        due = next(schedule.runs(self._env.utc(), rules), None)
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
        due = (
            sa.select(schedules)
            .where(schedules.c.due <= self._env.utc())
            .order_by(schedules.c.due)
            .limit(_BATCH)
            .with_for_update(skip_locked=True)
        )
        rows = connection.execute(due).mappings().all()
        asked = 0
        for row in rows:
            vault, item, part = row["vault"], row["item"], row["part"]
            if self.plan(connection, vault, item, part) is None:
                continue
            if not self._queue.is_open(connection, item, BACKUP, part):
                self._queue.enqueue(connection, BACKUP, {"part": part}, vault=vault, item=item, due=row["due"])
                asked += 1
        return asked, len(rows)
