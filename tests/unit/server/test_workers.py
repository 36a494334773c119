# SPDX-License-Identifier: Apache-2.0
"""Worker processes: told what they need, and their jobs are free when they die."""

from __future__ import annotations

import json
import sys
import threading

import pytest
import sqlalchemy as sa

from keepstone.catalogue import jobs
from keepstone.control.plane import Plane
from keepstone.env import Env
from keepstone.server.workers import Workers
from tests.cli.services import until
from tests.unit.server.conftest import Heard

pytestmark = [pytest.mark.service, pytest.mark.usefixtures("logging_as_before")]

GOOD = """
import json, sys
print(json.dumps({"arguments": sys.argv[1:]}), file=sys.stderr, flush=True)
sys.stdin.read()
"""
DYING = """
import sqlite3, sys
data, owner = (sys.argv[sys.argv.index(name) + 1] for name in ("--data", "--owner"))
connection = sqlite3.connect(f"{data}/keepstone.db", timeout=30)
with connection:
    connection.execute("update jobs set status = 'InProgress', owner = ?, lease_until = 1 << 60", [owner])
connection.close()
sys.exit("so long")
"""


def test_workers_are_told_what_they_need(heard: Heard, plane: Plane) -> None:
    workers = Workers(plane, 2, level="debug", program=[sys.executable, "-c", GOOD])
    workers.start()
    try:
        until(lambda: len(heard.lines) == 2, "both begin")
    finally:
        workers.stop()

    given = [json.loads(line)["arguments"] for line in heard.having("arguments")]
    owners = {arguments[arguments.index("--owner") + 1] for arguments in given}
    assert len(owners) == 2
    assert {arguments[arguments.index("--process") + 1] for arguments in given} == {"worker-1", "worker-2"}
    assert all(arguments[:4] == ["--data", str(plane.root), "--log-level", "debug"] for arguments in given)


def test_the_jobs_of_one_that_dies_are_free(heard: Heard, plane: Plane) -> None:
    deaths = threading.Semaphore(0)
    with plane.database.change() as connection:
        job = plane.queue.enqueue(connection, "Backup", {}, vault=plane.new_id())
    workers = Workers(plane, 1, program=[sys.executable, "-c", DYING], died=deaths.release)
    workers.start()
    try:
        assert deaths.acquire(timeout=60)
    finally:
        workers.stop()

    assert heard.having("worker-1: so long")
    assert heard.having("1 jobs of a worker that died go on with others")
    with plane.look() as connection:
        assert connection.execute(sa.select(jobs.c.lease_until).where(jobs.c.id == job)).scalar_one() <= Env().utc()
