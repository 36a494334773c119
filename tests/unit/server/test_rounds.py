# SPDX-License-Identifier: Apache-2.0
"""Chores: each when it is due, whatever becomes of the others."""

from __future__ import annotations

import logging
import queue
import threading
import time

import pytest

from keepstone.env import Env
from keepstone.errors import StorageFull
from keepstone.server.rounds import Chore, Rounds

pytestmark = pytest.mark.service


def test_chores_are_done_again_and_again(caplog: pytest.LogCaptureFixture) -> None:
    done: queue.Queue[str] = queue.Queue()
    failures: list[float] = []

    def fails() -> None:
        done.put("fails")
        failures.append(time.monotonic())
        raise StorageFull("no room") if len(failures) % 2 else ValueError("a stone")

    chores = [
        Chore("once", 3600, lambda: done.put("once")),
        Chore("often", 0.001, lambda: done.put("often")),
        Chore("fails", 0.001, fails),
    ]
    rounds = Rounds(Env(), "test", chores)
    with caplog.at_level(logging.ERROR):
        rounds.start()
        seen: list[str] = []
        while seen.count("fails") < 8:
            seen.append(done.get(timeout=30))
        rounds.stop()
        rounds.join(30)

    assert not rounds.is_alive()
    assert seen.count("once") == 1
    assert seen.count("often") >= 8
    for number in range(7):  # ever later
        assert failures[number + 1] - failures[number] >= 0.001 * 2 ** (number + 1)
    assert "fails: " in caplog.text


def test_a_stop_does_not_wait_for_what_is_due_later() -> None:
    done = threading.Event()
    rounds = Rounds(Env(), "test", [Chore("seldom", 3600, done.set)])
    rounds.start()
    assert done.wait(30)

    rounds.stop()
    rounds.join(30)

    assert not rounds.is_alive()
