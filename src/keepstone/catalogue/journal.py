# SPDX-License-Identifier: Apache-2.0
"""The configuration of a vault, written into its own store: how a vault outlives the database that knew it.

An entry says what became of some records: msgpack of a list of [table, row, whether it is there]. Read in order they
give the newest state. Every `_SNAPSHOT` entries comes one that says everything, and those before it go.

Saying everything takes a second where there is much, and nobody waits for that: it is read and written down beside the
changes of others, and counts only if there was none of this vault meanwhile. Otherwise it is tried again with the next
one; until then there are more entries than there had to be.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import msgspec
import sqlalchemy as sa

from keepstone.catalogue.database import Database
from keepstone.catalogue.rows import RECORDS, every, first, values
from keepstone.catalogue.tables import facts, outbox, vaults
from keepstone.decoders import from_msgpack
from keepstone.errors import KeepstoneError
from keepstone.vault import (
    Agent,
    Container,
    Credential,
    Group,
    Identity,
    Item,
    Lock,
    RecoveryPoint,
    Resource,
    RoleAssignment,
    StoredPolicy,
    Stores,
    Vault,
    folded,
)

__all__ = ["Journalist", "Note", "decode_entry"]

_log = logging.getLogger(__name__)
_SNAPSHOT = 256
_LEFT_OUT = {"vaults": ("journal",), "items": ("backed_up", "outcome", "newest")}  # they follow from something else


class Note(msgspec.Struct, array_like=True, frozen=True):
    """What became of a record: its table, its row, and whether it is there."""

    table: str
    row: dict[str, Any]
    present: bool


def decode_entry(body: bytes) -> list[Note]:
    """The notes of an entry."""
    return from_msgpack(list[Note]).decode(body)


class Journalist:
    """Safe for several threads and processes."""

    def __init__(self, database: Database, stores: Stores) -> None:
        self._database = database
        self._stores = stores
        self._due: set[UUID] = set()  # whose next entry is to say everything

    def note(self, record: Any, present: bool) -> Note:
        """What to write of a record."""
        table = str(RECORDS[type(record)].name)
        row = {name: value for name, value in values(record).items() if name not in _LEFT_OUT.get(table, ())}
        return Note(table, row, present)

    def concerned(self, connection: sa.Connection, record: Any) -> Iterator[UUID]:
        """The vaults whose journals are to have this record."""
        match record:
            case Vault():
                yield record.id
            case StoredPolicy() | Container() | Item():
                yield record.vault
            case RecoveryPoint():
                return  # the store has them itself
            case Agent() | Credential():
                return  # what was revoked must not come back with an old store: after a rebuild machines register anew
            case Group() | Resource():
                key = folded(record.name if isinstance(record, Group) else record.group_name)
                mine = vaults.c.subscription == record.subscription, vaults.c.group_key == key
                yield from connection.execute(sa.select(vaults.c.id).where(*mine)).scalars()
            case RoleAssignment() | Lock():
                for vault in every(connection, Vault):
                    if _touches(record.scope, vault):
                        yield vault.id
            case Identity():
                yield from connection.execute(sa.select(vaults.c.id)).scalars()

    def enter(self, connection: sa.Connection, vault: UUID, notes: list[Note]) -> None:
        """Put an entry into the outbox, within the caller's transaction."""
        mine = vaults.c.id == vault
        following = vaults.update().where(mine).values(journal=vaults.c.journal + 1).returning(vaults.c.journal)
        sequence = connection.execute(following).scalar()
        if sequence is None:  # the vault itself has gone
            return
        snapshot = sequence == 1
        body = msgspec.msgpack.encode(self._everything(connection, vault) if snapshot else notes)
        row = {"vault": vault, "sequence": sequence, "snapshot": snapshot, "body": body}
        connection.execute(outbox.insert().values(**row))

    def ship(self, vault: UUID) -> bool:
        """Put what is in the outbox into the vault's store; whether nothing is left."""
        with self._database.look() as connection:
            query = sa.select(outbox).where(outbox.c.vault == vault).order_by(outbox.c.sequence)
            rows = connection.execute(query).mappings().all()
        try:
            for row in rows:
                journal = self._stores.open(vault).journal
                journal.append(row["sequence"], row["body"], snapshot=row["snapshot"])
                if row["snapshot"]:
                    journal.drop(row["sequence"])
                elif row["sequence"] % _SNAPSHOT == 1:
                    self._due.add(vault)
                with self._database.change() as connection:
                    mine = outbox.c.vault == vault, outbox.c.sequence == row["sequence"]
                    connection.execute(outbox.delete().where(*mine))
        except KeepstoneError as error:
            _log.warning("the journal of vault %s lags behind, and is tried again: %s", vault, error)
            return False
        if vault in self._due and self._condense(vault):
            self._due.discard(vault)
            return self.ship(vault)
        return True

    def ship_all(self) -> None:
        """The same for every vault that has something in the outbox."""
        with self._database.look() as connection:
            waiting = connection.execute(sa.select(outbox.c.vault).distinct()).scalars().all()
        for vault in waiting:
            self.ship(vault)

    def _condense(self, vault: UUID) -> bool:
        """Put an entry that says everything into the outbox; whether that was done, or the vault is gone."""
        mine = vaults.c.id == vault
        with self._database.look() as connection:
            before = connection.execute(sa.select(vaults.c.journal).where(mine)).scalar()
            if before is None:
                return True
            body = msgspec.msgpack.encode(self._everything(connection, vault))
        with self._database.change() as connection:
            following = vaults.update().where(mine, vaults.c.journal == before).values(journal=before + 1)
            if not connection.execute(following).rowcount:
                return False
            row = {"vault": vault, "sequence": before + 1, "snapshot": True, "body": body}
            connection.execute(outbox.insert().values(**row))
        return True

    def _everything(self, connection: sa.Connection, vault: UUID) -> list[Note]:
        """The whole configuration of a vault, and what its installation is called: so clients find it where it was."""
        record = first(connection, Vault, vaults.c.id == vault)
        if record is None:
            return []
        records: list[Any] = [record]
        group = RECORDS[Group].c
        records += every(
            connection, Group, group.subscription == record.subscription, group.key == folded(record.group_name)
        )
        held: tuple[type[Any], ...] = (StoredPolicy, Container, Item)
        for kind in held:
            records += every(connection, kind, RECORDS[kind].c.vault == vault)
        records += every(connection, Identity)
        beside = RECORDS[Resource].c
        records += every(
            connection,
            Resource,
            beside.subscription == record.subscription,
            beside.group_key == folded(record.group_name),
        )
        scoped: tuple[type[Any], ...] = (RoleAssignment, Lock)
        for kind in scoped:
            records += [one for one in every(connection, kind) if _touches(one.scope, record)]
        named = connection.execute(sa.select(facts).order_by(facts.c.name)).mappings()
        return [*(Note("facts", dict(row), True) for row in named), *(self.note(one, True) for one in records)]


def _touches(scope: str, vault: Vault) -> bool:
    """Whether a scope is above a vault, the vault itself, or beneath it."""
    scope, path = folded(scope).rstrip("/") + "/", folded(vault.path) + "/"
    return path.startswith(scope) or scope.startswith(path)
