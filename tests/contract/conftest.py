# SPDX-License-Identifier: Apache-2.0
"""What the tests over several databases share."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from keepstone.catalogue import Database, metadata
from keepstone.env import Env
from keepstone.jobs import JobQueue

from .databases import KINDS, new_database

__all__ = ["Clock"]


class Clock(Env):
    """Goes on when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.now = datetime(2026, 11, 26, 12, tzinfo=UTC)

    def wall_time(self) -> int:
        return int(self.now.timestamp()) * 10**9


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with new_database(request.param, tmp_path) as address:
        yield address


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    found = Database(url)
    with found.change() as connection:
        metadata.create_all(connection)
    yield found
    found.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(database: Database, clock: Clock) -> JobQueue:
    return JobQueue(database, clock)
