# SPDX-License-Identifier: Apache-2.0
"""Manifest nodes that this machine has seen, in a file of bounded size: `remote.NodeCache`.

Whatever goes wrong with it is no failure of anybody's job: it is then as if nothing was there. Each node has a
checksum, for what it says of a file that did not change goes into the next point unread.

Nodes lie in the order in which they came, which is that in which they are asked for again; so one look brings many.
When each was last of use is noted when that matters: where there is too much, or it is long ago.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path

import msgspec
import xxhash

from keepstone.remote.wire import Seen

__all__ = ["DiskCache"]

_log = logging.getLogger(__name__)
_PENDING = 512  # nodes that are written together
_TOGETHER = 256  # nodes that are read together
_AHEAD = 4096  # nodes that are held though nobody has asked for them yet
_LONG = 8  # rounds
_ROW = 72  # bytes that a row takes beside its node, about
_SUM = 16
_decoder = msgspec.msgpack.Decoder(Seen)


class DiskCache:
    """Nodes in the file `path`, of `most` bytes at most. One thread at a time is in here."""

    def __init__(self, path: Path, most: int) -> None:
        self._path = path
        self._most = most
        self._fresh: dict[bytes, bytes] = {}
        self._ahead: dict[bytes, tuple[int, bytes]] = {}
        self._used: dict[bytes, int] = {}  # with the round in which it was last noted
        self._round = self._room = 0
        self._database = self._open()

    def _open(self) -> sqlite3.Connection | None:
        for _ in range(2):
            database = None
            try:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                database = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None, timeout=1.0)
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = OFF")  # it may be lost, and nothing trusts it without a key
                database.execute(
                    "CREATE TABLE IF NOT EXISTS nodes (key BLOB NOT NULL UNIQUE, node BLOB NOT NULL, round INTEGER NOT"
                    " NULL)"
                )
                row = database.execute("SELECT coalesce(max(round), 0) + 1 FROM nodes").fetchone()
                self._round = int(row[0])
                self._room = self._most - self._size(database)
                return database
            except (sqlite3.Error, OSError, TypeError, ValueError) as error:
                _log.warning("nodes are not kept on this machine: %s", error)
                if database is not None:
                    database.close()
                if not isinstance(error, sqlite3.DatabaseError) or isinstance(error, sqlite3.OperationalError):
                    break
                self._remove()  # it is damaged; the next one will do
        return None

    def get(self, key: bytes) -> Seen | None:
        data = self._fresh.get(key)
        last = self._round
        if data is None:
            found = self._ahead.pop(key, None) or self._look(key)
            if found is None:
                return None
            last, data = found
        try:
            if not isinstance(data, bytes) or data[:_SUM] != _sum(key, data[_SUM:]):
                raise sqlite3.DatabaseError("a node is damaged")
            node = _decoder.decode(data[_SUM:])
        except (sqlite3.DatabaseError, msgspec.MsgspecError) as error:
            self._give_up(error)
            return None
        self._used[key] = last
        return node

    def _look(self, key: bytes) -> tuple[int, bytes] | None:
        """(round, what is kept) of a node; those that came after it are held for whoever asks next."""
        if self._database is None:
            return None
        try:
            row = self._database.execute("SELECT rowid, round, node FROM nodes WHERE key = ?", (key,)).fetchone()
            if row is None:
                return None
            if len(self._ahead) > _AHEAD:
                self._ahead.clear()
            after = "SELECT key, round, node FROM nodes WHERE rowid > ? ORDER BY rowid LIMIT ?"
            for other, last, data in self._database.execute(after, (row[0], _TOGETHER)):
                self._ahead[other] = last, data
        except sqlite3.Error as error:
            self._give_up(error)
            return None
        return row[1], row[2]

    def has(self, key: bytes) -> bool:
        if key in self._fresh or key in self._ahead:
            return True
        if self._database is None:
            return False
        try:
            return self._database.execute("SELECT 1 FROM nodes WHERE key = ?", (key,)).fetchone() is not None
        except sqlite3.Error as error:
            self._give_up(error)
            return False

    def put(self, key: bytes, node: Seen) -> None:
        if self._database is None or key in self._fresh or len(node.body) > self._most // 8:
            return
        data = msgspec.msgpack.encode(node)
        if len(data) + _ROW > self._room:
            return  # what was not used any more makes room at the end
        self._room -= len(data) + _ROW
        self._fresh[key] = _sum(key, data) + data
        if len(self._fresh) >= _PENDING:
            self._write()

    def close(self) -> None:
        """Keep what is new, and let the oldest go as far as there is too much."""
        if self._database is None:
            return
        try:
            self._write()
            if self._database is None:
                return
            self._database.execute("BEGIN")
            long = self._round - (0 if self._is_much() else _LONG)
            used = [(self._round, key) for key, last in self._used.items() if last < long]
            self._database.executemany("UPDATE nodes SET round = ? WHERE key = ?", used)
            self._shrink()
            self._database.execute("COMMIT")
            self._database.close()
        except sqlite3.Error as error:
            self._give_up(error)
        self._database = None

    def _write(self) -> None:
        if self._database is None:
            return
        fresh, self._fresh = self._fresh, {}
        try:
            self._database.execute("BEGIN")
            self._database.executemany(
                "INSERT OR REPLACE INTO nodes VALUES (?, ?, ?)",
                [(key, data, self._round) for key, data in fresh.items()],
            )
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            self._give_up(error)

    def _shrink(self) -> None:
        """Let go of what this round had no use for, the oldest first, until there is room for as much again."""
        assert self._database is not None
        while self._is_much():
            gone = "DELETE FROM nodes WHERE round = (SELECT min(round) FROM nodes WHERE round < ?)"
            if not self._database.execute(gone, (self._round,)).rowcount:
                break

    def _is_much(self) -> bool:
        return self._database is not None and self._size(self._database) > self._most * 3 // 4

    @staticmethod
    def _size(database: sqlite3.Connection) -> int:
        total = "SELECT coalesce(sum(length(node) + ?), 0) FROM nodes"
        return int(database.execute(total, (_ROW - _SUM,)).fetchone()[0])

    def _give_up(self, error: Exception) -> None:
        """It is damaged, or somebody else is at it: go on without."""
        _log.warning("what was kept of earlier points is given up: %s", error)
        database, self._database = self._database, None
        self._fresh, self._ahead = {}, {}
        if database is not None:
            with contextlib.suppress(sqlite3.Error):
                database.close()
        if not isinstance(error, sqlite3.OperationalError):
            self._remove()

    def _remove(self) -> None:
        for end in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                self._path.with_name(self._path.name + end).unlink(missing_ok=True)


def _sum(key: bytes, data: bytes) -> bytes:
    return xxhash.xxh3_128_digest(key + data)
