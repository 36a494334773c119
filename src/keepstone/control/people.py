# SPDX-License-Identifier: Apache-2.0
"""Who may log in, and which roles they have.

A role is given at a scope and holds for everything beneath. Somebody is always left who may do everything: the last
Owner of all does not go.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from uuid import UUID, uuid5

import sqlalchemy as sa

from keepstone.catalogue import assignments, every, first, principals
from keepstone.control import attempts, groups, locks
from keepstone.control.plane import Change, Plane
from keepstone.errors import (
    AlreadyExists,
    Conflict,
    GuardRefused,
    InvalidRequest,
    NotFound,
    Unauthenticated,
    Unauthorized,
    Unsupported,
)
from keepstone.identity import (
    BUILT_IN,
    Assignment,
    Principal,
    Role,
    hash_secret,
    is_allowed,
    is_beneath,
    is_secret,
)
from keepstone.identity.builtin import OWNER
from keepstone.vault import Identity, RoleAssignment, folded

__all__ = [
    "KIND_OF_USER",
    "add",
    "assign",
    "assignment",
    "assignments_of",
    "authorize",
    "check_owner",
    "check_principal",
    "enter",
    "listing",
    "log_in",
    "may",
    "owning",
    "permissions",
    "role",
    "types",
    "unassign",
]

KIND_OF_USER = "user"
SERVICE_PRINCIPAL, USER = "ServicePrincipal", "User"
_TYPES = {KIND_OF_USER: USER}  # everybody else is a service principal
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
    hashed = hash_secret(change.plane.env, secret) if secret is not None else None
    return enter(change, kind, login, name, hashed, expires)


def enter(
    change: Change, kind: str, login: str, name: str, hashed: str | None, expires: datetime | None = None
) -> Identity:
    """The same where the hash of the secret is there already: a slow hash keeps all writers waiting."""
    if first(change.connection, Identity, principals.c.login == folded(login)) is not None:
        raise AlreadyExists(f"there is somebody who logs in as {login!r}; choose another name")
    who = Identity(
        id=str(change.plane.new_id()),
        kind=kind,
        login=folded(login),
        name=name,
        created=change.now,
        secret=hashed,
        expires=expires,
    )
    change.insert(who)
    return who


def log_in(plane: Plane, login: str, secret: str) -> Principal:
    """Who proves this. `Unauthenticated`, which does not tell a wrong name from a wrong secret; and where users have
    tried too often."""
    with plane.look() as connection:
        who = first(connection, Identity, principals.c.login == folded(login))
    slow = who is None or who.kind == KIND_OF_USER
    if slow:
        attempts.begin(plane, login)
    stored = who.secret if who is not None and who.secret else _NOBODY
    if not is_secret(secret, stored) or who is None or (who.expires is not None and who.expires <= plane.env.utc()):
        raise Unauthenticated(_WRONG)
    if slow:
        with plane.database.change() as connection:
            attempts.pardon(connection, login)
    return Principal(who.id, who.login, "user" if who.kind == KIND_OF_USER else "app", who.name)


# A hash that no secret has: whoever names nobody waits as long as for a wrong secret.
_NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$AAAAAAAAAAAAAAAAAAAAAA$" + "A" * 43


def assign(
    change: Change,
    scope: str,
    principal: str,
    role_name: str,
    *,
    name: str = "",
    creator: str | None = None,
    description: str | None = None,
) -> tuple[RoleAssignment, bool]:
    """Give somebody a role; and whether he has it only now. The same again changes nothing but its description. `name`:
    a GUID. `description`: None leaves the one that there is.

    `NotFound` for a role or a group that is none, `InvalidRequest` for another role under a used name, `Conflict` where
    he has this role under another name, and under a ReadOnly lock.
    """
    known, who = role(role_name), _guid(principal, "principalId")
    scope = f"/{scope.strip('/')}"
    same = assignments.c.principal == who, assignments.c.role == known.id
    there = [one for one in every(change.connection, RoleAssignment, *same) if folded(one.scope) == folded(scope)]
    identity = _guid(name or str(uuid5(UUID(int=0), f"{folded(scope)}|{who}|{known.id}")), "name")
    if there and (not name or there[0].id == identity):
        return _described(change, there[0], description), False
    if there:
        error = Conflict(f"The role assignment already exists. The ID of the existing one is {there[0].id}.")
        error.code = "RoleAssignmentExists"  # which clients take for done
        raise error
    if assignment(change.connection, identity) is not None:
        raise InvalidRequest(
            f"role assignment {identity} gives another role already; choose another name",
            target="name",
            code="RoleAssignmentUpdateNotPermitted",
        )
    parts = scope.split("/")
    if len(parts) > 4:  # …/resourceGroups/<group>
        groups.find(change.connection, parts[2], parts[4])
    locks.check_write(change.connection, scope)
    made = RoleAssignment(
        id=identity,
        principal=who,
        role=known.id,
        scope=scope,
        created=change.now,
        creator=creator,
        description=description or None,
    )
    change.insert(made)
    return made, True


def _described(change: Change, given: RoleAssignment, description: str | None) -> RoleAssignment:
    if description is None or (description or None) == given.description:
        return given
    locks.check_write(change.connection, given.scope)
    changed = replace(given, description=description or None)
    change.save(changed)
    return changed


def unassign(change: Change, given: RoleAssignment) -> None:
    """Take a role away. `GuardRefused` for the last Owner of everything; `Conflict` under a lock."""
    locks.check_delete(change.connection, f"{given.scope}/providers/Microsoft.Authorization/roleAssignments/{given.id}")
    check_owner(change, given.id)
    change.remove(given)


def check_owner(change: Change, *going: str) -> None:
    """`GuardRefused` where without these role assignments there would be no Owner any more."""
    owners = set(owning(change))
    if owners and owners <= set(going):
        raise GuardRefused(
            "this is the last Owner of the subscription, and without one nobody could give roles any more; make "
            "somebody else an Owner first"
        )


def owning(change: Change) -> list[str]:
    """The role assignments that let somebody, whom there is, do everything. Nobody else changes them meanwhile."""
    top = ("/", f"/subscriptions/{folded(change.plane.place.subscription)}")
    somebody = assignments.c.principal.in_(sa.select(principals.c.id))
    query = sa.select(assignments.c.id, assignments.c.scope).where(assignments.c.role == OWNER.id, somebody)
    rows = change.connection.execute(query.order_by(assignments.c.id).with_for_update()).all()
    return [identity for identity, scope in rows if folded(scope) in top]


def assignment(connection: sa.Connection, identity: str, scope: str | None = None) -> RoleAssignment | None:
    """The role assignment of this name; with `scope`, only where it is one of that very scope: whoever may change the
    roles of a group cannot reach those of the subscription through it."""
    found = first(connection, RoleAssignment, assignments.c.id == folded(identity))
    if found is None or scope is None or folded(found.scope) == folded(scope):
        return found
    return None


def listing(
    connection: sa.Connection, scope: str, *, beneath: bool = True, principal: str | None = None
) -> list[RoleAssignment]:
    """The role assignments that hold at this scope, and those beneath it; of one principal, or of all."""
    whose = sa.true() if principal is None else assignments.c.principal == folded(principal)
    found = every(connection, RoleAssignment, whose, order=(assignments.c.created, assignments.c.id))
    return [one for one in found if is_beneath(scope, one.scope) or (beneath and is_beneath(one.scope, scope))]


def assignments_of(connection: sa.Connection, principal: str) -> list[Assignment]:
    """What somebody may do, and where."""
    found = every(connection, RoleAssignment, assignments.c.principal == principal)
    return [Assignment(one.principal, BUILT_IN[one.role], one.scope) for one in found if one.role in BUILT_IN]


def permissions(held: list[Assignment], scope: str) -> list[Role]:
    """The roles of these assignments that hold at this scope."""
    return [one.role for one in held if is_beneath(scope, one.scope)]


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


def types(connection: sa.Connection) -> dict[str, str]:
    """What Azure calls each of those who may log in, by their ids."""
    found = connection.execute(sa.select(principals.c.id, principals.c.kind)).all()
    return {identity: _TYPES.get(kind, SERVICE_PRINCIPAL) for identity, kind in found}


def check_principal(connection: sa.Connection, principal: str, said: str | None) -> None:
    """Whether `principal` can be given a role as the type that is said of it. Somebody whom nobody knows can, as a
    service principal: he may be the identity of a vault, or come later."""
    if said is not None and said not in (SERVICE_PRINCIPAL, USER):
        raise Unsupported(f"there are no principals of type {said!r} here; give the role to a {SERVICE_PRINCIPAL}")
    known = types(connection).get(_guid(principal, "principalId"))
    if known is None and said != SERVICE_PRINCIPAL:
        raise InvalidRequest(
            f"Principal {principal} does not exist in the directory. Check that you have the correct principal ID; for "
            f"one that is not known yet, set the principalType property to {SERVICE_PRINCIPAL}.",
            target="properties.principalId",
            code="PrincipalNotFound",
        )
    if None not in (known, said) and known != said:
        raise InvalidRequest(
            f"The PrincipalId '{principal}' has type '{known}', which is different from specified PrincipalType "
            f"'{said}'.",
            target="properties.principalType",
            code="UnmatchedPrincipalType",
        )


def _guid(value: str, what: str) -> str:
    """As ids are kept."""
    try:
        return str(UUID(value))
    except ValueError:
        raise InvalidRequest(f"{what} has to be a GUID, and {value!r} is none", target=what) from None
