# SPDX-License-Identifier: Apache-2.0
"""Jobs that stand: several at once, until somebody ends them, and elsewhere when their process stops."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from keepstone.control.plane import Plane
from keepstone.jobs import Context, Status
from keepstone.server import standing
from keepstone.server.standing import Standing
from tests.cli.services import until
from tests.unit.server.test_worker import ask, row

pytestmark = pytest.mark.service


def stands(context: Context) -> None:
    """Until somebody ends it."""
    pause = threading.Event()
    while True:
        context.beat()
        context.check()
        pause.wait(0.01)


@contextmanager
def process(plane: Plane, owner: str) -> Iterator[Standing]:
    """What one worker process has; it has stopped at the end."""
    made = Standing(plane.queue, {"Stand": stands}, plane.env, owner)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def running(plane: Plane, *asked: Any) -> list[str | None]:
    """Who has them, as far as they are held."""
    return [row(plane, job)["owner"] for job in asked if row(plane, job)["status"] == Status.RUNNING]


def test_several_stand_at_once_and_each_ends_by_itself(plane: Plane) -> None:
    with process(plane, "one"):
        asked = [ask(plane, "Stand") for _ in range(3)]
        until(lambda: running(plane, *asked) == ["one"] * 3, "all of them")
        with plane.database.change() as connection:
            plane.queue.cancel(connection, asked[1])
        until(lambda: row(plane, asked[1])["status"] == "Cancelled", "the end of one")
        assert running(plane, *asked) == ["one"] * 2


def test_they_go_on_elsewhere(plane: Plane) -> None:
    with process(plane, "one"):
        job = ask(plane, "Stand")
        until(lambda: running(plane, job), "it")
    assert row(plane, job)["status"] == "Queued"
    with process(plane, "two"):
        until(lambda: running(plane, job) == ["two"], "it, again")
        assert row(plane, job)["attempt"] == 1  # a stop is no failure of the job


def test_no_more_than_there_is_room_for(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "_MOST", 2)
    with process(plane, "one"):
        asked = [ask(plane, "Stand") for _ in range(3)]
        until(lambda: len(running(plane, *asked)) == 2, "two of them")
        with process(plane, "two"):
            until(lambda: sorted(map(str, running(plane, *asked))) == ["one", "one", "two"], "the third one")


def test_one_that_was_not_started_stops(plane: Plane) -> None:
    Standing(plane.queue, {}, plane.env, "one").stop()


def test_one_that_is_claimed_while_its_process_stops(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is handed back too, and does not wait for the end of its lease."""
    claimed, claim = threading.Event(), plane.queue.claim

    def slowly(*given: Any, **more: Any) -> Any:
        found = claim(*given, **more)
        claimed.set()
        threading.Event().wait(0.3)  # the stop comes now
        return found

    monkeypatch.setattr(plane.queue, "claim", slowly)
    with process(plane, "one"):
        job = ask(plane, "Stand")
        assert claimed.wait(60)
    assert row(plane, job)["status"] == "Queued"
