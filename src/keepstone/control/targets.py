# SPDX-License-Identifier: Apache-2.0
"""Whom to tell of a vault's alerts.

An address often holds a secret: a password, a token. It is kept sealed under a key of the installation (`secrets.key`,
a file that only its owner may read), for its vault and its target alone; whoever has the database has nothing of it,
and nobody is shown more of it than the service and the host that it names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from keepstone.catalogue import notices, targets
from keepstone.control import locks
from keepstone.control.plane import Change, Plane
from keepstone.crypto import Blake3Hashing, DomainKeys, open_object, seal_object
from keepstone.env import Env
from keepstone.errors import CorruptObject, InvalidRequest, NotFound
from keepstone.files import read_file
from keepstone.vault import Vault, folded

__all__ = ["KEY", "Target", "address", "everybody", "find", "listing", "new_key", "put", "remove", "waiting"]

KEY = "secrets.key"
"""The file in the installation's folder."""
_HASHING, _KIND = Blake3Hashing(), "target"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Fields mean what the columns of the same name mean (`catalogue/tables/alerts.py`)."""

    id: UUID
    vault: UUID
    name: str
    sealed: bytes = field(repr=False)
    shown: str
    created: datetime
    due: datetime
    failures: int = 0
    error: str | None = None
    failed: datetime | None = None
    delivered: datetime | None = None


def new_key(env: Env) -> bytes:
    """What to write into `KEY`."""
    return env.random(DomainKeys.SIZE)


def find(connection: sa.Connection, vault: Vault, name: str) -> Target:
    """`NotFound`."""
    found = _lookup(connection, vault, name)
    if found is None:
        raise NotFound(
            f"There is no notification target '{name}' in vault '{vault.name}'; `keepstone alert target list` shows "
            "those that there are"
        )
    return found


def listing(connection: sa.Connection, vault: Vault) -> list[Target]:
    """The targets of a vault by name."""
    query = sa.select(*_columns()).where(targets.c.vault == vault.id).order_by(targets.c.key)
    return [Target(**row) for row in connection.execute(query).mappings()]


def waiting(connection: sa.Connection, of: Sequence[UUID]) -> dict[UUID, int]:
    """How many notices these targets were not sent yet."""
    query = sa.select(notices.c.target, sa.func.count()).where(notices.c.target.in_(of)).group_by(notices.c.target)
    return dict(connection.execute(query).all())


def put(change: Change, vault: Vault, name: str, given: str, shown: str) -> tuple[Target, bool]:
    """A target with this address, or another address for the one that there is; and whether it is new. What it was not
    sent yet goes to the new address. `shown`: what `courier.shown` says of it, which takes too long for a transaction.
    `InvalidRequest`, `Conflict` under a lock."""
    locks.check_write(change.connection, vault.path)
    if not 1 <= len(name) <= 80 or not name.isascii() or not all(one.isalnum() or one in "-_." for one in name):
        raise InvalidRequest(
            f"'{name}' is no name for a target; take 1 to 80 letters, digits, hyphens, underscores and points",
            target="name",
            code="InvalidResourceName",
        )
    there = _lookup(change.connection, vault, name)
    identity = there.id if there is not None else change.plane.new_id()
    sealed = seal_object(
        _keys(change.plane), _HASHING, _KIND, identity.hex, vault.id.bytes, given.encode(), change.plane.env.random(32)
    )
    if there is None:
        made = Target(
            id=identity, vault=vault.id, name=name, sealed=sealed, shown=shown, created=change.now, due=change.now
        )
        row = {one: getattr(made, one) for one in Target.__slots__} | {"key": folded(name)}
        change.connection.execute(targets.insert().values(**row))
        return made, True
    fresh: dict[str, Any] = {
        "sealed": sealed,
        "shown": shown,
        "failures": 0,
        "error": None,
        "failed": None,
        "due": change.now,
    }
    change.connection.execute(targets.update().where(targets.c.id == identity).values(**fresh))
    return replace(there, **fresh), False


def remove(change: Change, vault: Vault, name: str) -> bool:
    """Tell it nothing more; whether there was one. `Conflict` under a lock."""
    there = _lookup(change.connection, vault, name)
    if there is None:
        return False
    locks.check_delete(change.connection, f"{vault.path}/notificationTargets/{there.name}")
    change.connection.execute(notices.delete().where(notices.c.target == there.id))
    change.connection.execute(targets.delete().where(targets.c.id == there.id))
    return True


def address(plane: Plane, target: Target) -> str:
    """Where it is. `CorruptObject` where the key is not the one that it was sealed by."""
    try:
        data = open_object(_keys(plane), _HASHING, _KIND, target.id.hex, target.vault.bytes, target.sealed)
    except (CorruptObject, ValueError, OSError) as error:
        raise CorruptObject(
            f"the address of target '{target.name}' does not open: {plane.root / KEY} is lost, or is not the one that "
            "it was sealed by; put that back, or give the address again with `keepstone alert target add`"
        ) from error
    return data.decode()


def everybody(plane: Plane, connection: sa.Connection) -> list[UUID]:
    """The targets of all vaults, each address once: whom to tell of what concerns the service itself."""
    found: dict[str, UUID] = {}
    for row in connection.execute(sa.select(*_columns()).order_by(targets.c.created, targets.c.id)).mappings():
        target = Target(**row)
        try:
            found.setdefault(address(plane, target), target.id)
        except CorruptObject:
            found[target.id.hex] = target.id  # people see at the target why it cannot be told
    return list(found.values())


def _keys(plane: Plane) -> DomainKeys:
    return DomainKeys.from_bytes(1, read_file(plane.env.fs, plane.root / KEY))


def _lookup(connection: sa.Connection, vault: Vault, name: str) -> Target | None:
    mine = targets.c.vault == vault.id, targets.c.key == folded(name)
    row = connection.execute(sa.select(*_columns()).where(*mine)).mappings().first()
    return None if row is None else Target(**row)


def _columns() -> list[sa.Column[object]]:
    return [targets.c[name] for name in Target.__slots__]
