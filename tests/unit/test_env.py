# SPDX-License-Identifier: Apache-2.0
"""Whether a process lives: what a lease and a file in `tmp/` stand and fall with; and how many workers there are."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from keepstone.env import Env, Process

pytestmark = pytest.mark.store

TELL = "from keepstone.env import Env; p = Env().process(); print(p.pid, p.started, flush=True); input()"


def test_a_process_that_was_killed_runs_no_more_though_nobody_waits_for_it() -> None:
    """In a container there is often no one who does."""
    env = Env()
    with subprocess.Popen(
        [sys.executable, "-c", TELL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        pid, started = map(int, child.stdout.readline().split())
        process = Process(env.process().host, env.boot_id(), pid, started)
        assert env.is_running(process) is True
        assert env.is_running(replace(process, started=started + 1)) is False  # another one under its number
        child.kill()
        status = Path(f"/proc/{pid}/stat")
        while status.read_text().rpartition(")")[2].split()[0] != "Z":
            pass

        assert env.is_running(process) is False


def test_of_another_boot_and_another_host() -> None:
    env = Env()
    me = env.process()

    assert env.is_running(me) is True
    assert env.is_running(replace(me, boot="another")) is False
    assert env.is_running(replace(me, boot="another", host="elsewhere")) is None


def test_as_many_workers_as_threads_and_those_that_wait() -> None:
    for more in (0, 2):
        barrier = threading.Barrier(2 + more)
        pool = Env(threads=2).pool(more)
        waiting = [pool.submit(barrier.wait, 30) for _ in range(2 + more)]

        assert sorted(future.result() for future in waiting) == list(range(2 + more))
        pool.shutdown()


def test_no_workers_beside_the_caller_where_there_are_no_threads() -> None:
    assert Env(threads=0).pool(2).submit(threading.get_ident).result() == threading.get_ident()
