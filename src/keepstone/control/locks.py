# SPDX-License-Identifier: Apache-2.0
"""Management locks: a scope that cannot be deleted, or not be changed at all, whoever asks."""

from __future__ import annotations

import sqlalchemy as sa

from keepstone.catalogue import locks
from keepstone.control.plane import Change
from keepstone.errors import Conflict, InvalidRequest, NotFound
from keepstone.vault import folded

__all__ = ["LEVELS", "beneath", "check_delete", "check_write", "find", "put", "remove"]

LEVELS = ("CanNotDelete", "ReadOnly")


def put(change: Change, scope: str, name: str, level: str, notes: str | None) -> sa.RowMapping:
    """Make or change a lock; its row."""
    known = {folded(one): one for one in LEVELS}
    if folded(level) not in known:
        raise InvalidRequest(
            f"properties.level is {level!r}; choose one of {', '.join(LEVELS)}", target="properties.level"
        )
    mine = locks.c.scope == folded(scope), locks.c.key == folded(name)
    change.connection.execute(locks.delete().where(*mine))
    row = {"scope": folded(scope), "key": folded(name), "name": name, "level": known[folded(level)], "notes": notes}
    return change.connection.execute(locks.insert().values(**row).returning(locks)).mappings().one()


def find(connection: sa.Connection, scope: str, name: str) -> sa.RowMapping:
    """`NotFound`."""
    mine = locks.c.scope == folded(scope), locks.c.key == folded(name)
    row = connection.execute(sa.select(locks).where(*mine)).mappings().first()
    if row is None:
        raise NotFound(f"There is no lock '{name}' at '{scope}'; `az lock list` shows those that there are")
    return row


def remove(change: Change, scope: str, name: str) -> None:
    """Remove a lock; nothing where there is none."""
    mine = locks.c.scope == folded(scope), locks.c.key == folded(name)
    change.connection.execute(locks.delete().where(*mine))


def beneath(connection: sa.Connection, scope: str) -> list[sa.RowMapping]:
    """The locks that hold at this scope or beneath it."""
    prefix = folded(scope).rstrip("/")
    mine = sa.or_(locks.c.scope == prefix, locks.c.scope.startswith(f"{prefix}/", autoescape=True))
    return list(connection.execute(sa.select(locks).where(mine).order_by(locks.c.scope, locks.c.key)).mappings())


def check_delete(connection: sa.Connection, scope: str) -> None:
    """`Conflict` where a lock above, at or beneath this scope forbids to delete it."""
    for row in [*_above(connection, scope), *beneath(connection, scope)]:
        raise Conflict(
            f"The scope '{scope}' cannot perform delete operation because following scope(s) are locked: "
            f"'{row['scope']}' ('{row['name']}', {row['level']}). Please remove the lock and try again."
        )


def check_write(connection: sa.Connection, scope: str) -> None:
    """`Conflict` where a ReadOnly lock at or above this scope forbids to change it."""
    for row in _above(connection, scope):
        if row["level"] == "ReadOnly":
            raise Conflict(
                f"The scope '{scope}' cannot perform write operation because following scope(s) are locked: "
                f"'{row['scope']}' ('{row['name']}', ReadOnly). Please remove the lock and try again."
            )


def _above(connection: sa.Connection, scope: str) -> list[sa.RowMapping]:
    """The locks at this scope and above it."""
    parts = folded(scope).strip("/").split("/")
    scopes = ["/" + "/".join(parts[:end]) for end in range(1, len(parts) + 1)]
    query = sa.select(locks).where(locks.c.scope.in_(scopes)).order_by(locks.c.scope, locks.c.key)
    return list(connection.execute(query).mappings())
