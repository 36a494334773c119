# SPDX-License-Identifier: Apache-2.0
"""Worker processes: heard, started anew when they die, stopped at the end."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from keepstone.catalogue import jobs
from keepstone.control.plane import Plane
from keepstone.env import Env
from keepstone.server import workers as workers_module
from keepstone.server.workers import Workers
from tests.cli.services import until

pytestmark = [pytest.mark.service, pytest.mark.usefixtures("logging_as_before")]

GOOD = """
import json, sys
print(json.dumps({"message": "begun", "arguments": sys.argv[1:]}), file=sys.stderr, flush=True)
sys.stdin.read()
print(json.dumps({"message": "told to stop"}), file=sys.stderr, flush=True)
"""
STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("{}", file=sys.stderr, flush=True)
while True: time.sleep(1)
"""
GOOD = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{GOOD}"


DYING = """
import sqlite3, sys
data, owner = (sys.argv[sys.argv.index(name) + 1] for name in ("--data", "--owner"))
connection = sqlite3.connect(f"{data}/keepstone.db", timeout=30)
with connection:
    connection.execute("update jobs set status = 'InProgress', owner = ?, lease_until = 1 << 60", [owner])
connection.close()
sys.exit("so long")
"""


class Heard(logging.Handler):
    """Lines of the log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(getattr(record, "line", None) or record.getMessage())

    def having(self, text: str) -> list[str]:
        return [line for line in self.lines if text in line]


@pytest.fixture
def heard() -> Heard:
    handler = Heard()
    logging.getLogger().addHandler(handler)
    return handler


@pytest.fixture
def started(plane: Plane) -> Callable[..., Any]:
    @contextmanager
    def start(program: str, count: int = 1, **more: Any) -> Iterator[Workers]:
        command = [sys.executable, "-c", program]
        workers = Workers(Env(), plane.root, plane.queue, count, program=command, **more)
        workers.start()
        try:
            yield workers
        finally:
            workers.stop()

    return start


def test_workers_are_told_what_they_need_and_when_to_stop(started: Any, heard: Heard, plane: Plane) -> None:
    with started(GOOD, 2, level="debug") as workers:
        until(lambda: len(heard.having("begun")) == 2, "both begin")
        assert workers.alive() == 2

    assert workers.alive() == 0
    assert len(heard.having("told to stop")) == 2
    given = [json.loads(line)["arguments"] for line in heard.having("begun")]
    owners = {arguments[arguments.index("--owner") + 1] for arguments in given}
    assert len(owners) == 2
    assert {arguments[arguments.index("--process") + 1] for arguments in given} == {"worker-1", "worker-2"}
    assert all(arguments[:4] == ["--data", str(plane.root), "--log-level", "debug"] for arguments in given)
    assert not any("started anew" in line for line in heard.lines)


def test_a_worker_that_dies_is_started_anew_ever_later(started: Any, heard: Heard, plane: Plane) -> None:
    restarts = threading.Semaphore(0)
    with plane.database.change() as connection:
        job = plane.queue.enqueue(connection, "Backup", {}, vault=plane.new_id())
    with started(DYING, restarted=restarts.release):
        for _ in range(3):
            assert restarts.acquire(timeout=60)

    ended = heard.having("worker-1 ended with 1 after")
    assert [line.rpartition(" ")[2] for line in ended[:3]] == ["0.2", "0.4", "0.8"]
    assert heard.having("worker-1: so long")
    assert heard.having("1 jobs of a worker that died go on with others")
    with plane.look() as connection:
        assert connection.execute(sa.select(jobs.c.lease_until).where(jobs.c.id == job)).scalar_one() <= Env().utc()


def test_a_worker_that_does_not_stop_is_killed(started: Any, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "PATIENCE", 0.1)
    with started(STUBBORN) as workers:
        until(lambda: heard.having("{}"), "it begins")

    assert workers.alive() == 0
    assert heard.having("worker-1 has not stopped within")


def test_what_never_began_has_stopped(plane: Plane) -> None:
    Workers(Env(), plane.root, plane.queue, 2).stop()


def test_a_stop_before_the_start_starts_nothing(plane: Plane, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    workers = Workers(
        Env(), plane.root, plane.queue, 1, program=[sys.executable, "-c", f"open({str(begun)!r}, 'w')"]
    )  # fmt: skip
    workers.tell()
    workers.start()
    workers.stop()

    assert not begun.exists()
