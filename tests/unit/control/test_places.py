# SPDX-License-Identifier: Apache-2.0
"""Places are given in the order of coming, each once, and none is lost."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from keepstone.control.sessions.places import Places

pytestmark = pytest.mark.service
LONG = 30.0


def waiting(places: Places, pool: ThreadPoolExecutor, who: str, seconds: float = LONG) -> Future[bool]:
    """A question that waits for its turn from now on."""
    before = len(places._waiting)
    asked = pool.submit(places.take, who, seconds)
    while len(places._waiting) == before:
        time.sleep(0.001)
    return asked


def test_in_the_order_of_coming() -> None:
    places = Places(2)
    assert places.take("a", 0)
    assert places.take("b", 0)
    assert not places.take("c", 0)
    with ThreadPoolExecutor(3) as pool:
        asked = [waiting(places, pool, who) for who in "cde"]
        for one in asked:
            places.give()
            assert one.result(LONG)
    assert not places.take("f", 0)
    places.give()
    assert places.take("f", 0)


def test_who_gives_up_is_passed_over() -> None:
    places = Places(1)
    assert places.take("a", 0)
    with ThreadPoolExecutor(2) as pool:
        first, second = waiting(places, pool, "b", 0.05), waiting(places, pool, "c")
        assert not first.result(LONG)
        places.give()
        assert second.result(LONG)


def test_who_asks_again_keeps_his_turn() -> None:
    """His first question is answered by nobody: its connection broke."""
    places = Places(1)
    assert places.take("a", 0)
    with ThreadPoolExecutor(3) as pool:
        first = waiting(places, pool, "b")
        other = waiting(places, pool, "c")
        again = pool.submit(places.take, "b", LONG)
        assert not first.result(LONG)
        places.give()
        assert again.result(LONG)
        assert not other.done()
        places.give()
        assert other.result(LONG)


def test_closed_ones_are_nobodys() -> None:
    places = Places(1)
    assert places.take("a", 0)
    with ThreadPoolExecutor(1) as pool:
        asked = waiting(places, pool, "b")
        places.close()
        assert not asked.result(LONG)
    places.give()
    assert not places.take("c", LONG)


def test_many_at_once() -> None:
    """Never more than there are, and all are there again in the end, whoever gave up meanwhile."""
    places = Places(3)
    lock = threading.Lock()
    inside = most = served = 0

    def visit(number: int) -> None:
        nonlocal inside, most, served
        chance = random.Random(number)
        while not places.take(f"{number}", chance.choice([0.0, 0.0005, 0.01, 0.1])):
            pass
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(chance.choice([0.0, 0.001]))
        with lock:
            inside -= 1
            served += 1
        places.give()

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(visit, range(400)))

    assert (served, most) == (400, 3)
    assert [places.take(who, 0) for who in "abcd"] == [True, True, True, False]
