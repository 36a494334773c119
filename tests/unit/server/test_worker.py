# SPDX-License-Identifier: Apache-2.0
"""The work of one worker process: jobs one after the other, and a stop at any moment."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from keepstone.catalogue import jobs
from keepstone.control.plane import Plane
from keepstone.errors import StorageFull
from keepstone.jobs import Context, Handler
from keepstone.server import logs, worker
from keepstone.server.worker import Shift
from tests.cli.services import until

pytestmark = [pytest.mark.service, pytest.mark.usefixtures("logging_as_before")]


@contextmanager
def shift(plane: Plane, handlers: Mapping[str, Handler], lines: logs.Lines | None = None) -> Iterator[Shift]:
    """One that runs on a thread, and has stopped at the end."""
    made = Shift(plane.queue, handlers, plane.env, "w", lines or logs.Lines("w"))
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        yield made
    finally:
        assert made.stop()
        thread.join(60)
        assert not thread.is_alive()


def ask(plane: Plane, operation: str) -> Any:
    with plane.database.change() as connection:
        return plane.queue.enqueue(connection, operation, {}, vault=plane.new_id())


def row(plane: Plane, job: Any) -> Any:
    with plane.look() as connection:
        return connection.execute(sa.select(jobs).where(jobs.c.id == job)).mappings().one()


def test_jobs_are_run_and_told(plane: Plane, capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("keepstone.work")

    def good(context: Context) -> None:
        thread = threading.Thread(target=lambda: log.info("from another thread"))
        thread.start()
        thread.join()

    def bad(context: Context) -> None:
        raise StorageFull("no room")

    def broken(context: Context) -> None:
        raise ValueError("a stone")

    lines = logs.to_stderr("w", "info")
    with shift(plane, {"Good": good, "Bad": bad, "Broken": broken}, lines):
        asked = {name: ask(plane, name) for name in ("Good", "Bad", "Broken")}
        until(lambda: {row(plane, job)["status"] for job in asked.values()} == {"Completed", "Failed"}, "all end")
        until(lambda: not lines.about, "and it is at none of them any more")
        log.info("after all")

    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    of = {name: [line for line in said if line.get("job") == str(job)] for name, job in asked.items()}
    assert [line["message"] for line in of["Good"]] == ["job begins", "from another thread", "job is done"]
    assert [(line["message"], line.get("code")) for line in of["Bad"]][1:] == [("job stops: no room", "StorageFull")]
    assert "ValueError: a stone" in of["Broken"][1]["trace"]
    assert all(line["operation"] == name for name, told in of.items() for line in told)
    assert "job" not in said[-1]


def test_a_short_job_ends_before_the_stop(plane: Plane) -> None:
    begun, go = threading.Event(), threading.Event()

    def short(context: Context) -> None:
        begun.set()
        assert go.wait(60)

    with shift(plane, {"Short": short}) as made:
        job, other = ask(plane, "Short"), ask(plane, "Short")
        assert begun.wait(60)
        stop = threading.Thread(target=made.stop)
        stop.start()
        go.set()
        stop.join(60)

    statuses = {row(plane, one)["status"] for one in (job, other)}
    assert statuses == {"Completed", "Queued"}


def test_a_long_job_is_handed_back(plane: Plane) -> None:
    begun = threading.Event()

    def long(context: Context) -> None:
        context.checkpoint({"next": 1})
        begun.set()
        until(context.check, "the end")

    with shift(plane, {"Long": long}) as made:
        job = ask(plane, "Long")
        assert begun.wait(60)

        assert made.stop(grace=0)

    found = row(plane, job)
    assert (found["status"], found["attempt"], found["state"]) == ("Queued", 0, {"next": 1})


def test_a_handler_that_does_not_ask_is_left_behind(plane: Plane) -> None:
    begun, go = threading.Event(), threading.Event()

    def deaf(context: Context) -> None:
        begun.set()
        assert go.wait(60)

    with shift(plane, {"Deaf": deaf}) as made:
        job = ask(plane, "Deaf")
        assert begun.wait(60)
        try:
            assert not made.stop(grace=0, unwind=0.01)
            assert row(plane, job)["status"] == "Queued"
        finally:
            go.set()

    assert row(plane, job)["status"] == "Queued"  # what it did after that does not count


def test_a_job_that_was_claimed_in_the_moment_of_the_stop_does_not_begin(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Shift(plane.queue, {"X": lambda context: pytest.fail("it began")}, plane.env, "w", logs.Lines("w"))
    job = ask(plane, "X")
    waiting = plane.queue.waiting

    def stop_then_look(*given: Any) -> bool:
        made.stop(grace=0, unwind=0)
        return waiting(*given)

    monkeypatch.setattr(plane.queue, "waiting", stop_then_look)
    made.run()

    assert (row(plane, job)["status"], row(plane, job)["attempt"]) == ("Queued", 0)


def test_a_database_that_is_away_is_waited_for(
    plane: Plane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker, "_AWAY", 0.01)
    with plane.database.change() as connection:
        connection.exec_driver_sql("alter table jobs rename to away")
    with shift(plane, {"X": lambda context: None}):
        until(lambda: "the database is away" in caplog.text, "it is missed")
        with plane.database.change() as connection:
            connection.exec_driver_sql("alter table away rename to jobs")
        job = ask(plane, "X")
        until(lambda: row(plane, job)["status"] == "Completed", "the job is run")


def test_a_worker_without_a_service_says_so(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert worker.main(["--data", str(tmp_path), "--owner", "w", "--process", "w"]) == 10

    assert json.loads(capsys.readouterr().err)["code"] == "StoreMissing"
