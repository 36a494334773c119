# SPDX-License-Identifier: Apache-2.0
"""Failed logins, counted by several processes at once, over every database."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest

from keepstone.catalogue import Database
from keepstone.control import attempts
from keepstone.control.plane import Place, Plane
from keepstone.errors import Unauthenticated
from keepstone.jobs import JobQueue
from keepstone.vault import Stores

from .conftest import Clock

pytestmark = pytest.mark.service


def opened(database: Database, clock: Clock, root: Path) -> Plane:
    place = Place("tenant", "subscription", "onprem1")
    return Plane(clock, database, JobQueue(database, clock), Stores(clock, root), place, root)


@pytest.fixture
def plane(database: Database, clock: Clock, tmp_path: Path) -> Plane:
    return opened(database, clock, tmp_path)


def looked(plane: Plane, login: str) -> bool:
    """Whether anybody looks if the password is right."""
    try:
        attempts.begin(plane, login)
    except Unauthenticated:
        return False
    return True


def test_after_ten_in_a_row_one_has_to_wait(plane: Plane, clock: Clock) -> None:
    assert all(looked(plane, "anna") for _ in range(10))
    for seconds in (1, 2, 4):
        assert not looked(plane, "Anna")
        clock.now += timedelta(seconds=seconds)
        assert looked(plane, "anna")
    assert looked(plane, "somebody \udce9lse " * 1000)  # whatever anybody sends
    with plane.database.change() as connection:
        attempts.pardon(connection, "ANNA")
    assert all(looked(plane, "anna") for _ in range(10))


@pytest.mark.usefixtures("database")
def test_many_at_once_are_as_many_as_one_after_another(url: str, clock: Clock, tmp_path: Path) -> None:
    found: list[bool] = []
    barrier = threading.Barrier(6)

    def run() -> None:
        """With connections of its own, as a process has them."""
        plane = opened(Database(url), clock, tmp_path)
        try:
            barrier.wait(30)
            found.extend([looked(plane, "anna") for _ in range(4)])
        finally:
            plane.database.close()

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 24
    assert sum(found) == 10
