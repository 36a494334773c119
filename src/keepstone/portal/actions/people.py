# SPDX-License-Identifier: Apache-2.0
"""People: their names and passwords, and the roles that they have."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID, uuid5

from keepstone.errors import InvalidRequest
from keepstone.portal.actions.action import Actions, Choice, Field, Plan
from keepstone.portal.actions.offered import Offer, offer
from keepstone.portal.api import Document, Reply, Request
from keepstone.portal.places import subscription
from keepstone.portal.rendering import at, link
from keepstone.portal.speech import _
from keepstone.portal.visit import Visit

__all__ = ["ASSIGNMENTS", "USERS", "actions", "offered", "principal_of", "role_of"]

actions = Actions()
_PROVIDER = "/providers/Keepstone.Identity"
USERS = f"{_PROVIDER}/users"
ASSIGNMENTS = "providers/Microsoft.Authorization/roleAssignments"
_SETTINGS = link("/settings")


def _own(visit: Visit) -> list[Field]:
    return [
        Field(name="current", label=_("Your password until now"), kind="password", required=True),
        Field(
            name="password", label=_("New password"), kind="password", required=True, help=_("12 characters or more")
        ),
        Field(name="again", label=_("The new one once more"), kind="password", required=True),
    ]


@actions(
    "own-password", "Change your password",
    "Ends your logins everywhere else; this browser stays logged in.", fields=_own,
)  # fmt: skip
def own_password(visit: Visit) -> Plan:
    """Another one, by who knows the one until now."""
    password = visit.text("password")
    if password != visit.text("again"):
        raise InvalidRequest(_("the new password was not typed twice the same"), target="again")
    return Plan(
        request=Request(
            "POST", f"{_PROVIDER}/ownPassword", {"currentPassword": visit.text("current"), "password": password}
        ),
        keepstone=[("user", "set-password")],
        then=_SETTINGS,
        notice=_("You have another password."),
        renews=True,
    )


def _roles(visit: Visit) -> list[Choice]:
    path = f"{subscription(visit)}/providers/Microsoft.Authorization/roleDefinitions"
    return [Choice(name, name) for name in (at(one, "properties.roleName") for one in visit.client.every(path))]


def _new(visit: Visit) -> list[Field]:
    return [
        Field(name="name", label=_("Name"), required=True, help=_("What they log in with")),
        Field(name="display", label=_("What people call them")),
        Field(name="role", label=_("Role"), kind="choice", choices=(Choice("", _("none yet")), *_roles(visit))),
        Field(name="scope", label=_("For"), kind="choice", choices=_scopes(visit), default="/"),
    ]


def _scopes(visit: Visit) -> list[Choice]:
    path = f"{subscription(visit)}/providers/Microsoft.RecoveryServices/vaults"
    vaults = [Choice(one["id"], _("vault %(vault)s", vault=one["name"])) for one in visit.client.every(path)]
    return [Choice("/", _("everything")), Choice(subscription(visit), _("all vaults")), *vaults]


@actions("create-user", "Make a user", "The service makes up a password, which is shown this once.", fields=_new)
def create_user(visit: Visit) -> Plan:
    """Somebody new."""
    name, display, role = (visit.text(key).strip() for key in ("name", "display", "role"))
    scope = visit.text("scope", "/")
    given = {"displayName": display} if display else {}
    shown: tuple[str, ...] = ("--display-name", display) if display else ()
    if role:
        given |= {"roleName": role, "roleScope": scope}
        shown += ("--role", role, "--scope", scope)
    return Plan(
        request=Request("PUT", f"{USERS}/{name or 'NAME'}", {"properties": given}),
        keepstone=[("user", "create", "-n", name or "NAME", *shown)],
        then=_SETTINGS,
        once=_password,
    )


@actions(
    "reset-password", "Reset the password",
    "The service makes up another one, which is shown this once. Logins at the portal end.",
)  # fmt: skip
def reset_password(visit: Visit) -> Plan:
    """Another one, that nobody chose."""
    path, login = _user(visit)
    return Plan(
        request=Request("POST", f"{path}/password", {}),
        keepstone=[("user", "reset-password", "-n", login)],
        then=_SETTINGS,
        once=_password,
    )


def _called(visit: Visit) -> list[Field]:
    path, login = _user(visit)
    called = at(visit.client.get(path), "properties.displayName", login)
    return [Field(name="display", label=_("What people call them"), default=called, required=True)]


@actions(
    "rename-user", "Rename", "Changes what people call them; the name that they log in with stays.", fields=_called
)
def rename_user(visit: Visit) -> Plan:
    """Another display name."""
    path, login = _user(visit)
    display = visit.text("display").strip() or at(visit.client.get(path), "properties.displayName", "")
    return Plan(
        request=Request("PUT", path, {"properties": {"displayName": display}}),
        keepstone=[("user", "update", "-n", login, "--display-name", display)],
        then=_SETTINGS,
        notice=_("They are called so from now on."),
    )


@actions("delete-user", "Delete the user", "Takes their roles too, and ends their logins.", destroys=True)
def delete_user(visit: Visit) -> Plan:
    """Gone. The last Owner stays."""
    path, login = _user(visit)
    roles = at(visit.client.get(path), "properties.roles", [])
    held = [(one["roleName"], _("at %(scope)s", scope=one["scope"])) for one in roles]
    return Plan(
        request=Request("DELETE", path),
        keepstone=[("user", "delete", "-n", login, "--yes")],
        radius=[(_("user"), login), *held, (_("can be taken back"), _("no"))],
        then=_SETTINGS,
        notice=_("%(login)s is deleted.", login=login),
    )


def _giving(visit: Visit) -> list[Field]:
    people = [Choice(at(one, "properties.principalId"), one["name"]) for one in visit.client.every(USERS)]
    return [
        Field(name="who", label=_("Who"), kind="choice", choices=people, required=True),
        Field(name="role", label=_("Role"), kind="choice", choices=_roles(visit), required=True),
    ]


@actions("give-role", "Give a role", "Holds for this and everything beneath it.", fields=_giving)
def give_role(visit: Visit) -> Plan:
    """A role at what `id` names."""
    scope = visit.needed("id")
    fields = {one.name: one for one in _giving(visit)}
    who, role = (visit.text(name) or _first(fields[name]) for name in ("who", "role"))
    if not who or not role:
        raise InvalidRequest(_("choose who gets which role"), target="who")
    found = visit.client.every(f"{subscription(visit)}/providers/Microsoft.Authorization/roleDefinitions")
    definition = next((one["id"] for one in found if at(one, "properties.roleName") == role), "")
    name = uuid5(UUID(int=0), f"{scope.casefold()}|{who}|{role}")
    properties = {"roleDefinitionId": definition, "principalId": who, "principalType": "User"}
    az = ("role", "assignment", "create", "--assignee-object-id", who, "--assignee-principal-type", "User")
    return Plan(
        request=Request("PUT", f"{scope}/{ASSIGNMENTS}/{name}", {"properties": properties}),
        az=[(*az, "--role", role, "--scope", scope)],
        then=link("/settings/vault", id=scope),
        notice=_("They have the role %(role)s.", role=role),
    )


@actions("take-role", "Take the role away", "From this scope alone.", destroys=True)
def take_role(visit: Visit) -> Plan:
    """An assignment goes. The last Owner's stays."""
    path = visit.needed("id")
    scope = path.partition(f"/{ASSIGNMENTS}")[0]
    found = visit.client.get(path)
    return Plan(
        request=Request("DELETE", path),
        az=[("role", "assignment", "delete", "--ids", path)],
        radius=[(_("role"), role_of(visit, found)), (_("of"), principal_of(visit, found)), (_("at"), scope or "/")],
        then=link("/settings/vault", id=scope) if "/vaults/" in scope else _SETTINGS,
        notice=_("The role is taken away."),
    )


def offered(visit: Visit, user: Document) -> list[Offer]:
    """What he may do with a user."""
    known = {one.name: one for one in actions}
    path = user["id"]
    found = offer(visit, known["reset-password"], Request("POST", f"{path}/password"), path)
    found += offer(visit, known["rename-user"], Request("PUT", path), path)
    return found + offer(visit, known["delete-user"], Request("DELETE", path), path)


def role_of(visit: Visit, assignment: Document) -> str:
    """The name of the role that it gives."""
    definition = at(assignment, "properties.roleDefinitionId", "")
    return str(at(visit.client.get(definition), "properties.roleName", definition))


def principal_of(visit: Visit, assignment: Document) -> str:
    """Who has it: a user by his name, where he may see users, and else an object id."""
    principal = str(at(assignment, "properties.principalId", ""))
    if not visit.client.allows(Request("GET", USERS)):
        return principal
    found = {at(one, "properties.principalId"): one["name"] for one in visit.client.every(USERS)}
    return str(found.get(principal, principal))


def _user(visit: Visit) -> tuple[str, str]:
    path = visit.needed("id")
    head, login = path.rpartition("/")[::2]
    if head != USERS or not login:
        raise InvalidRequest(_("%(path)s is no user", path=repr(path)), target="id")
    return path, login


def _password(reply: Reply) -> Sequence[tuple[str, str]]:
    return [(_("Name"), reply.body["name"]), (_("Password"), reply.body["properties"]["password"])]


def _first(field: Field) -> str:
    return field.choices[0].value if field.choices else ""
