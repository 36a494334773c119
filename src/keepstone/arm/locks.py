# SPDX-License-Identifier: Apache-2.0
"""Management locks. Source: Microsoft.Authorization, locks 2020-05-01."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from keepstone.arm.answers import page
from keepstone.arm.authorization import AUTHORIZATION, RESOURCE, everywhere, scope_of
from keepstone.arm.cloud import known_subscription
from keepstone.arm.table import GROUP, SUBSCRIPTION, Answer, Call, Table
from keepstone.control import groups, locks, resources
from keepstone.errors import InvalidFilter, InvalidRequest
from keepstone.vault import folded

__all__ = ["table"]

table = Table()
_SCOPES = (SUBSCRIPTION, GROUP, RESOURCE)
_LOCKS = "Microsoft.Authorization/locks"


@everywhere(table, "GET", "locks", "management_locks.list_for_{}", _SCOPES, action=f"{_LOCKS}/read",
            az=("lock list",))  # fmt: skip
def listing(call: Call) -> Answer:
    """Those that hold at the scope, and those beneath it; `$filter=atScope()` leaves those beneath out."""
    scope, wanted = scope_of(call), next((v for k, v in call.query.items() if folded(k) == "$filter"), "")
    if wanted and folded(wanted.strip()) != "atscope()":
        raise InvalidFilter(f"$filter is {wanted!r}; of locks it can only be atScope()")
    with call.plane.look() as connection:
        found = locks.above(connection, scope)
        if not wanted:
            found += [row for row in locks.beneath(connection, scope) if row["scope"] != folded(scope)]
        spelled = resources.spelled(connection, known_subscription(call))
    return page([_document(spelled.get(row["scope"], row["scope"]), row) for row in found])


@everywhere(table, "GET", "locks/{lock}", "management_locks.get_at_{}_level", _SCOPES, action=f"{_LOCKS}/read",
            az=("lock show",))  # fmt: skip
def get(call: Call) -> Answer:
    """`NotFound`."""
    scope = scope_of(call)
    with call.plane.look() as connection:
        return Answer(body=_document(scope, locks.find(connection, scope, call.names["lock"])))


@everywhere(table, "PUT", "locks/{lock}", "management_locks.create_or_update_at_{}_level", _SCOPES,
            action=f"{_LOCKS}/write", az=("lock create", "lock update"))  # fmt: skip
def put(call: Call) -> Answer:
    """201 for a new one."""
    scope, name, properties = scope_of(call), call.names["lock"], call.part("properties")
    level, notes = properties.get("level"), properties.get("notes")
    if not isinstance(level, str):
        raise InvalidRequest("properties.level is missing; it is CanNotDelete or ReadOnly", target="properties.level")
    if notes is not None and not isinstance(notes, str):
        raise InvalidRequest("properties.notes has to be a text", target="properties.notes")
    with call.plane.change() as change:
        if "group" in call.names:
            groups.find(change.connection, call.names["subscription"], call.names["group"])
        spelled = resources.spelled(change.connection, known_subscription(call))
        if folded(scope) not in spelled:
            resources.find(change.connection, scope)  # which says that it is not there
        row, new = locks.put(change, scope, name, level, notes)
    return Answer(status=201 if new else 200, body=_document(spelled[folded(scope)], row))


@everywhere(table, "DELETE", "locks/{lock}", "management_locks.delete_at_{}_level", _SCOPES,
            action=f"{_LOCKS}/delete", az=("lock delete",))  # fmt: skip
def delete(call: Call) -> Answer:
    """204 where there is none."""
    with call.plane.change() as change:
        return Answer(status=200 if locks.remove(change, scope_of(call), call.names["lock"]) else 204)


def _document(scope: str, row: sa.RowMapping) -> dict[str, Any]:
    return {
        "id": f"{scope}{AUTHORIZATION}/locks/{row['name']}",
        "name": row["name"],
        "type": _LOCKS,
        "properties": {"level": row["level"], "notes": row["notes"]},
    }
