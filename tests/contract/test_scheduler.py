# SPDX-License-Identifier: Apache-2.0
"""The scheduler over every database: what is due is asked for once."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from keepstone.catalogue import Database, jobs, schedules
from keepstone.jobs import BACKUP, JobQueue, Plan, Scheduler, Status
from keepstone.vault import Interval, Schedule

from .conftest import Clock

pytestmark = pytest.mark.service

VAULT = UUID(int=1)


class Fixed:
    """Every item has one schedule, until it is taken away."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.gone: set[UUID] = set()
        self.machine: UUID | None = None

    def of(self, connection: sa.Connection, parts: Sequence[tuple[UUID, str]]) -> Mapping[tuple[UUID, str], Plan]:
        plan = Plan(self.schedule, ZoneInfo("UTC"), {"entity": "one"}, self.machine)
        return {(item, part): plan for item, part in parts if item not in self.gone}


@pytest.fixture
def plans() -> Fixed:
    return Fixed(Interval(timedelta(minutes=15)))


@pytest.fixture
def scheduler(database: Database, queue: JobQueue, clock: Clock, plans: Fixed) -> Scheduler:
    return Scheduler(database, queue, clock, plans)


def taken_up(database: Database, scheduler: Scheduler, count: int) -> list[UUID]:
    items = [uuid4() for _ in range(count)]
    with database.change() as connection:
        for item in items:
            scheduler.plan(connection, VAULT, item, "Full")
    return items


def asked(database: Database) -> list[tuple[UUID, datetime]]:
    with database.look() as connection:
        return [tuple(row) for row in connection.execute(sa.select(jobs.c.item, jobs.c.due).order_by(jobs.c.due))]


def test_what_is_due_is_asked_for_once(database: Database, scheduler: Scheduler, clock: Clock) -> None:
    (item,) = taken_up(database, scheduler, 1)
    assert scheduler.tick() == 0

    clock.now += timedelta(minutes=15)
    assert scheduler.tick() == 1
    assert scheduler.tick() == 0

    assert asked(database) == [(item, datetime(2026, 11, 26, 12, 15, tzinfo=UTC))]


def test_the_job_is_for_the_machine_of_the_plan(
    database: Database, scheduler: Scheduler, queue: JobQueue, plans: Fixed, clock: Clock
) -> None:
    plans.machine = uuid4()
    taken_up(database, scheduler, 1)
    clock.now += timedelta(minutes=15)

    assert scheduler.tick() == 1

    assert queue.claim("worker", [BACKUP]) is None
    assert queue.claim("agent", [BACKUP], plans.machine) is not None


def test_of_runs_that_were_missed_one_is_made_up_for(
    database: Database, scheduler: Scheduler, queue: JobQueue, clock: Clock
) -> None:
    taken_up(database, scheduler, 1)
    clock.now += timedelta(hours=10, minutes=7)

    assert scheduler.tick() == 1
    claim = queue.claim("w", [BACKUP])
    assert claim is not None
    assert claim.arguments == {"part": "Full", "entity": "one"}
    with queue.ending(claim, Status.COMPLETED):
        pass
    clock.now += timedelta(minutes=8)
    assert scheduler.tick() == 1


def test_no_second_run_while_one_waits_or_goes_on(
    database: Database, scheduler: Scheduler, queue: JobQueue, clock: Clock
) -> None:
    taken_up(database, scheduler, 1)
    clock.now += timedelta(minutes=15)
    scheduler.tick()
    clock.now += timedelta(minutes=15)
    assert scheduler.tick() == 0
    claim = queue.claim("w", [BACKUP])
    assert claim is not None
    clock.now += timedelta(minutes=15)
    assert scheduler.tick() == 0
    with queue.ending(claim, Status.FAILED):
        pass
    clock.now += timedelta(minutes=15)

    assert scheduler.tick() == 1


def test_a_policy_that_was_taken_away_runs_no_more(
    database: Database, scheduler: Scheduler, plans: Fixed, clock: Clock
) -> None:
    (item,) = taken_up(database, scheduler, 1)
    plans.gone.add(item)
    clock.now += timedelta(minutes=15)

    assert scheduler.tick() == 0
    with database.look() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(schedules)).scalar() == 0


def test_a_changed_policy_counts_from_now(database: Database, scheduler: Scheduler, plans: Fixed, clock: Clock) -> None:
    (item,) = taken_up(database, scheduler, 1)
    plans.schedule = Interval(timedelta(hours=2))
    with database.change() as connection:
        assert scheduler.plan(connection, VAULT, item, "Full") == datetime(2026, 11, 26, 14, tzinfo=UTC)

    clock.now += timedelta(minutes=15)
    assert scheduler.tick() == 0


def test_a_thousand_at_once_by_several_servers(
    database: Database, queue: JobQueue, clock: Clock, plans: Fixed, scheduler: Scheduler
) -> None:
    items = taken_up(database, scheduler, 1000)
    clock.now += timedelta(minutes=15)
    made: list[int] = []
    servers = [
        threading.Thread(target=lambda: made.append(Scheduler(database, queue, clock, plans).tick())) for _ in range(3)
    ]
    for server in servers:
        server.start()
    for server in servers:
        server.join()

    assert sum(made) == 1000
    assert sorted(item for item, _ in asked(database)) == sorted(items)
