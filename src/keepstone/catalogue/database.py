# SPDX-License-Identifier: Apache-2.0
"""The database of a server: SQLite in a file, or PostgreSQL by its URL.

Two kinds of transaction. One that changes something takes the write lock as it begins (`BEGIN IMMEDIATE` on SQLite), so
what it has read is still true when it writes, and it never fails half way for want of the lock. One that reads sees one
state of everything and never waits. What was committed is on the disk (`synchronous=full`): configuration that was
acknowledged survives a power failure.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.pool import PoolProxiedConnection

from keepstone.errors import UsageError

__all__ = ["Database", "upsert"]

_PATIENCE = 30_000  # ms that a writer waits for another one
_TRIES = 20  # to give a new file its journal: whoever fails was held up by one that did not
_CONNECTIONS = 16  # that are kept open, as many as threads use at once


class Database:
    """Safe for several threads and processes. `url` as SQLAlchemy takes it; `UsageError` for one that it does not."""

    def __init__(self, url: str) -> None:
        try:
            self.engine = sa.create_engine(
                url, hide_parameters=True, pool_size=_CONNECTIONS, json_deserializer=_document
            )
        except (sa.exc.ArgumentError, ImportError) as error:
            raise UsageError(f"{url.partition('://')[0]}://… is no database ({error})") from error
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        if self.is_sqlite:
            sa.event.listen(self.engine, "connect", _prepare)
        self._lock = threading.Lock()
        self._watch: PoolProxiedConnection | None = None

    @contextmanager
    def change(self) -> Iterator[sa.Connection]:
        """A transaction that writes; rolled back where the block fails."""
        with self.engine.begin() as connection:
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    @contextmanager
    def look(self) -> Iterator[sa.Connection]:
        """A transaction that only reads."""
        with self.engine.connect() as connection:
            if self.is_sqlite:
                connection.connection.cursor().execute("BEGIN")  # the driver's own: it waits for nothing
            yield connection

    def version(self) -> int | None:
        """What is another number after any commit of anybody: as long as it is the same, what was read is still true.
        None where the database does not tell; numbers of two processes say nothing of one another."""
        if not self.is_sqlite:
            return None
        with self._lock:
            if self._watch is None:
                self._watch = self.engine.raw_connection()  # its own, which commits nothing
            row = self._watch.cursor().execute("pragma data_version").fetchone()
            return int(row[0])

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with self._lock:
            if self._watch is not None:
                self._watch.close()
                self._watch = None
        self.engine.dispose()


def upsert(connection: sa.Connection, table: sa.Table) -> Any:
    """An insert that can say what becomes of a row of the same key; both databases have it, each as its own."""
    return (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(table)


def _document(text: str | bytes) -> Any:
    """What a column of JSON says. Python's own reader takes five times as long, and is the only one for half of a
    surrogate pair, which a file's name that is no Unicode leaves in a text."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return json.loads(text)


def _prepare(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions begin as `Database` says, and not as the driver thinks
    for pragma in (f"busy_timeout={_PATIENCE}", "synchronous=full", "foreign_keys=on"):
        connection.execute(f"pragma {pragma}")
    _write_ahead(connection)


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Give the file its journal. Where several open a new file at once, the pragma of all but one may fail at once,
    whatever the timeout, which is only honoured as a transaction begins (SQLite, `sqlite3_busy_handler`)."""
    for tries_left in reversed(range(_TRIES)):
        try:
            connection.execute("pragma journal_mode=wal")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or not tries_left:
                raise
        connection.execute("begin immediate")
        connection.execute("rollback")
