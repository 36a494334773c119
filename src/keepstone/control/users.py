# SPDX-License-Identifier: Apache-2.0
"""People who log in with a name and a password. Azure has them in a directory beside its subscriptions; here they are
the service's own.

Whoever may change a user can become that user: so that needs a role on everything, which no role at a subscription, a
group or a vault is. Who may read the data folder needs none.
"""

from __future__ import annotations

import re
from dataclasses import replace

import sqlalchemy as sa

from keepstone.catalogue import assignments, every, first, principals
from keepstone.control import attempts, logins, people
from keepstone.control.plane import Change, Plane
from keepstone.errors import InvalidRequest, NotFound
from keepstone.identity import hash_secret, new_secret
from keepstone.vault import Identity, RoleAssignment, folded

__all__ = ["create", "delete", "find", "listing", "rename", "roles", "set_password"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
_RESERVED = ("local",)  # whoever may read the data folder: nobody logs in as it
_SHORTEST, _LONGEST = 12, 256  # characters of a password


def find(connection: sa.Connection, name: str) -> Identity:
    """`NotFound`."""
    mine = principals.c.login == folded(name), principals.c.kind == people.KIND_OF_USER
    who = first(connection, Identity, *mine)
    if who is None:
        raise NotFound(f"there is no user '{name}'; `keepstone user list` shows those that there are")
    return who


def listing(connection: sa.Connection) -> list[Identity]:
    """All of them, by name."""
    return every(connection, Identity, principals.c.kind == people.KIND_OF_USER, order=principals.c.login)


def roles(connection: sa.Connection, who: Identity) -> list[RoleAssignment]:
    """What somebody has been given, where."""
    order = (assignments.c.scope, assignments.c.created, assignments.c.id)
    return every(connection, RoleAssignment, assignments.c.principal == who.id, order=order)


def create(
    plane: Plane,
    name: str,
    title: str | None,
    password: str | None,
    *,
    role: str | None = None,
    scope: str = "/",
    creator: str | None = None,
) -> tuple[Identity, str | None]:
    """Somebody new, with a role where one is named; and the password, where it was made up here. `InvalidRequest`;
    `AlreadyExists`; `NotFound` for a role that is none."""
    login = folded(name)
    if not _NAME.fullmatch(login) or login in _RESERVED:
        raise InvalidRequest(
            f"'{name}' is no name for a user; take up to 64 letters, digits and . _ @ -, beginning with a letter or a "
            f"digit, and not '{_RESERVED[0]}'",
            target="name",
        )
    made, hashed = _secret(plane, password)
    with plane.change() as change:
        who = people.enter(change, people.KIND_OF_USER, login, _title(title) or name, hashed)
        if role is not None:
            people.assign(change, scope, who.id, role, creator=creator)
    return who, made


def rename(change: Change, who: Identity, title: str) -> Identity:
    """What people call somebody. `InvalidRequest`."""
    changed = replace(who, name=_title(title) or who.name)
    if changed != who:
        change.save(changed)
    return changed


def set_password(plane: Plane, name: str, password: str | None = None) -> str | None:
    """Another password; what it is, where it was made up here. At the portal he is logged out; tokens count until they
    are over. `NotFound`, `InvalidRequest`."""
    with plane.look() as connection:
        find(connection, name)  # before a slow hash
    made, hashed = _secret(plane, password)
    with plane.change() as change:
        who = find(change.connection, name)
        change.save(replace(who, secret=hashed, expires=None, changed=change.now))
        logins.end_all(change.connection, who.id)
        attempts.pardon(change.connection, name)
    return made


def delete(change: Change, who: Identity) -> None:
    """Remove somebody, and what he was given. `GuardRefused` for the last Owner."""
    given = roles(change.connection, who)
    people.check_owner(change, *(one.id for one in given))
    for role in given:
        change.remove(role)
    change.remove(who)


def _secret(plane: Plane, password: str | None) -> tuple[str | None, str]:
    """A password that was made up, None where there is one; and the hash."""
    if password is None:
        made = new_secret(plane.env)
        return made, hash_secret(plane.env, made)
    if not _SHORTEST <= len(password) <= _LONGEST or not password.isprintable():
        raise InvalidRequest(
            f"a password has {_SHORTEST} to {_LONGEST} characters that can be printed; choose another one, or let the "
            "service make one up",
            target="properties.password",
        )
    return None, hash_secret(plane.env, password)


def _title(given: str | None) -> str:
    title = (given or "").strip()
    if len(title) > 255 or (title and not title.isprintable()):
        raise InvalidRequest("a display name has up to 255 characters", target="properties.displayName")
    return title
