# SPDX-License-Identifier: Apache-2.0
"""The queue of jobs over every database: each job is run, by one worker at a time, to one end."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from keepstone.catalogue import Database, jobs
from keepstone.env import Env
from keepstone.errors import JobLost, JobNotFound, StoreMissing
from keepstone.jobs import ATTEMPTS, Claim, Context, JobQueue, Status, Worker

from .conftest import Clock
from .job_worker import STEPS

pytestmark = pytest.mark.service

VAULT = UUID(int=1)


def ask(database: Database, queue: JobQueue, operation: str = "Backup", **more: Any) -> UUID:
    with database.change() as connection:
        return queue.enqueue(connection, operation, {"depth": 1}, vault=VAULT, **more)


def row(database: Database, identity: UUID) -> Any:
    with database.look() as connection:
        return connection.execute(sa.select(jobs).where(jobs.c.id == identity)).mappings().one()


def taken(queue: JobQueue, owner: str = "a") -> Claim:
    claim = queue.claim(owner, ["Backup"])
    assert claim is not None
    return claim


def test_a_job_is_claimed_once(database: Database, queue: JobQueue) -> None:
    item = uuid4()
    identity = ask(database, queue, item=item, activity="correlation")

    claim = taken(queue)

    assert (claim.id, claim.vault, claim.item, claim.arguments) == (identity, VAULT, item, {"depth": 1})
    assert (claim.attempt, claim.state) == (1, None)
    assert queue.claim("b", ["Backup"]) is None
    found = row(database, identity)
    assert (found["status"], found["owner"], found["activity"]) == ("InProgress", "a", "correlation")
    assert found["started"] == found["created"] == datetime(2026, 11, 26, 12, tzinfo=UTC)


def test_what_was_rolled_back_was_never_asked_for(database: Database, queue: JobQueue) -> None:
    with pytest.raises(StoreMissing), database.change() as connection:
        queue.enqueue(connection, "Backup", {}, vault=VAULT)
        raise StoreMissing("and so the request fails")

    assert queue.claim("a", ["Backup"]) is None


def test_the_urgent_go_first_then_the_oldest_and_none_before_its_time(
    database: Database, queue: JobQueue, clock: Clock
) -> None:
    later = ask(database, queue, due=clock.now + timedelta(seconds=20))
    second = ask(database, queue, due=clock.now - timedelta(seconds=1))
    first = ask(database, queue, due=clock.now - timedelta(seconds=2))
    urgent = ask(database, queue, priority=5)
    ask(database, queue, "Restore")

    assert [taken(queue).id for _ in range(3)] == [urgent, first, second]
    assert queue.claim("a", ["Backup"]) is None
    clock.now += timedelta(seconds=20)
    assert taken(queue).id == later


def test_a_dead_workers_job_goes_on_from_its_checkpoint(database: Database, queue: JobQueue, clock: Clock) -> None:
    ask(database, queue)
    dead = taken(queue)
    queue.checkpoint(dead, {"next": 7})
    clock.now += queue.lease + timedelta(seconds=1)

    heir = taken(queue, "b")

    assert (heir.id, heir.attempt, heir.state) == (dead.id, 2, {"next": 7})
    for write in (
        lambda: queue.renew(dead),
        lambda: queue.checkpoint(dead, {"next": 8}),
        lambda: queue.ending(dead, Status.COMPLETED).__enter__(),
    ):
        with pytest.raises(JobLost, match="taken over"):
            write()
    assert row(database, dead.id)["state"] == {"next": 7}


def test_a_job_that_was_handed_back_goes_on_elsewhere_as_if_nobody_had_died(
    database: Database, queue: JobQueue, clock: Clock
) -> None:
    ask(database, queue)
    for step in range(ATTEMPTS + 2):
        claim = taken(queue)
        assert (claim.attempt, claim.state) == (1, {"next": step} if step else None)
        queue.checkpoint(claim, {"next": step + 1})
        queue.hand_back(claim)
        with pytest.raises(JobLost):
            queue.checkpoint(claim, {"next": 99})
        with pytest.raises(JobLost):
            queue.hand_back(claim)

    found = row(database, claim.id)
    assert (found["status"], found["owner"], found["lease_until"]) == ("Queued", None, None)


def test_a_job_that_is_to_be_cancelled_is_so_after_it_was_handed_back(
    database: Database, queue: JobQueue, clock: Clock
) -> None:
    ask(database, queue)
    claim = taken(queue)
    with database.change() as connection:
        queue.cancel(connection, claim.id)

    queue.hand_back(claim)

    clock.now += timedelta(seconds=1)
    assert queue.claim("b", ["Backup"]) is None
    assert row(database, claim.id)["status"] == "Cancelled"


def test_jobs_of_a_buried_worker_need_not_wait(database: Database, queue: JobQueue, clock: Clock) -> None:
    ask(database, queue)
    ask(database, queue)
    dead, alive = taken(queue, "dead"), taken(queue, "alive")

    assert queue.bury("dead") == 1

    clock.now += timedelta(seconds=1)
    heir = taken(queue, "heir")
    assert (heir.id, heir.attempt) == (dead.id, 2)
    assert queue.claim("heir", ["Backup"]) is None
    queue.renew(alive)
    assert queue.bury("dead") == 0


def test_a_look_tells_whether_there_is_one_to_claim(database: Database, queue: JobQueue, clock: Clock) -> None:
    assert not queue.waiting(["Backup"])
    ask(database, queue, due=clock.now + timedelta(seconds=20))
    assert not queue.waiting(["Backup"])

    clock.now += timedelta(seconds=20)
    assert queue.waiting(["Backup"])
    assert not queue.waiting(["Restore"])
    assert not queue.waiting([])
    with database.change():  # somebody writes, for long
        assert queue.waiting(["Backup"])

    taken(queue)
    assert not queue.waiting(["Backup"])
    clock.now += queue.lease + timedelta(seconds=1)
    assert queue.waiting(["Backup"])


def test_a_sign_of_life_keeps_the_job(database: Database, queue: JobQueue, clock: Clock) -> None:
    ask(database, queue)
    claim = taken(queue)
    for _ in range(5):
        clock.now += queue.lease - timedelta(seconds=1)
        assert not queue.renew(claim, progress={"done": 1, "expected": 2, "line": ""})

    assert queue.claim("b", ["Backup"]) is None
    assert row(database, claim.id)["progress"]["done"] == 1


def test_a_job_that_kills_its_workers_fails_in_the_end(database: Database, queue: JobQueue, clock: Clock) -> None:
    identity = ask(database, queue)
    for _ in range(ATTEMPTS):
        taken(queue)
        clock.now += queue.lease + timedelta(seconds=1)

    assert queue.claim("a", ["Backup"]) is None
    found = row(database, identity)
    assert (found["status"], found["error"]["code"], found["owner"]) == ("Failed", "WorkersDied", None)


def test_an_end_and_what_goes_with_it_are_one(database: Database, queue: JobQueue) -> None:
    identity = ask(database, queue)
    claim = taken(queue)

    with pytest.raises(StoreMissing), queue.ending(claim, Status.COMPLETED) as connection:
        other = queue.enqueue(connection, "Restore", {}, vault=VAULT)
        raise StoreMissing("the point is not there")
    assert row(database, identity)["status"] == "InProgress"
    with queue.ending(claim, Status.COMPLETED) as connection:
        other = queue.enqueue(connection, "Restore", {}, vault=VAULT)

    found = row(database, identity)
    assert (found["status"], found["owner"], found["lease_until"]) == ("Completed", None, None)
    assert found["ended"] is not None
    assert row(database, other)["status"] == "Queued"
    with pytest.raises(JobLost):
        queue.renew(claim)


def test_cancelling(database: Database, queue: JobQueue, clock: Clock) -> None:
    waiting, running, abandoned = (ask(database, queue, priority=-n) for n in range(3))
    with database.change() as connection:
        assert queue.cancel(connection, waiting) == Status.CANCELLED
    held, lost = taken(queue), taken(queue)
    assert (held.id, lost.id) == (running, abandoned)
    with database.change() as connection:
        assert queue.cancel(connection, running) == Status.CANCELLING
        assert queue.cancel(connection, abandoned) == Status.CANCELLING
        with pytest.raises(JobNotFound):
            queue.cancel(connection, uuid4())

    assert queue.renew(held)
    with queue.ending(held, Status.CANCELLED):
        pass
    clock.now += queue.lease + timedelta(seconds=1)
    assert queue.claim("b", ["Backup"]) is None

    assert {row(database, job)["status"] for job in (waiting, running, abandoned)} == {"Cancelled"}
    with database.change() as connection:
        assert queue.cancel(connection, running) == Status.CANCELLED


# Jobs of machines


def test_a_job_of_a_machine_is_for_its_agent_alone(database: Database, queue: JobQueue, clock: Clock) -> None:
    one, other = uuid4(), uuid4()
    mine, servers = ask(database, queue, machine=one), ask(database, queue)

    assert not queue.waiting(["Backup"], other)
    assert queue.claim("other", ["Backup"], other) is None
    assert queue.waiting(["Backup"], one)
    claim = queue.claim("one", ["Backup"], one)
    assert claim is not None
    assert (claim.id, claim.machine) == (mine, one)
    assert queue.claim("one", ["Backup"], one) is None
    taken_by_worker = taken(queue)
    assert (taken_by_worker.id, taken_by_worker.machine) == (servers, None)

    clock.now += queue.lease + timedelta(seconds=1)  # both are silent
    again = taken(queue)
    assert (again.id, again.attempt) == (servers, 2)
    assert queue.claim("worker", ["Backup"]) is None
    back = queue.claim("one", ["Backup"], one)
    assert back is not None
    assert (back.id, back.attempt, back.machine) == (mine, 2, one)


def test_which_machines_have_something_to_claim(database: Database, queue: JobQueue, clock: Clock) -> None:
    def waiting() -> set[UUID]:
        with database.look() as connection:
            return queue.machines_waiting(connection)

    now, twice, later, restored = (uuid4() for _ in range(4))
    ask(database, queue)
    assert waiting() == set()
    for machine in (now, twice, twice):
        ask(database, queue, machine=machine)
    ask(database, queue, machine=later, due=clock.now + timedelta(seconds=20))
    ask(database, queue, "Restore", machine=restored)
    assert waiting() == {now, twice, restored}

    claim = queue.claim("now", ["Backup"], now)
    assert claim is not None
    assert waiting() == {twice, restored}
    clock.now += queue.lease + timedelta(seconds=1)
    assert waiting() == {now, twice, restored, later}
    with queue.ending(claim, Status.COMPLETED):
        pass
    assert waiting() == {twice, restored, later}


def test_an_index_has_the_open_jobs_of_machines(database: Database, queue: JobQueue) -> None:
    """Which is asked again and again, beside a million jobs that are over."""
    if not database.is_sqlite:  # PostgreSQL chooses by what is in the table
        return
    asked: list[tuple[str, Any]] = []
    sa.event.listen(database.engine, "before_cursor_execute", lambda *about: asked.append((about[2], about[3])))
    queue.waiting(["Backup"], uuid4())
    queue.waiting(["Backup"])
    queue.claim("agent", ["Backup"], uuid4())
    with database.look() as connection:
        queue.machines_waiting(connection)
    statements = [one for one in asked if "jobs" in one[0]]
    assert len(statements) == 4
    with database.look() as connection:
        for statement, values in statements:
            plan = str(connection.exec_driver_sql(f"explain query plan {statement}", values).all())
            assert "ix_jobs_open" in plan, statement
            assert "COVERING" in plan or "DISTINCT" not in statement, plan


def test_jobs_that_nobody_will_come_for(database: Database, queue: JobQueue, clock: Clock) -> None:
    gone, other = uuid4(), uuid4()
    held, waiting = ask(database, queue, machine=gone, priority=1), ask(database, queue, machine=gone)
    kept, servers = ask(database, queue, machine=other), ask(database, queue)
    claim = queue.claim("gone", ["Backup"], gone)
    assert claim is not None

    with database.change() as connection:
        assert queue.abandon(connection, gone, "the machine was taken away") == 2

    with pytest.raises(JobLost):
        queue.renew(claim)
    for job in (held, waiting):
        found = row(database, job)
        assert (found["status"], found["ended"], found["owner"]) == ("Cancelled", clock.now, None)
        assert found["error"] == {"code": "MachineGone", "message": "the machine was taken away"}
    assert {row(database, job)["status"] for job in (kept, servers)} == {"Queued"}


def test_what_a_silent_machine_holds_is_cancelled_at_once(database: Database, queue: JobQueue, clock: Clock) -> None:
    machine = uuid4()
    job = ask(database, queue, machine=machine)
    claim = queue.claim("m", ["Backup"], machine)
    assert claim is not None
    with database.change() as connection:
        assert queue.cancel(connection, job) == Status.CANCELLING  # it is heard of, and ends by itself
    clock.now += queue.lease + timedelta(seconds=1)
    with database.change() as connection:
        assert queue.cancel(connection, job) == Status.CANCELLED
        assert queue.cancel(connection, job) == Status.CANCELLED
    with pytest.raises(JobLost):
        queue.checkpoint(claim, {})


def test_workers_at_once_never_take_one_job_twice(database: Database) -> None:
    queue = JobQueue(database, Env())
    for _ in range(60):
        ask(database, queue)
    claims: list[UUID] = []

    def work(name: str) -> None:
        while (claim := queue.claim(name, ["Backup"])) is not None:
            claims.append(claim.id)
            with queue.ending(claim, Status.COMPLETED):
                pass

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(claims) == len(set(claims)) == 60
    with database.look() as connection:
        found = connection.execute(sa.select(jobs.c.status, jobs.c.attempt)).all()
    assert Counter(map(tuple, found)) == {("Completed", 1): 60}


def test_how_a_handler_ends_its_job(database: Database) -> None:
    env = Env()
    queue = JobQueue(database, env)

    def good(context: Context) -> None:
        context.progress(5, 10, "half")
        context.check()

    def warned(context: Context) -> None:
        with context.ending(Status.WARNED) as connection:
            queue.enqueue(connection, "Next", {}, vault=VAULT)

    def failing(context: Context) -> None:
        raise StoreMissing("there is no store at /nowhere; make one")

    def broken(context: Context) -> None:
        raise ZeroDivisionError

    def cancelled(context: Context) -> None:
        with database.change() as connection:
            queue.cancel(connection, context.claim.id)
        context.checkpoint({"next": 1})
        raise AssertionError("goes on")

    handlers = {"Good": good, "Warned": warned, "Failing": failing, "Broken": broken, "Cancelled": cancelled}
    made = {name: ask(database, queue, name) for name in handlers}
    worker = Worker(queue, handlers, env, "w")
    while worker.run_one():
        pass

    ends = {
        name: (row(database, job)["status"], (row(database, job)["error"] or {}).get("code"))
        for name, job in made.items()
    }
    assert ends == {
        "Good": ("Completed", None),
        "Warned": ("CompletedWithWarnings", None),
        "Failing": ("Failed", StoreMissing.code),
        "Broken": ("Failed", "InternalServerError"),
        "Cancelled": ("Cancelled", None),
    }
    assert queue.claim("x", ["Next"]) is not None


def test_a_worker_that_is_killed_is_replaced(url: str, database: Database, tmp_path: Path) -> None:
    """SIGKILL in the middle: another process takes the job over when the lease is over, and goes on where it was."""
    log = tmp_path / "log"
    log.touch()
    identity = ask(database, JobQueue(database, Env()), "Steps")

    def start(name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "tests.contract.job_worker", url, name, str(log)])

    with start("first") as first:
        until = time.monotonic() + 60
        while log.read_text().count("first") < 4:
            assert time.monotonic() < until
            assert first.poll() is None
            time.sleep(0.02)
        first.send_signal(signal.SIGKILL)
    with start("second") as second:
        assert second.wait(60) == 0

    steps = [line.split() for line in log.read_text().splitlines()]
    counts = Counter(int(step) for _, step in steps)
    assert sorted(counts) == list(range(STEPS))
    assert sum(counts.values()) <= STEPS + 1  # the step that it was killed in may be done again
    assert {name for name, _ in steps} == {"first", "second"}
    found = row(database, identity)
    assert (found["status"], found["attempt"]) == ("Completed", 2)
