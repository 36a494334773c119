# SPDX-License-Identifier: Apache-2.0
"""Users and their passwords. Keepstone's own: in Azure they are Microsoft Entra ID's.

Users belong to the whole service, so these operations need a role at `/`. The actions are of Microsoft.Authorization,
because who may change a user may do whatever that user may: so Owners and User Access Administrators have them, and
Contributors have not.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from keepstone.arm.answers import moment, page
from keepstone.arm.table import Answer, Call, Table
from keepstone.control import people, users
from keepstone.errors import InvalidRequest, NotFound, Unauthenticated
from keepstone.identity import BUILT_IN
from keepstone.vault import Identity, folded

__all__ = ["table"]

table = Table()
_USERS = "/providers/Keepstone.Identity/users"
_USER = f"{_USERS}/{{user}}"
_READ, _WRITE, _DELETE = (f"Microsoft.Authorization/users/{right}" for right in ("read", "write", "delete"))


@table("GET", _USERS, "keepstone.users_list", action=_READ)
def listing(call: Call) -> Answer:
    """All of them."""
    with call.plane.look() as connection:
        return page([_document(connection, who) for who in users.listing(connection)])


@table("GET", _USER, "keepstone.users_get", action=_READ)
def get(call: Call) -> Answer:
    """`NotFound`."""
    with call.plane.look() as connection:
        return Answer(body=_document(connection, users.find(connection, call.names["user"])))


@table("PUT", _USER, "keepstone.users_put", action=_WRITE)
def put(call: Call) -> Answer:
    """201 for a new one, with the password where the service made it up: it is shown this once. Of one that there is,
    what people call it may be changed."""
    properties = call.part("properties")
    title, password, role, scope = (
        _text(properties, key) for key in ("displayName", "password", "roleName", "roleScope")
    )
    with call.plane.change() as change:
        try:
            there = users.find(change.connection, call.names["user"])
        except NotFound:
            there = None
        if there is not None:
            for key, value in (("password", password), ("roleName", role), ("roleScope", scope)):
                if value is not None:
                    raise InvalidRequest(
                        f"'{there.name}' is there already; a password is set with `keepstone user set-password`, and a "
                        "role given with `az role assignment create`",
                        target=f"properties.{key}",
                    )
            who = users.rename(change, there, title or "")
            return Answer(body=_document(change.connection, who))
    if scope is not None:
        _check(scope, call.plane.place.subscription)
    assert call.who is not None
    who, made = users.create(
        call.plane, call.names["user"], title, password, role=role, scope=scope or "/", creator=call.who.id
    )
    with call.plane.look() as connection:
        return Answer(status=201, body=_document(connection, who, made))


@table("DELETE", _USER, "keepstone.users_delete", action=_DELETE)
def delete(call: Call) -> Answer:
    """204 where there is none."""
    with call.plane.change() as change:
        try:
            who = users.find(change.connection, call.names["user"])
        except NotFound:
            return Answer(status=204)
        users.delete(change, who)
    return Answer()


@table("POST", f"{_USER}/password", "keepstone.users_set_password", action=_WRITE)
def set_password(call: Call) -> Answer:
    """The password that was sent; or one that the service makes up, which is shown this once."""
    name = call.names["user"]
    made = users.set_password(call.plane, name, _text(call.document() if call.body is not None else {}, "password"))
    with call.plane.look() as connection:
        return Answer(body=_document(connection, users.find(connection, name), made))


@table("POST", "/providers/Keepstone.Identity/ownPassword", "keepstone.users_set_own_password", action=_WRITE,
       filtered=True)  # fmt: skip
def set_own_password(call: Call) -> Answer:
    """Of whoever asks, whatever he may do otherwise, if he knows the password until now."""
    sent = call.document()
    password, current = (_text(sent, key) for key in ("password", "currentPassword"))
    if password is None or current is None:
        missing = "password" if password is None else "currentPassword"
        raise InvalidRequest(f"{missing} is missing", target=missing)
    assert call.who is not None
    name = call.who.client
    try:
        people.log_in(call.plane, name, current)
    except Unauthenticated as error:  # for who asks is known
        raise InvalidRequest(f"the password until now is not right: {error}", target="currentPassword") from error
    users.set_password(call.plane, name, password)
    with call.plane.look() as connection:
        return Answer(body=_document(connection, users.find(connection, name)))


def _text(sent: dict[str, Any], key: str) -> str | None:
    """`InvalidRequest` for anything but a text, and for an empty one."""
    value = sent.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        raise InvalidRequest(f"{key} has to be a text", target=f"properties.{key}")
    return value


def _check(scope: str, subscription: str) -> None:
    """`InvalidRequest` for a scope that no resource of this service can have."""
    own = f"/subscriptions/{folded(subscription)}"
    if scope != "/" and not f"{folded(scope)}/".startswith(f"{own}/"):
        raise InvalidRequest(
            f"{scope!r} is no resource of this service; they begin with {own}, and / is everything",
            target="properties.roleScope",
        )


def _document(connection: sa.Connection, who: Identity, password: str | None = None) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "displayName": who.name,
        "principalId": who.id,
        "createdTime": moment(who.created),
        "passwordChangedTime": moment(who.changed),
        "roles": [
            {"roleName": BUILT_IN[given.role].name if given.role in BUILT_IN else given.role, "scope": given.scope}
            for given in users.roles(connection, who)
        ],
    }
    if password is not None:
        properties["password"] = password
    return {
        "id": f"{_USERS}/{who.login}",
        "name": who.login,
        "type": "Keepstone.Identity/users",
        "properties": properties,
    }
