# SPDX-License-Identifier: Apache-2.0
"""Roles and who has them. Source: Microsoft.Authorization, roleDefinitions, roleAssignments and permissions
2022-04-01.

Each of these hangs beneath a scope: everything, the subscription, a group, or a resource. What is asked about a scope
is true of what is above it as well, since a role holds for everything beneath.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from keepstone.arm.answers import moment, page
from keepstone.arm.cloud import known_subscription
from keepstone.arm.filters import filter_of
from keepstone.arm.table import GROUP, SUBSCRIPTION, Answer, Call, Table
from keepstone.control import people
from keepstone.errors import InvalidFilter, InvalidRequest, NotFound, Unsupported
from keepstone.identity import BUILT_IN, Role
from keepstone.vault import RoleAssignment, folded

__all__ = ["AUTHORIZATION", "RESOURCE", "everywhere", "scope_of", "table"]

table = Table()
AUTHORIZATION = "/providers/Microsoft.Authorization"
RESOURCE = f"{GROUP}/providers/{{namespace}}/{{type}}/{{name}}"
# What can have roles and locks, and what the SDK's methods call each.
_SCOPES = {"": "scope", SUBSCRIPTION: "subscription", GROUP: "resource_group", RESOURCE: "resource"}
_ASSIGNMENTS = "Microsoft.Authorization/roleAssignments"
_DEFINITIONS = "Microsoft.Authorization/roleDefinitions"
_TERM = re.compile(r"(atscope)\(\)|(assignedto)\('([^']*)'\)|(principalid)\s+eq\s+'([^']*)'", re.IGNORECASE)
_LONGEST = 1024  # characters of a description
_REFUSED = ("condition", "conditionVersion", "delegatedManagedIdentityResourceId")

Run = Callable[[Call], Answer]


def everywhere(
    operations: Table, verb: str, rest: str, name: str, scopes: Iterable[str] = tuple(_SCOPES), **about: Any
) -> Callable[[Run], Run]:
    """Says that the function below answers this at every scope. `name`: the SDK's, with `{}` for the scope's."""

    def register(run: Run) -> Run:
        for scope in scopes:
            operations(verb, f"{scope}{AUTHORIZATION}/{rest}", name.format(_SCOPES[scope]), **about)(run)
        return run

    return register


def scope_of(call: Call) -> str:
    """The path of the scope that the request is about, spelled as ids are."""
    names = call.names
    if "subscription" not in names:
        return "/"
    scope = f"/subscriptions/{known_subscription(call)}"
    if "group" in names:
        scope += f"/resourceGroups/{names['group']}"
    if "name" in names:
        scope += f"/providers/{names['namespace']}/{names['type']}/{names['name']}"
    return scope


@everywhere(table, "GET", "roleDefinitions", "role_definitions.list", action=f"{_DEFINITIONS}/read", filtered=True,
            az=("role definition list",))  # fmt: skip
def definitions(call: Call) -> Answer:
    """The built-in roles: no secret to anybody who may log in."""
    wanted = {key: folded(value) for key, value in filter_of(call, ("roleName", "type")).items()}
    shown = [_definition(call, role) for role in BUILT_IN.values()]
    return page([one for one in shown if all(folded(one["properties"][key]) == value for key, value in wanted.items())])


@everywhere(table, "GET", "roleDefinitions/{definition}", "role_definitions.get", action=f"{_DEFINITIONS}/read",
            filtered=True, az=("role definition show",))  # fmt: skip
def definition(call: Call) -> Answer:
    """`NotFound`."""
    role = BUILT_IN.get(folded(call.names["definition"]))
    if role is None:
        error = NotFound(f"The specified role definition with ID '{call.names['definition']}' does not exist.")
        error.code = "RoleDefinitionDoesNotExist"
        raise error
    return Answer(body=_definition(call, role))


@everywhere(table, "GET", "permissions", "permissions.list_for_{}", action="Microsoft.Authorization/permissions/read",
            filtered=True)  # fmt: skip
def permissions(call: Call) -> Answer:
    """What the client himself may do."""
    return page([_permission(role) for role in people.permissions(call.held, scope_of(call))])


@everywhere(table, "GET", "roleAssignments", "role_assignments.list_for_{}", action=f"{_ASSIGNMENTS}/read",
            az=("role assignment list",))  # fmt: skip
def assignments(call: Call) -> Answer:
    """Those at the scope, above and beneath it; the filter can leave those beneath out, or choose one principal."""
    wanted = _assignments_filter(next((v for k, v in call.query.items() if folded(k) == "$filter"), ""))
    principal = wanted.get("principalid") or wanted.get("assignedto")  # there are no groups that somebody is in
    with call.plane.look() as connection:
        found = people.listing(connection, scope_of(call), beneath="atscope" not in wanted, principal=principal)
        types = people.types(connection)
    return page([_assignment(call, one, types) for one in found])


@everywhere(table, "GET", "roleAssignments/{assignment}", "role_assignments.get", action=f"{_ASSIGNMENTS}/read")
def assignment(call: Call) -> Answer:
    """`NotFound`."""
    with call.plane.look() as connection:
        found = people.assignment(connection, call.names["assignment"], scope_of(call))
        types = people.types(connection)
    if found is None:
        error = NotFound(f"The role assignment '{call.names['assignment']}' is not found at '{scope_of(call)}'.")
        error.code = "RoleAssignmentNotFound"
        raise error
    return Answer(body=_assignment(call, found, types))


@everywhere(table, "PUT", "roleAssignments/{assignment}", "role_assignments.create", action=f"{_ASSIGNMENTS}/write",
            az=("role assignment create", "role assignment update"))  # fmt: skip
def assign(call: Call) -> Answer:
    """201 for a new one."""
    scope, properties = scope_of(call), call.part("properties")
    role, principal, kind, description = (
        _text(properties, key) for key in ("roleDefinitionId", "principalId", "principalType", "description")
    )
    if role is None or principal is None:
        missing = "roleDefinitionId" if role is None else "principalId"
        raise InvalidRequest(f"properties.{missing} is missing", target=f"properties.{missing}")
    if len(description or "") > _LONGEST:
        raise InvalidRequest(
            f"properties.description has {len(description or '')} characters, and {_LONGEST} are the most",
            target="properties.description",
        )
    for key in _REFUSED:
        if properties.get(key):
            raise Unsupported(
                f"properties.{key} is not part of this version; a role is given without it, or not at all"
            )
    assert call.who is not None
    with call.plane.change() as change:
        people.check_principal(change.connection, principal, kind)
        made, new = people.assign(
            change,
            scope,
            principal,
            role,
            name=call.names["assignment"],
            creator=call.who.id,
            description=description or "",
        )
        types = people.types(change.connection)
    return Answer(status=201 if new else 200, body=_assignment(call, made, types))


@everywhere(table, "DELETE", "roleAssignments/{assignment}", "role_assignments.delete",
            action=f"{_ASSIGNMENTS}/delete", az=("role assignment delete",))  # fmt: skip
def unassign(call: Call) -> Answer:
    """What it was; 204 where there is none."""
    with call.plane.change() as change:
        found = people.assignment(change.connection, call.names["assignment"], scope_of(call))
        if found is None:
            return Answer(status=204)
        types = people.types(change.connection)
        people.unassign(change, found)
    return Answer(body=_assignment(call, found, types))


def _text(properties: dict[str, Any], key: str) -> str | None:
    value = properties.get(key)
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"properties.{key} has to be a text", target=f"properties.{key}")
    return value or None


def _assignments_filter(text: str) -> dict[str, str]:
    """The terms of a filter, folded, with their values."""
    found: dict[str, str] = {}
    for part in re.split(r"\s+and\s+", text.strip(), flags=re.IGNORECASE) if text.strip() else ():
        term = _TERM.fullmatch(part.strip())
        if term is None:
            raise InvalidFilter(
                f"$filter is not understood at {part[:40]!r}; write atScope(), assignedTo('…') or principalId eq '…'"
            )
        at_scope, assigned_to, whom, principal_id, which = term.groups()
        found[folded(at_scope or assigned_to or principal_id)] = whom or which or ""
    return found


def _definition_id(call: Call, role: str) -> str:
    return f"/subscriptions/{call.plane.place.subscription}{AUTHORIZATION}/roleDefinitions/{role}"


def _permission(role: Role) -> dict[str, Any]:
    return {
        "actions": list(role.actions),
        "notActions": list(role.not_actions),
        "dataActions": [],
        "notDataActions": [],
    }


def _definition(call: Call, role: Role) -> dict[str, Any]:
    return {
        "id": _definition_id(call, role.id),
        "name": role.id,
        "type": _DEFINITIONS,
        "properties": {
            "roleName": role.name,
            "type": "BuiltInRole",
            "description": role.description,
            "assignableScopes": ["/"],
            "permissions": [_permission(role)],
            "createdOn": None,
            "updatedOn": None,
            "createdBy": None,
            "updatedBy": None,
        },
    }


def _assignment(call: Call, given: RoleAssignment, types: dict[str, str]) -> dict[str, Any]:
    made = moment(given.created)
    return {
        "id": f"{given.scope.rstrip('/')}{AUTHORIZATION}/roleAssignments/{given.id}",
        "name": given.id,
        "type": _ASSIGNMENTS,
        "properties": {
            "roleDefinitionId": _definition_id(call, given.role),
            "principalId": given.principal,
            "principalType": types.get(given.principal, people.SERVICE_PRINCIPAL),
            "scope": given.scope,
            "condition": None,
            "conditionVersion": None,
            "createdOn": made,
            "updatedOn": made,
            "createdBy": given.creator,
            "updatedBy": given.creator,
            "delegatedManagedIdentityResourceId": None,
            "description": given.description,
        },
    }
