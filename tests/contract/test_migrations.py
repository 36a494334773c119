# SPDX-License-Identifier: Apache-2.0
"""Migrations make the tables that the program expects, once, whoever else makes them at the same time."""

from __future__ import annotations

import re
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from hatchling.builders.wheel import WheelBuilder

from keepstone.catalogue import Database, metadata
from keepstone.catalogue import migrate as module
from keepstone.catalogue.migrate import migrate, version
from keepstone.env import Env
from keepstone.errors import UnsupportedFormat
from keepstone.jobs import JobQueue

from .databases import new_database

pytestmark = pytest.mark.service

ROOT = Path(__file__).parents[2]
STEPS = ScriptDirectory(str(Path(module.__file__).with_name("migrations")))
NEWEST = STEPS.get_current_head()

# Everything that PostgreSQL knows of columns, constraints and indexes, as it would write them itself.
_COLUMNS = """
    select c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid)
    from pg_attribute a join pg_class c on c.oid = a.attrelid left join pg_attrdef d
    on (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
    where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and a.attnum > 0
"""
_CONSTRAINTS = """
    select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint
    where connamespace = 'public'::regnamespace
"""
_INDEXES = "select tablename, indexname, indexdef from pg_indexes where schemaname = 'public'"
# Between two parts of a statement of SQLite.
_LINES = re.compile(r",? *\n\t?|, (?=[a-z_]+ [A-Z])")


@pytest.fixture
def empty(url: str) -> Iterator[Database]:
    found = Database(url)
    yield found
    found.close()


def schema(database: Database) -> list[Any]:
    """All that the database itself says of its tables, without those of Alembic. The order of columns is left out."""
    queries: tuple[str, ...] = (_COLUMNS, _CONSTRAINTS, _INDEXES)
    if database.is_sqlite:  # which keeps the statement that made a table, and adds columns to its last line
        queries = ("select tbl_name, name, sql from sqlite_master",)
    with database.look() as connection:
        rows = [tuple(row) for query in queries for row in connection.exec_driver_sql(query)]
    if database.is_sqlite:
        rows = [(table, name, sorted(_LINES.split(sql or ""))) for table, name, sql in rows]
    return sorted((row for row in rows if row[0] != "alembic_version"), key=repr)


def test_a_migrated_database_has_the_tables_that_the_program_expects(empty: Database, tmp_path: Path) -> None:
    migrate(empty)
    with empty.look() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []

    (tmp_path / "expected").mkdir()
    with new_database(empty.engine.dialect.name, tmp_path / "expected") as url:
        expected = Database(url)
        metadata.create_all(expected.engine)
        try:
            assert schema(empty) == schema(expected)
        finally:
            expected.close()
    assert "deleted IS NULL" in str([row for row in schema(empty) if "uq_vaults_living" in row])


def test_migrating_twice_changes_nothing(empty: Database) -> None:
    assert version(empty) is None
    migrate(empty)
    before = schema(empty)
    with empty.change() as connection:
        connection.execute(metadata.tables["facts"].insert().values(name="tenant", value="somebody's"))

    migrate(empty)

    assert schema(empty) == before
    assert version(empty) == NEWEST
    with empty.look() as connection:
        assert connection.execute(sa.select(metadata.tables["facts"])).all() == [("tenant", "somebody's")]


def test_jobs_of_before_there_were_agents_are_the_servers(empty: Database) -> None:
    """Whose tables are those of the first release."""
    with empty.change() as connection:
        command.upgrade(module._config(connection), "0001")
        row = {"id": uuid4().hex, "vault": uuid4().hex, "time": 1}
        connection.execute(
            sa.text(
                "insert into jobs (id, vault, operation, arguments, status, priority, created, due, token, attempt) "
                "values (:id, :vault, 'Backup', '{}', 'Queued', 0, :time, :time, 0, 0)"
            ),
            row,
        )

    migrate(empty)

    queue = JobQueue(empty, Env())
    assert queue.claim("agent", ["Backup"], machine=uuid4()) is None
    claim = queue.claim("worker", ["Backup"])
    assert claim is not None
    assert (claim.id.hex, claim.machine) == (row["id"], None)


def test_two_at_once(url: str) -> None:
    """Each with connections of its own, as in processes of their own."""
    databases = [Database(url) for _ in range(3)]
    barrier = threading.Barrier(len(databases))
    failed: list[Exception] = []

    def run(database: Database) -> None:
        barrier.wait(30)
        try:
            migrate(database)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(database,)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert failed == []
    assert {version(database) for database in databases} == {NEWEST}
    for database in databases:
        database.close()


def test_a_step_is_taken_whole_or_not_at_all(empty: Database) -> None:
    with empty.change() as connection:
        connection.exec_driver_sql("create table other (a integer)")
        connection.exec_driver_sql("create index ix_points_item_made on other (a)")
    before = schema(empty)

    with pytest.raises(sa.exc.DBAPIError, match="ix_points_item_made"):
        migrate(empty)

    assert schema(empty) == before
    assert version(empty) is None


def test_a_newer_database_is_left_alone(empty: Database) -> None:
    migrate(empty)
    with empty.change() as connection:
        connection.exec_driver_sql("update alembic_version set version_num = '9999'")
        connection.exec_driver_sql("drop table locks")
    before = schema(empty)

    with pytest.raises(UnsupportedFormat, match=f"version 9999, and this Keepstone knows versions up to {NEWEST}"):
        migrate(empty)

    assert schema(empty) == before
    assert version(empty) == "9999"


def test_tables_of_somebody_else_are_left_alone(empty: Database) -> None:
    with empty.change() as connection:
        connection.exec_driver_sql("create table items (a integer)")

    with pytest.raises(UnsupportedFormat, match="'items' that is not of Keepstone"):
        migrate(empty)

    assert version(empty) is None


def test_the_steps_go_one_way_and_in_one_line() -> None:
    steps = list(STEPS.walk_revisions())

    assert steps
    assert [step.revision for step in reversed(steps)] == [f"{number:04}" for number in range(1, len(steps) + 1)]
    assert not [step.revision for step in steps if hasattr(step.module, "downgrade")]


def test_the_steps_are_in_the_wheel(tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())

    folder = Path(STEPS.dir)
    steps = {path.relative_to(ROOT / "src").as_posix() for path in folder.rglob("*.py")}
    assert len(steps) > 1
    assert steps <= names
