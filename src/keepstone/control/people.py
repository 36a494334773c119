# SPDX-License-Identifier: Apache-2.0
"""Who may log in, and which roles they have."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from uuid import UUID, uuid5

import sqlalchemy as sa

from keepstone.catalogue import assignments, every, first, principals
from keepstone.control.plane import Change, Plane
from keepstone.errors import AlreadyExists, InvalidRequest, NotFound, Unauthenticated, Unauthorized
from keepstone.identity import BUILT_IN, Assignment, Principal, Role, hash_secret, is_allowed, is_secret, new_secret
from keepstone.vault import Identity, RoleAssignment, folded

__all__ = ["add", "assign", "assignment", "assignments_of", "authorize", "log_in", "may", "new_password", "role"]

_WRONG = "AADSTS7000215: Invalid client secret or name; check both, or make a new secret with `keepstone az-setup`"


def role(name: str) -> Role:
    """A built-in role by its GUID, or the resource id that ends with it, or its name."""
    wanted = folded(name.rstrip("/").rpartition("/")[2])
    for known in BUILT_IN.values():
        if wanted in (folded(known.id), folded(known.name)):
            return known
    raise NotFound(f"there is no role {name!r}; choose one of {', '.join(known.name for known in BUILT_IN.values())}")


def add(
    change: Change, kind: str, login: str, name: str, secret: str | None = None, expires: datetime | None = None
) -> Identity:
    """Somebody new. `AlreadyExists` where the login is taken. `secret` is kept as its hash."""
    plane = change.plane
    if first(change.connection, Identity, principals.c.login == folded(login)) is not None:
        raise AlreadyExists(f"there is somebody who logs in as {login!r}; choose another name")
    who = Identity(
        id=str(plane.new_id()),
        kind=kind,
        login=folded(login),
        name=name,
        created=change.now,
        secret=hash_secret(plane.env, secret) if secret is not None else None,
        expires=expires,
    )
    change.insert(who)
    return who


def new_password(change: Change, login: str) -> str:
    """Give somebody a new secret; the old one does not count any more."""
    who = first(change.connection, Identity, principals.c.login == folded(login))
    if who is None:
        raise NotFound(f"nobody logs in as {login!r}")
    secret = new_secret(change.plane.env)
    change.save(replace(who, secret=hash_secret(change.plane.env, secret), expires=None))
    return secret


def log_in(plane: Plane, login: str, secret: str) -> Principal:
    """Who proves this. `Unauthenticated`, which does not tell a wrong name from a wrong secret."""
    with plane.look() as connection:
        who = first(connection, Identity, principals.c.login == folded(login))
    stored = who.secret if who is not None and who.secret else _NOBODY
    if not is_secret(secret, stored) or who is None or (who.expires is not None and who.expires <= plane.env.utc()):
        raise Unauthenticated(_WRONG)
    return Principal(who.id, who.login, "user" if who.kind == "user" else "app", who.name)


# A hash that no secret has: whoever names nobody waits as long as for a wrong secret.
_NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$AAAAAAAAAAAAAAAAAAAAAA$" + "A" * 43


def assign(
    change: Change, scope: str, principal: str, role_name: str, *, name: str = "", creator: str | None = None
) -> RoleAssignment:
    """Give somebody a role. The same again changes nothing; another one under a used name is refused."""
    known = role(role_name)
    identity = name or str(uuid5(UUID(int=0), f"{folded(scope)}|{principal}|{known.id}"))
    there = first(change.connection, RoleAssignment, assignments.c.id == folded(identity))
    if there is not None:
        if (there.principal, there.role, folded(there.scope)) == (principal, known.id, folded(scope)):
            return there
        raise InvalidRequest(
            f"role assignment {identity} gives another role already; choose another name",
            target="name",
            code="RoleAssignmentUpdateNotPermitted",
        )
    made = RoleAssignment(
        id=folded(identity),
        principal=principal,
        role=known.id,
        scope=scope.rstrip("/") or "/",
        created=change.now,
        creator=creator,
    )
    change.insert(made)
    return made


def assignment(connection: sa.Connection, identity: str) -> RoleAssignment | None:
    """The role assignment of this name."""
    return first(connection, RoleAssignment, assignments.c.id == folded(identity))


def assignments_of(connection: sa.Connection, principal: str) -> list[Assignment]:
    """What somebody may do, and where."""
    found = every(connection, RoleAssignment, assignments.c.principal == principal)
    return [Assignment(one.principal, BUILT_IN[one.role], one.scope) for one in found if one.role in BUILT_IN]


def may(held: list[Assignment], principal: str, action: str, scope: str) -> bool:
    """Whether these assignments allow it."""
    return is_allowed(held, [principal], action, scope)


def authorize(held: list[Assignment], principal: Principal, action: str, scope: str) -> None:
    """`Unauthorized` where somebody may not do this to the resource at `scope`."""
    if not may(held, principal.id, action, scope):
        raise Unauthorized(
            f"The client '{principal.client}' with object id '{principal.id}' does not have authorization to perform "
            f"action '{action}' over scope '{scope}'. Ask an Owner there for a role that allows it."
        )
