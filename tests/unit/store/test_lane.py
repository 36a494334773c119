# SPDX-License-Identifier: Apache-2.0
"""One thread at a time makes many short calls, and nobody waits for that for long."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from keepstone.env import Env
from keepstone.store import lane
from keepstone.store.lane import Lane
from keepstone.store.pipeline import Chunks, Pipeline, Scratch
from tests.unit.store.known import piece
from tests.unit.store.test_pipeline import Shelf

pytestmark = pytest.mark.store

PLENTY = 20.0  # seconds after which a test that hangs gives up


class Crowd:
    """Counts how many are in it at once."""

    def __init__(self) -> None:
        self.most = self.now = 0
        self._lock = threading.Lock()

    def visit(self, seconds: float = 0.005) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(seconds)
        with self._lock:
            self.now -= 1


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "PATIENCE", PLENTY)


@pytest.mark.usefixtures("patient")
def test_one_at_a_time() -> None:
    crowd, made = Crowd(), Lane()

    def work(_: int) -> None:
        with made.taken(), made.taken():  # who has it takes it again
            crowd.visit()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(12)))

    assert crowd.most == 1


@pytest.mark.usefixtures("patient")
def test_who_waits_lets_others_in() -> None:
    made, there = Lane(), threading.Event()

    def other() -> None:
        with made.taken():
            there.set()

    with made.taken():
        thread = threading.Thread(target=other)
        thread.start()
        assert not there.wait(0.05)
        with made.left():
            assert there.wait(PLENTY)
        thread.join()
        later = threading.Thread(target=other)
        there.clear()
        later.start()
        assert not there.wait(0.05)  # it was taken again
    later.join(PLENTY)
    assert there.is_set()


def test_nobody_waits_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """And who went on without it neither holds it nor gives away what is another's."""
    monkeypatch.setattr(lane, "PATIENCE", 0.02)
    made, crowd = Lane(), Crowd()

    def impatient() -> None:
        with made.taken():
            crowd.visit()
            with made.left():
                crowd.visit()

    with made.taken():
        thread = threading.Thread(target=impatient)
        thread.start()
        thread.join(PLENTY)
        assert not thread.is_alive()
        assert crowd.most == 1
        with made.left():
            pass  # would raise if it was not held any more
    with made.taken():
        pass


def test_to_leave_what_one_has_not() -> None:
    with Lane().left():
        pass


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("short_calls", [True, False])
def test_pieces_with_short_calls_are_read_one_after_the_other(short_calls: bool) -> None:
    """Also while the thread that submits them has the lane; others are read beside one another."""
    crowd = Crowd()
    pipeline = Pipeline(Env(threads=4), Shelf())

    def read(scratch: Scratch) -> Chunks:
        crowd.visit(0.02)
        return piece([b"x"])(scratch)

    try:
        with pipeline.lane.taken():
            for _ in range(20):
                pipeline.submit(read, lambda refs, info: None, short_calls=short_calls)
            pipeline.drain()
    finally:
        pipeline.close()

    assert (crowd.most == 1) == short_calls
