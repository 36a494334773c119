# SPDX-License-Identifier: Apache-2.0
"""What every function of the control plane works with, and the transaction that changes something.

Invariants of the journal
* A change of a vault's configuration and its entry for the vault's journal are one transaction (a transactional
  outbox). The entry is put into the store right after it; where that fails, it stays in the outbox and is tried again.
* Entries go into the store in the order of their transactions and never before them, so the journal is a beginning of
  the vault's history: nothing stands in it that did not happen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from keepstone.catalogue import RECORDS, Database, insert, items, save
from keepstone.catalogue.journal import Journalist
from keepstone.catalogue.judging import outdate
from keepstone.control.reach import Reach
from keepstone.env import Env
from keepstone.jobs import JobQueue
from keepstone.vault import Item, StoredPolicy, Stores

__all__ = ["Change", "Place", "Plane"]


@dataclass(frozen=True, slots=True)
class Place:
    """What this installation is to its clients. `tenant`, `subscription`: GUIDs. `location`: its region's name."""

    tenant: str
    subscription: str
    location: str


class Plane:
    """One for each process. `root`: the folder of the installation. `reach`: what of this machine its workers read and
    write; everything where that is None, but for this folder. `snapshots`: a folder of this machine for the snapshots
    that its hypervisors keep; None where they keep none."""

    def __init__(
        self,
        env: Env,
        database: Database,
        queue: JobQueue,
        stores: Stores,
        place: Place,
        root: Path,
        reach: Reach | None = None,
        snapshots: Path | None = None,
    ) -> None:
        self.env = env
        self.database = database
        self.queue = queue
        self.stores = stores
        self.place = place
        self.root = root
        self.reach = reach or Reach(root)
        self.snapshots = snapshots
        self.journal = Journalist(database, stores)

    def new_id(self) -> UUID:
        """A name that nothing else has."""
        return UUID(bytes=self.env.random(16), version=4)

    @contextmanager
    def look(self) -> Iterator[sa.Connection]:
        """A transaction that only reads."""
        with self.database.look() as connection:
            yield connection

    @contextmanager
    def change(self) -> Iterator[Change]:
        """A transaction that changes something; on return it is durable, and in the journals of its vaults."""
        with self.database.change() as connection:
            change = Change(connection, self)
            yield change
            touched = change.close()
        for vault in touched:
            self.journal.ship(vault)


class Change:
    """What a transaction has changed so far."""

    def __init__(self, connection: sa.Connection, plane: Plane) -> None:
        self.connection = connection
        self.plane = plane
        self._notes: dict[UUID, list[Any]] = {}

    @property
    def now(self) -> datetime:
        """The moment of this change."""
        return self.plane.env.utc()

    def insert(self, record: Any) -> None:
        """Write a new record."""
        insert(self.connection, record)
        self._note(record, True)

    def save(self, record: Any) -> None:
        """Write a record, over the one with its primary key where there is one. What retention says of the points of an
        item may be something else then."""
        save(self.connection, record)
        match record:
            case Item():
                outdate(self.connection, items.c.id == record.id)
            case StoredPolicy():
                outdate(self.connection, items.c.policy == record.id)
        self._note(record, True)

    def remove(self, record: Any) -> None:
        """Remove a record."""
        table = RECORDS[type(record)]
        self.connection.execute(
            table.delete().where(*(column == getattr(record, column.name) for column in table.primary_key))
        )
        self._note(record, False)

    def _note(self, record: Any, present: bool) -> None:
        journal = self.plane.journal
        for vault in journal.concerned(self.connection, record):
            self._notes.setdefault(vault, []).append(journal.note(record, present))

    def close(self) -> list[UUID]:
        """Enter the changes for the journals; the vaults that have some."""
        for vault, notes in self._notes.items():
            self.plane.journal.enter(self.connection, vault, notes)
        return list(self._notes)
