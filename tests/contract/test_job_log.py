# SPDX-License-Identifier: Apache-2.0
"""The log of a job over every database: what happens to it stands in it, once, in order, and never without bound."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
import sqlalchemy as sa

from keepstone.catalogue import Database
from keepstone.errors import JobLost, StoreMissing
from keepstone.jobs import Context, JobQueue, Status, Worker
from keepstone.jobs.log import FIRST, LONGEST, NEWEST, appended, line

from .conftest import Clock
from .test_jobs import ask, row, taken

pytestmark = pytest.mark.service


def texts(database: Database, identity: UUID) -> list[str]:
    return [text for _, text in row(database, identity)["log"] or ()]


def test_what_happens_to_a_job_stands_in_its_log(database: Database, queue: JobQueue, clock: Clock) -> None:
    job = ask(database, queue)
    assert texts(database, job) == []
    first = Context(queue, taken(queue, "w1"))
    first.note("reads /data")
    first.beat()
    queue.hand_back(first.claim)
    second = taken(queue, "w2")
    clock.now += queue.lease + timedelta(seconds=1)  # and it is dead
    third = Context(queue, taken(queue, "w3"))
    with database.change() as connection:
        queue.cancel(connection, job)
        queue.cancel(connection, job)  # asked twice, told once
    third.note("it stops")
    with queue.ending(third.claim, Status.CANCELLED, lines=third.lines()):
        pass

    assert second.attempt == 1
    assert texts(database, job) == [
        "taken by w1",
        "reads /data",
        "handed back by its worker, which stops",
        "taken by w2",
        "taken by w3, attempt 2: whoever had it before is gone",
        "its end was asked for",
        "it stops",
        "ended as Cancelled",
    ]
    moments = [datetime.fromisoformat(moment) for moment, _ in row(database, job)["log"]]
    assert moments == sorted(moments)
    assert moments[-1] == clock.now.astimezone(UTC)


def test_a_job_that_waits_says_that_its_end_was_asked_for(database: Database, queue: JobQueue) -> None:
    job = ask(database, queue)
    with database.change() as connection:
        queue.cancel(connection, job)
        queue.cancel(connection, job)
    assert texts(database, job) == ["its end was asked for"]


def test_whoever_lost_a_job_writes_no_line(database: Database, queue: JobQueue, clock: Clock) -> None:
    job = ask(database, queue)
    dead = Context(queue, taken(queue, "dead"))
    clock.now += queue.lease + timedelta(seconds=1)
    taken(queue, "heir")
    dead.note("a ghost")
    dead.beat()
    with pytest.raises(JobLost):
        dead.check()
    with pytest.raises(JobLost), dead.ending():
        pass
    assert "a ghost" not in texts(database, job)


def test_a_line_is_as_durable_as_what_it_tells(database: Database, queue: JobQueue) -> None:
    job = ask(database, queue)
    context = Context(queue, taken(queue))
    with pytest.raises(StoreMissing), context.ending():
        raise StoreMissing("and so the job has not ended")
    assert texts(database, job) == ["taken by a"]


def test_a_sign_of_life_that_is_lost_loses_no_line(
    database: Database, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = ask(database, queue)
    context = Context(queue, taken(queue))
    context.note("one")
    with monkeypatch.context() as away:

        def fails(*_: object, **__: object) -> None:
            context.note("two")
            raise sa.exc.OperationalError("", {}, Exception("the database is away"))

        away.setattr(queue, "renew", fails)
        with pytest.raises(sa.exc.OperationalError):
            context.beat()
    context.beat()
    assert texts(database, job) == ["taken by a", "one", "two"]


def test_what_a_handler_says_is_there_when_it_fails(database: Database, queue: JobQueue, clock: Clock) -> None:
    def fails(context: Context) -> None:
        threads = [threading.Thread(target=context.note, args=(f"{number}",)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        raise StoreMissing("there is no store")

    job = ask(database, queue)
    Worker(queue, {"Backup": fails}, clock, "w").run_one()
    found = texts(database, job)
    assert found[0] == "taken by w"
    assert sorted(found[1:-1]) == [str(number) for number in range(8)]
    assert found[-1] == "ended as Failed: there is no store"


def test_a_log_has_an_end() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    lines = [line(now, str(number)) for number in range(1000)]
    log = appended(None, lines[:500])
    for one in lines[500:]:
        log = appended(log, [one])
    kept = [int(text) for _, text in log]
    assert kept == [*range(FIRST), *range(1000 - NEWEST, 1000)]
    assert len(line(now, "x" * 10_000)[1]) == LONGEST
