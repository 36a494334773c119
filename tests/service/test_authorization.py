# SPDX-License-Identifier: Apache-2.0
"""Roles, who has them, and locks: what Microsoft.Authorization answers, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from keepstone.arm.operations import OPERATIONS
from keepstone.catalogue import RECORDS, every
from keepstone.control import people, vaults
from keepstone.control.plane import Plane
from keepstone.errors import GuardRefused
from keepstone.identity import BUILT_IN, Principal
from keepstone.vault import RoleAssignment, Vault

from .client import Client

pytestmark = pytest.mark.service

ROLES = "providers/Microsoft.Authorization/roleDefinitions"
ASSIGNMENTS = "providers/Microsoft.Authorization/roleAssignments"
LOCKS = "providers/Microsoft.Authorization/locks"
READER, OWNER = "acdd72a7-3385-48ef-bd42-f606fba81ae7", "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"

People = Callable[..., Principal]
Clients = Callable[[Principal | None], Client]


def given(principal: str, role: str = READER, **more: Any) -> dict[str, Any]:
    """What `az role assignment create --assignee-object-id … --assignee-principal-type ServicePrincipal` sends."""
    return {
        "properties": {
            "roleDefinitionId": f"/subscriptions/any/{ROLES}/{role}",
            "principalId": principal,
            "principalType": "ServicePrincipal",
            **more,
        }
    }


def give(client: Client, scope: str, principal: str, role: str = READER) -> dict[str, Any]:
    answer: dict[str, Any] = client.arm("PUT", f"{scope}/{ASSIGNMENTS}/{uuid4()}", given(principal, role), status=201)
    return answer


def names(answer: Any) -> set[str]:
    return {one["name"] for one in answer["value"]}


# --- roles


def test_role_definitions(client: Client) -> None:
    everything = client.arm("GET", f"{client.subscription}/{ROLES}")["value"]

    assert {one["name"] for one in everything} == set(BUILT_IN)
    (reader,) = client.arm("GET", f"/{ROLES}", params={"$filter": "roleName eq 'reader'"})["value"]
    assert reader == client.arm("GET", f"{client.subscription}/{ROLES}/{READER}")
    assert reader["id"] == f"{client.subscription}/{ROLES}/{READER}"
    assert reader["properties"]["permissions"] == [
        {"actions": ["*/read"], "notActions": [], "dataActions": [], "notDataActions": []}
    ]
    assert client.arm("GET", f"/{ROLES}", params={"$filter": "roleName eq 'Baker'"})["value"] == []
    assert client.arm("GET", f"/{ROLES}", params={"$filter": "type eq 'CustomRole'"})["value"] == []
    assert client.refused("GET", f"/{ROLES}/{uuid4()}", status=404).code == "RoleDefinitionDoesNotExist"
    assert client.refused("GET", f"/{ROLES}", params={"$filter": "x eq 'y'"}, status=400).code.startswith("InvalidFil")


def test_permissions_are_those_of_who_asks(client_of: Clients, principal: People, client: Client) -> None:
    group = client.group("permissions")
    reader = client_of(principal("Reader", "Contributor", scope=group))

    def actions(scope: str) -> list[Any]:
        path = f"{scope}/providers/Microsoft.Authorization/permissions"
        return sorted(one["actions"] for one in reader.arm("GET", path)["value"])

    assert actions(group) == [["*"], ["*/read"]]
    assert actions(f"{group}/providers/Microsoft.Compute/virtualMachines/m") == [["*"], ["*/read"]]
    assert actions(client.subscription) == []
    assert actions("") == []


# --- assignments


def test_what_a_client_sends_gives_a_role(client: Client, client_of: Clients, principal: People) -> None:
    group, who = client.group("given"), principal()
    stranger = client_of(who)
    stranger.refused("GET", group, status=403)
    name = str(uuid4())

    made = client.arm("PUT", f"{group}/{ASSIGNMENTS}/{name}", given(who.id.upper()), status=201)

    assert made["id"] == f"{group}/{ASSIGNMENTS}/{name}"
    assert (made["name"], made["type"]) == (name, "Microsoft.Authorization/roleAssignments")
    properties = made["properties"]
    assert properties["roleDefinitionId"] == f"{client.subscription}/{ROLES}/{READER}"
    assert (properties["principalId"], properties["principalType"]) == (who.id, "ServicePrincipal")
    assert properties["scope"] == group
    assert client.who is not None
    assert properties["createdBy"] == client.who.id
    stranger.arm("GET", group)
    assert client.arm("GET", made["id"].upper()) == made

    assert client.arm("PUT", made["id"], given(who.id)) == made
    assert client.arm("DELETE", made["id"]) == made
    stranger.refused("GET", group, status=403)
    assert client.ask("DELETE", made["id"]).status == 204
    assert client.refused("GET", made["id"], status=404).code == "RoleAssignmentNotFound"


def test_what_is_refused_of_an_assignment(client: Client, principal: People) -> None:
    group, who = client.group("refused"), principal().id
    taken = give(client, group, who)["id"]
    nobody, fresh = str(uuid4()), f"{group}/{ASSIGNMENTS}/{uuid4()}"

    def code(body: Any, path: str = fresh, status: int = 400) -> str:
        return client.refused("PUT", path, body, status=status).code

    assert code(given(who), status=409) == "RoleAssignmentExists"
    assert code(given(who, OWNER), taken) == "RoleAssignmentUpdateNotPermitted"
    assert code(given(who, str(uuid4())), status=404) == "ResourceNotFound"
    assert code(given(nobody, principalType=None)) == "PrincipalNotFound"
    assert code(given(who, principalType="User")) == "UnmatchedPrincipalType"
    assert code(given(nobody, principalType="Group")) == "UserErrorNotSupported"
    assert code(given(who, OWNER, condition="@Resource[…]", conditionVersion="2.0")) == "UserErrorNotSupported"
    assert code(given("somebody")) == "InvalidRequestContent"
    assert code(given(who, OWNER), f"{group}/{ASSIGNMENTS}/mine") == "InvalidRequestContent"
    assert code({"properties": {"principalId": who}}) == "InvalidRequestContent"
    assert code({"properties": {"principalId": 7, "roleDefinitionId": READER}}) == "InvalidRequestContent"
    nowhere = client.path("nowhere")
    assert code(given(who), f"{nowhere}/{ASSIGNMENTS}/{uuid4()}", 404) == "ResourceGroupNotFound"
    assert names(client.arm("GET", f"{group}/{ASSIGNMENTS}", params={"$filter": f"principalId eq '{who}'"})) == {
        taken.rpartition("/")[2]
    }
    assert client.ask("PUT", fresh, given(nobody)).status == 201  # it may be the identity of a vault


def test_lists_go_up_and_down(client: Client, principal: People) -> None:
    group = client.group("listed")
    vault = client.vault("listed", "v1")
    machine = f"{group}/providers/Microsoft.Compute/virtualMachines/m1"
    client.arm("PUT", machine, {"location": "onprem1"}, status=201)
    one, other = principal().id, principal().id
    scopes = {"subscription": client.subscription, "group": group, "vault": vault, "machine": machine}
    made = {key: give(client, scope, one)["name"] for key, scope in scopes.items()}
    made["other"] = give(client, group, other)["name"]
    made["root"] = give(client, "", one)["name"]

    def seen(scope: str, text: str) -> set[str]:
        found = names(client.arm("GET", f"{scope}/{ASSIGNMENTS}", params={"$filter": text} if text else {}))
        return {key for key, name in made.items() if name in found}

    assert seen(group, "") == {"root", "subscription", "group", "vault", "machine", "other"}
    assert seen(group, "atScope()") == {"root", "subscription", "group", "other"}
    assert seen(vault, f"principalId eq '{one}'") == {"root", "subscription", "group", "vault"}
    assert seen(machine, f"ATSCOPE() AND assignedTo('{one.upper()}')") == {"root", "subscription", "group", "machine"}
    assert seen(client.subscription, f"assignedTo('{other}')") == {"other"}
    assert seen("", "atScope()") == {"root"}
    client.refused("GET", f"{group}/{ASSIGNMENTS}", params={"$filter": "roleName eq 'x'"}, status=400)


def test_nobody_gives_what_is_not_his_to_give(client: Client, client_of: Clients, principal: People) -> None:
    group, other = client.group("mine"), client.group("theirs")
    friend = principal().id
    theirs = give(client, other, friend)["name"]
    contributor = client_of(principal("Contributor", scope=group))
    owner = client_of(principal("Owner", scope=group))

    assert contributor.refused("PUT", f"{group}/{ASSIGNMENTS}/{uuid4()}", given(friend), status=403).code == (
        "AuthorizationFailed"
    )
    for scope in ("", client.subscription, other, f"{other}/providers/Microsoft.Compute/virtualMachines/m"):
        owner.refused("PUT", f"{scope}/{ASSIGNMENTS}/{uuid4()}", given(friend, OWNER), status=403)
        owner.refused("DELETE", f"{scope}/{ASSIGNMENTS}/{theirs}", status=403)
    mine = give(owner, f"{group}/providers/Microsoft.Storage/storageAccounts/s", friend)["id"]

    # through his own group he does not reach an assignment of another one
    assert owner.ask("DELETE", f"{group}/{ASSIGNMENTS}/{theirs}").status == 204
    assert owner.refused("GET", f"{group}/{ASSIGNMENTS}/{theirs}", status=404)
    client.arm("GET", f"{other}/{ASSIGNMENTS}/{theirs}")
    contributor.refused("DELETE", mine, status=403)
    owner.arm("DELETE", mine)


def test_the_last_owner_stays(plane: Plane, client: Client, principal: People) -> None:
    """In a transaction that is not kept."""
    give(client, client.subscription, str(uuid4()), OWNER)  # of somebody who cannot log in: he does not count
    give(client, client.group("owned"), principal().id, OWNER)
    gone = []
    with pytest.raises(GuardRefused, match="make somebody else an Owner first"), plane.change() as change:
        where = RECORDS[RoleAssignment].c.role == OWNER
        owners = every(change.connection, RoleAssignment, where)
        for one in sorted(owners, key=lambda one: len(one.scope)):
            people.unassign(change, one)
            gone.append(one)

    with plane.look() as connection:
        known = people.types(connection)
    top = [one for one in owners if one.scope.count("/") < 3 and one.principal in known]
    assert len(top) > 1
    assert len([one for one in gone if one in top]) == len(top) - 1


# --- locks


def test_a_lock_holds_until_it_is_gone(client: Client) -> None:
    group = client.group("locked")
    vault = client.vault("locked", "v1")
    body = {"properties": {"level": "cannotdelete", "notes": "by law"}}

    made = client.arm("PUT", f"{vault}/{LOCKS}/keep", body, status=201)

    assert made == {
        "id": f"{vault}/{LOCKS}/keep",
        "name": "keep",
        "type": "Microsoft.Authorization/locks",
        "properties": {"level": "CanNotDelete", "notes": "by law"},
    }
    assert client.arm("GET", made["id"].replace("resourceGroups", "resourcegroups")) == made
    assert client.refused("DELETE", vault, status=409).code == "ScopeLocked"
    assert client.refused("DELETE", group, status=409).code == "ScopeLocked"
    client.arm("PATCH", vault, {"tags": {"a": "b"}})

    changed = client.arm("PUT", made["id"], {"properties": {"level": "ReadOnly"}})
    assert changed["properties"] == {"level": "ReadOnly", "notes": None}
    assert client.refused("PATCH", vault, {"tags": {}}, status=409).code == "ScopeLocked"
    assert client.refused("PUT", f"{vault}/{ASSIGNMENTS}/{uuid4()}", given(str(uuid4())), status=409)

    assert client.ask("DELETE", made["id"]).status == 200
    assert client.ask("DELETE", made["id"]).status == 204
    client.refused("GET", made["id"], status=404)
    client.arm("PATCH", vault, {"tags": {}})


def test_a_lock_keeps_assignments(client: Client, principal: People) -> None:
    group = client.group("kept")
    made = give(client, group, principal().id)["id"]
    client.arm("PUT", f"{group}/{LOCKS}/keep", {"properties": {"level": "CanNotDelete"}}, status=201)

    assert client.refused("DELETE", made, status=409).code == "ScopeLocked"

    client.arm("DELETE", f"{group}/{LOCKS}/keep")
    client.arm("DELETE", made)


def test_lists_of_locks(client: Client) -> None:
    group, other = client.group("LockedGroup"), client.group("other-locks")
    machine = f"{group}/providers/Microsoft.Compute/virtualMachines/BigOne"
    client.arm("PUT", machine, {"location": "onprem1"}, status=201)
    body = {"properties": {"level": "CanNotDelete"}}
    scopes = (client.subscription, group, machine, other)
    ids = [
        client.arm("PUT", f"{scope}/{LOCKS}/l{number}", body, status=201)["id"] for number, scope in enumerate(scopes)
    ]

    def seen(scope: str, **more: Any) -> list[str]:
        return [one["id"] for one in client.arm("GET", f"{scope}/{LOCKS}", **more)["value"]]

    assert seen(client.subscription) == [ids[0], ids[1], ids[2], ids[3]]
    assert seen(group.upper()) == ids[:3]
    assert seen(group, params={"$filter": "atScope()"}) == ids[:2]
    assert seen(f"{group}/providers/Microsoft.Compute//virtualMachines/bigone") == ids[:3]
    for path in ids:
        client.arm("DELETE", path)


def test_what_is_refused_of_a_lock(client: Client, client_of: Clients, principal: People) -> None:
    group = client.group("refused-locks")
    body = {"properties": {"level": "CanNotDelete"}}

    assert client.refused("PUT", f"{group}/{LOCKS}/l", {"properties": {"level": "Tight"}}, status=400)
    assert client.refused("PUT", f"{group}/{LOCKS}/l", {"properties": {}}, status=400)
    assert client.refused("PUT", f"{group}/{LOCKS}/l%00", body, status=400).code == "InvalidResourceName"
    long = {"properties": {"level": "ReadOnly", "notes": "x" * 513}}
    assert client.refused("PUT", f"{group}/{LOCKS}/l", long, status=400)
    assert client.refused("PUT", f"{client.path('nowhere')}/{LOCKS}/l", body, status=404).code == (
        "ResourceGroupNotFound"
    )
    machine = f"{group}/providers/Microsoft.Compute/virtualMachines/nothing"
    assert client.refused("PUT", f"{machine}/{LOCKS}/l", body, status=404).code == "ResourceNotFound"
    client.refused("GET", f"{group}/{LOCKS}", params={"$filter": "x"}, status=400)
    contributor = client_of(principal("Contributor", scope=group))
    contributor.refused("PUT", f"{group}/{LOCKS}/l", body, status=403)
    assert client.arm("GET", f"{group}/{LOCKS}")["value"] == []


def test_what_changes_needs_the_right_to() -> None:
    """Every operation of Microsoft.Authorization that changes something asks for its own action."""
    changing = [
        one for one in OPERATIONS if "Microsoft.Authorization" in one.template and one.verb not in ("GET", "HEAD")
    ]

    assert len(changing) == 4 * 2 + 3 * 2
    for one in changing:
        assert not one.filtered
        assert one.action.rpartition("/")[2] == {"PUT": "write", "DELETE": "delete"}[one.verb]


def test_a_description_comes_back(client: Client, principal: People) -> None:
    """`az role assignment create --description`, and `az role assignment update`, which sends all of it again."""
    path = f"{client.group('described')}/{ASSIGNMENTS}/{uuid4()}"
    who = principal().id
    made = client.arm("PUT", path, given(who, description="for the nightly report"), status=201)
    assert made["properties"]["description"] == "for the nightly report"
    assert client.arm("GET", path) == made

    changed = client.arm("PUT", path, given(who, description="for the weekly report"))
    assert changed["properties"] == made["properties"] | {"description": "for the weekly report"}
    assert client.arm("GET", path) == changed
    assert client.arm("PUT", path, given(who))["properties"]["description"] is None

    refused = client.refused("PUT", path, given(who, description="x" * 1025), status=400)
    assert refused.body["error"]["target"] == "properties.description"
    lock = {"properties": {"level": "ReadOnly"}}
    client.arm("PUT", f"{client.path('described')}/{LOCKS}/all", lock, status=201)
    client.refused("PUT", path, given(who, description="another"), status=409)
    assert client.arm("PUT", path, given(who))["properties"]["description"] is None
    client.arm("DELETE", f"{client.path('described')}/{LOCKS}/all")


def test_a_destroyed_vault_takes_its_roles_with_it(client: Client, principal: People, plane: Plane) -> None:
    """Not before: it may be taken back; and not where another vault has its path by then."""
    group = client.group("destroyed")
    path = client.vault("destroyed", "vault")
    item = f"{path}/backupFabrics/Azure/protectionContainers/a/protectedItems/b"
    who = principal().id

    def left() -> set[str]:
        with plane.look() as connection:
            return {one.scope for one in people.listing(connection, group, principal=who)}

    def destroy() -> None:
        client.arm("DELETE", path, status=202)
        with plane.database.change() as connection:
            table = RECORDS[Vault]
            connection.execute(table.update().where(table.c.purge.is_not(None)).values(purge=plane.env.utc()))
        assert vaults.purge(plane) == 1

    with plane.change() as change:
        for scope in (group, path, item, f"{path}2"):
            people.assign(change, scope, who, "Reader")
    client.arm("DELETE", path, status=202)
    vaults.purge(plane)
    assert left() == {group, path, item, f"{path}2"}
    client.arm("PUT", path, {"location": "onprem1"}, status=201)
    with plane.database.change() as connection:
        table = RECORDS[Vault]
        connection.execute(table.update().where(table.c.purge.is_not(None)).values(purge=plane.env.utc()))
    assert vaults.purge(plane) == 1
    assert left() == {group, path, item, f"{path}2"}
    destroy()
    assert left() == {group, f"{path}2"}
