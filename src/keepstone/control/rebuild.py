# SPDX-License-Identifier: Apache-2.0
"""A vault made anew out of its store, where the database that knew it is lost.

The store has the points, and in its journal everything else that was configured. What it does not have is what went by,
jobs, operations and alerts; and the targets of alerts, which are set again by hand.

Invariants
* Everything is read and checked before anything is changed, and the rows of the vault are one transaction, the last
  step. What was interrupted is begun again, and comes to its end.
* An installation that has nothing yet becomes the one that the vault is of: it takes its names, so that the ids that
  clients know stay right, and all who may log in. Nobody comes into another one by an old store.
* What the installation knows already stays as it is: the journal's is older.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from keepstone.catalogue import RECORDS, Database, facts, first, insert, principals, vaults, writers
from keepstone.catalogue.replay import State, read_state
from keepstone.catalogue.rows import values
from keepstone.control import points as made
from keepstone.control import policies, schedules
from keepstone.control.installation import Installation
from keepstone.control.items import PROTECTED
from keepstone.control.plane import Change, Place
from keepstone.control.writers import OTHERS
from keepstone.crypto import Kit
from keepstone.env import Env
from keepstone.errors import Conflict, CorruptObject, KeepstoneError, ObjectMissing, StoreMissing, UsageError
from keepstone.files import exists
from keepstone.objects import FolderStorage
from keepstone.store import Point, Store
from keepstone.vault import (
    Container,
    Group,
    Identity,
    Item,
    Lock,
    RecoveryPoint,
    Resource,
    RoleAssignment,
    StoredPolicy,
    Vault,
    folded,
)
from keepstone.vault.properties import SOFT_DELETE_DAYS

__all__ = ["Rebuilt", "rebuild"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """What came of it. `entry`: the number of the journal's last entry: what was changed after it is not in it.
    `warnings`: what is not as it was, for people."""

    vault: Vault
    place: Place
    entry: int
    items: int
    points: int
    warnings: tuple[str, ...]


def rebuild(installation: Installation, place: Path, kit: Kit) -> Rebuilt:
    """Make the vault anew whose store is in the folder `place`, while no service runs on this installation.

    The store moves to where the installation has its stores, and gets a new key and a new kit there. `StoreMissing`,
    `WrongKey`; `CorruptObject` and `ObjectMissing` where the journal is damaged; `Conflict` where the vault is known;
    `UsageError` where the store cannot come here.
    """
    env = installation.env
    _check_place(env, installation.root, place)
    store = Store.open_by_kit(env, FolderStorage(env, place), kit)
    state = _state(store)
    vault = _vault(state, store, env.utc())
    found, warnings = _points(state, store)
    if vault.purge is not None:
        warnings.append(
            f"the vault was deleted; take it back until {vault.purge:%Y-%m-%d %H:%M} UTC with "
            f"`az backup deleted-vault undelete`, or it is destroyed then"
        )
    with closing(installation.prepare()) as database:
        is_new = _check(database, vault)
        installation.stores.adopt(vault.id, f"vault {vault.path}", place, kit)
        if is_new:
            _name(database, state)
    plane = installation.plane()
    with closing(plane.database), plane.database.change() as connection:
        change = Change(connection, plane)  # whose notes go nowhere: the journal has them
        _write(change, vault, state, found)
        warnings += _people(connection, state) if is_new else _strangers(connection, state)
    return Rebuilt(
        vault=vault,
        place=plane.place,
        entry=state.entry,
        items=len(state.records[Item]),
        points=len(found),
        warnings=tuple(warnings),
    )


def _check_place(env: Env, root: Path, place: Path) -> None:
    """`UsageError` for the store of another installation: it would lose its vault."""
    owner = place.resolve().parent.parent
    if exists(env.fs, owner / "issuer.key") and owner != root.resolve():
        raise UsageError(
            f"{place} belongs to the service in {owner}; rebuild the vault there with --data {owner}, or, where that "
            "one is to lose it, move the folder away first"
        )


def _state(store: Store) -> State:
    try:
        return read_state(store.journal)
    except (CorruptObject, ObjectMissing) as error:
        raise type(error)(
            f"{error}. Without it there is no vault, but its points are there: `keepstone store restore --kit` "
            "restores them"
        ) from error


def _vault(state: State, store: Store, now: datetime) -> Vault:
    """The vault of the store. One that was deleted can be taken back for a while, whatever its time was."""
    mine = [one for one in state.records[Vault] if one.id.hex == store.descriptor.store]
    if not mine:
        raise StoreMissing(
            "the store has no journal of a vault: it is none of a service, and `keepstone store` works with it as it is"
        )
    vault: Vault = replace(mine[0], journal=state.entry)
    if vault.deleted is not None and vault.purge is not None:
        vault = replace(vault, purge=max(vault.purge, now + timedelta(days=SOFT_DELETE_DAYS.start)))
    return vault


def _points(state: State, store: Store) -> tuple[list[tuple[RecoveryPoint, Point]], list[str]]:
    """The points of items that the journal knows; and what is said of the others."""
    known = {item.id: item for item in state.records[Item]}
    found, strange = [], []
    damaged: list[tuple[str, KeepstoneError]] = []
    for point in store.points.list(damaged=damaged):
        identity = made.item_of(point.record)
        item = None if identity is None else known.get(identity)
        if item is None:
            strange.append(point)
        else:
            found.append((made.of_record(item, point.id, point.record), point))
    warnings = [f"the recovery point {commit} is damaged, and left out: {error}" for commit, error in damaged]
    if strange:
        names = sorted({point.record.item for point in strange})
        some = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        warnings.append(
            f"{len(strange)} recovery points are of items that the journal does not know ({some}): they were made "
            "without the service, or its last entries are lost. They stay in the store, where `keepstone store list` "
            "shows them"
        )
    return found, warnings


def _check(database: Database, vault: Vault) -> bool:
    """Whether the installation has nothing yet. `Conflict`, `UsageError` where the vault cannot come into it."""
    with database.look() as connection:
        if first(connection, Vault, vaults.c.id == vault.id) is not None:
            raise Conflict(f"the vault '{vault.name}' is known here already; there is nothing to rebuild")
        if first(connection, Vault) is None and first(connection, Group) is None:
            return True
        own = connection.execute(sa.select(facts.c.value).where(facts.c.name == "subscription")).scalar()
        if folded(own or "") != folded(vault.subscription):
            raise UsageError(
                f"this service has the subscription {own}, and the vault is of {vault.subscription}; rebuild it into "
                "another folder, with --data"
            )
        key = vaults.c.subscription == vault.subscription, vaults.c.group_key == folded(vault.group_name)
        named = vaults.c.key == folded(vault.name), vaults.c.deleted.is_(None)
        if vault.deleted is None and first(connection, Vault, *key, *named) is not None:
            raise Conflict(f"there is another vault '{vault.name}' in '{vault.group_name}'; delete that one first")
    return False


def _name(database: Database, state: State) -> None:
    """Call the installation what the one was called that the vault is of."""
    with database.change() as connection:
        connection.execute(facts.delete())
        connection.execute(facts.insert(), [{"name": name, "value": value} for name, value in state.facts.items()])


def _write(change: Change, vault: Vault, state: State, found: Sequence[tuple[RecoveryPoint, Point]]) -> None:
    """The rows of the vault, and of what stands around it where there is no such thing yet."""
    connection, records = change.connection, state.records
    for home in records[Group]:
        _add(connection, home)
    for one in (vault, *records[StoredPolicy], *records[Container]):
        insert(connection, one)
    connection.execute(writers.insert().values(vault=vault.id, machine=OTHERS))
    stored = {policy.id: policy for policy in records[StoredPolicy]}
    by_item: dict[UUID, list[tuple[RecoveryPoint, Point]]] = {}
    for row, point in found:
        by_item.setdefault(row.item, []).append((row, point))
    for item in records[Item]:
        insert(connection, _backed_up(item, by_item.get(item.id, [])))
        if item.state == PROTECTED and item.deleted is None and item.policy is not None:
            schedules.plan(change, item, policies.parsed(stored[item.policy]))
    for row, _ in found:
        insert(connection, row)
    for one in (*records[Resource], *records[Lock]):
        _add(connection, one)


def _backed_up(item: Item, found: Sequence[tuple[RecoveryPoint, Point]]) -> Item:
    """The item with what follows from its points. Of a backup that failed after the last one nothing is known."""
    if not found:
        return item
    ended = max(point.record.finished for _, point in found)
    return replace(
        item,
        newest=max(row.made for row, _ in found),
        backed_up=_EPOCH + timedelta(microseconds=ended // 1000),
        outcome="Completed",
    )


def _people(connection: sa.Connection, state: State) -> list[str]:
    """All who may log in, and their roles; what is said of those who cannot come."""
    warnings, gone = [], set()
    for who in state.records[Identity]:
        there = first(connection, Identity, principals.c.login == who.login)
        if there is None:
            insert(connection, who)
        elif there.id != who.id:
            gone.add(who.id)
            warnings.append(f"somebody else logs in as '{who.login}' here, so the one of the vault was left out")
    for given in state.records[RoleAssignment]:
        if given.principal not in gone:
            _add(connection, given)
    return warnings


def _strangers(connection: sa.Connection, state: State) -> list[str]:
    """What is said of roles that this installation does not know."""
    table = RECORDS[RoleAssignment]
    known = set(connection.execute(sa.select(table.c.id)).scalars())
    unknown = [given for given in state.records[RoleAssignment] if given.id not in known]
    if not unknown:
        return []
    return [
        f"{len(unknown)} role assignments of the vault are not known to this service, and were left out; give roles "
        "again to those who are to have them, with `az role assignment create`"
    ]


def _add(connection: sa.Connection, record: Any) -> None:
    """Write a record, unless there is one of its key."""
    table, row = RECORDS[type(record)], values(record)
    mine = [column == row[column.name] for column in table.primary_key]
    if connection.execute(sa.select(sa.literal(1)).select_from(table).where(*mine)).first() is None:
        insert(connection, record)
