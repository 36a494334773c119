# SPDX-License-Identifier: Apache-2.0
"""Management locks: a scope that cannot be deleted, or not be changed at all, whoever asks."""

from __future__ import annotations

import sqlalchemy as sa

from keepstone.catalogue import first, locks
from keepstone.control.naming import check_name
from keepstone.control.plane import Change
from keepstone.errors import Conflict, InvalidRequest, NotFound
from keepstone.vault import Lock, folded

__all__ = ["LEVELS", "above", "beneath", "check_delete", "check_write", "find", "put", "remove"]

LEVELS = ("CanNotDelete", "ReadOnly")
_NOTES = 512  # characters


def put(change: Change, scope: str, name: str, level: str, notes: str | None) -> tuple[sa.RowMapping, bool]:
    """Make or change a lock; its row, and whether it is new."""
    known = {folded(one): one for one in LEVELS}
    if folded(level) not in known:
        raise InvalidRequest(
            f"properties.level is {level!r}; choose one of {', '.join(LEVELS)}", target="properties.level"
        )
    if notes is not None and len(notes) > _NOTES:
        raise InvalidRequest(f"properties.notes has at most {_NOTES} characters", target="properties.notes")
    check_name(name)
    new = not remove(change, scope, name)
    change.insert(Lock(scope=folded(scope), name=name, level=known[folded(level)], notes=notes))
    return find(change.connection, scope, name), new


def find(connection: sa.Connection, scope: str, name: str) -> sa.RowMapping:
    """`NotFound`."""
    mine = locks.c.scope == folded(scope), locks.c.key == folded(name)
    row = connection.execute(sa.select(locks).where(*mine)).mappings().first()
    if row is None:
        raise NotFound(f"There is no lock '{name}' at '{scope}'; `az lock list` shows those that there are")
    return row


def remove(change: Change, scope: str, name: str) -> bool:
    """Remove a lock; whether there was one."""
    lock = first(change.connection, Lock, locks.c.scope == folded(scope), locks.c.key == folded(name))
    if lock is None:
        return False
    change.remove(lock)
    return True


def above(connection: sa.Connection, scope: str) -> list[sa.RowMapping]:
    """The locks that hold at this scope, and are there or above it."""
    parts = folded(scope).strip("/").split("/")
    scopes = ["/" + "/".join(parts[:end]) for end in range(1, len(parts) + 1)]
    query = sa.select(locks).where(locks.c.scope.in_(scopes)).order_by(locks.c.scope, locks.c.key)
    return list(connection.execute(query).mappings())


def beneath(connection: sa.Connection, scope: str) -> list[sa.RowMapping]:
    """The locks that hold at this scope or beneath it."""
    prefix = folded(scope).rstrip("/")
    mine = sa.or_(locks.c.scope == prefix, locks.c.scope.startswith(f"{prefix}/", autoescape=True))
    return list(connection.execute(sa.select(locks).where(mine).order_by(locks.c.scope, locks.c.key)).mappings())


def check_delete(connection: sa.Connection, scope: str) -> None:
    """`Conflict` where a lock above, at or beneath this scope forbids to delete it."""
    for row in [*above(connection, scope), *beneath(connection, scope)]:
        raise _locked(scope, "delete", row)


def check_write(connection: sa.Connection, scope: str) -> None:
    """`Conflict` where a ReadOnly lock at or above this scope forbids to change it."""
    for row in above(connection, scope):
        if row["level"] == "ReadOnly":
            raise _locked(scope, "write", row)


def _locked(scope: str, what: str, row: sa.RowMapping) -> Conflict:
    error = Conflict(
        f"The scope '{scope}' cannot perform {what} operation because following scope(s) are locked: "
        f"'{row['scope']}' ('{row['name']}', {row['level']}). Please remove the lock and try again."
    )
    error.code = "ScopeLocked"
    return error
