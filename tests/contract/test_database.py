# SPDX-License-Identifier: Apache-2.0
"""The database: whole transactions, durable ones, and no waiting for those that only read."""

from __future__ import annotations

import sqlite3
import threading
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa

from keepstone.catalogue import Database, jobs, schedules
from keepstone.errors import StoreMissing, UsageError

pytestmark = pytest.mark.service

ROW = {"item": "00000000000000000000000000000001", "part": "Full", "vault": "00000000000000000000000000000002"}


def insert(connection: sa.Connection) -> None:
    connection.execute(sa.text("insert into schedules (item, part, vault, due) values (:item, :part, :vault, 1)"), ROW)


def count(database: Database) -> int:
    with database.look() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(schedules)).scalar_one()


def test_a_transaction_is_there_whole_or_not(database: Database) -> None:
    with pytest.raises(StoreMissing), database.change() as connection:
        insert(connection)
        raise StoreMissing("in the middle of it")
    assert count(database) == 0

    with database.change() as connection:
        insert(connection)
    assert count(database) == 1


def test_who_reads_does_not_wait_for_who_writes(database: Database) -> None:
    with database.change() as connection:
        insert(connection)
        assert count(database) == 0
    assert count(database) == 1


def test_what_is_committed_is_on_the_disk(database: Database) -> None:
    """SQLite: 2 is FULL, an fsync at every commit; PostgreSQL: the same by its default."""
    with database.look() as connection:
        if database.is_sqlite:
            assert connection.exec_driver_sql("pragma synchronous").scalar() == 2
            assert connection.exec_driver_sql("pragma journal_mode").scalar() == "wal"
        else:
            assert connection.exec_driver_sql("show synchronous_commit").scalar() == "on"
            assert connection.exec_driver_sql("show fsync").scalar() == "on"


def test_a_new_file_that_another_one_is_opening(tmp_path: Path) -> None:
    """Of several processes that start at once, one makes the file: the others wait for it, and do not fail."""
    path = tmp_path / "catalogue.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("begin immediate")
    other.execute("create table made (by)")
    timer = threading.Timer(0.3, other.execute, ["commit"])
    timer.start()

    database = Database(f"sqlite:///{path}")
    with database.change() as connection:
        connection.exec_driver_sql("insert into made values ('both')")
        assert connection.exec_driver_sql("pragma journal_mode").scalar() == "wal"

    timer.join()
    other.close()
    database.close()


@pytest.mark.parametrize("url", ["", "nothing", "oracle9://x", "postgresql+nodriver://x/y"])
def test_what_is_no_database(url: str) -> None:
    with pytest.raises(UsageError, match="is no database"):
        Database(url)


def test_a_version_is_another_one_after_a_commit_of_anybody(database: Database, url: str) -> None:
    before = database.version()
    if not database.is_sqlite:
        assert before is None
        return
    assert count(database) == 0
    assert database.version() == before

    other = Database(url)
    with other.change() as connection:
        insert(connection)
        assert database.version() == before
    other.close()

    after = database.version()
    assert after not in (before, None)
    with database.change() as connection:
        connection.execute(sa.delete(schedules))
    assert database.version() not in (before, after)


def test_a_document_comes_back_as_it_was(database: Database) -> None:
    document = {"text": "ä €", "number": 2**63, "real": 1.5, "nothing": None, "list": [True, {}], "path": "\udce4"}
    now = datetime(2026, 11, 26, tzinfo=UTC)
    row = {
        "id": UUID(int=1),
        "vault": UUID(int=2),
        "operation": "Backup",
        "status": "Queued",
        "created": now,
        "due": now,
    }
    with database.change() as connection:
        connection.execute(jobs.insert(), row | {"arguments": document})
    with database.look() as connection:
        assert connection.execute(sa.select(jobs.c.arguments)).scalar_one() == document
