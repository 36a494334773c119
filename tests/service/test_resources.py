# SPDX-License-Identifier: Apache-2.0
"""What stands around a vault: kept, listed together with vaults, and found the way clients look for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

import pytest

from keepstone.arm import resources as module
from keepstone.identity import Principal

from .client import Client

pytestmark = pytest.mark.service

People = Callable[..., Principal]
Clients = Callable[[Principal | None], Client]

MACHINE = "Microsoft.Compute/virtualMachines"
STORAGE = "Microsoft.Storage/storageAccounts"
NETWORK = "Microsoft.Network/virtualNetworks"
IDENTITY = "Microsoft.ManagedIdentity/userAssignedIdentities"
VAULT = "Microsoft.RecoveryServices/vaults"


def make(client: Client, group: str, kind: str, name: str, **body: Any) -> str:
    """Its id."""
    path = f"{group}/providers/{kind}/{name}"
    client.arm("PUT", path, {"location": "onprem1", **body}, status=201)
    return path


def names(answer: Any) -> list[str]:
    return [one["name"] for one in answer["value"]]


def test_a_machine_from_its_beginning_to_its_end(client: Client) -> None:
    group = client.group("Machines")
    path = f"{group}/providers/{MACHINE}/Web1"
    body = {
        "location": "OnPrem 1",
        "tags": {"Env": "test"},
        "properties": {"hardwareProfile": {"vmSize": "small"}, "ours": [1], "provisioningState": "Whatever"},
    }
    assert client.ask("HEAD", path).status == 404

    made = client.arm("PUT", path, body, status=201)

    assert made == {
        "id": path,
        "name": "Web1",
        "type": MACHINE,
        "location": "onprem1",
        "tags": {"Env": "test"},
        "properties": {"hardwareProfile": {"vmSize": "small"}, "ours": [1], "provisioningState": "Succeeded"},
    }
    assert client.arm("GET", path.upper()) == made
    assert client.ask("HEAD", path).status == 204
    assert client.arm("PUT", path.replace("Web1", "WEB1"), body) == made

    changed = client.arm("PATCH", path, {"properties": {"more": 1}})
    assert changed == made | {"properties": made["properties"] | {"more": 1}}
    assert client.arm("PATCH", path, {"tags": {"a": "b"}}) == changed | {"tags": {"a": "b"}}
    replaced = client.arm("PUT", path, {"properties": {}})
    assert (replaced["tags"], replaced["properties"]) == ({}, {"provisioningState": "Succeeded"})

    assert client.ask("DELETE", path).status == 200
    assert client.ask("DELETE", path).status == 204
    assert client.refused("GET", path, status=404).code == "ResourceNotFound"
    client.refused("PATCH", path, {"tags": {}}, status=404)


def test_what_clients_ask_on_their_way_to_a_storage_account(client: Client) -> None:
    """The classic one first, in lower case, with two slashes where a name is left out."""
    group = client.group("Accounts")
    path = make(client, group, STORAGE, "store1")

    def asked(namespace: str) -> str:
        return f"{group.lower()}/providers/{namespace}/storageAccounts//store1"

    missing = client.refused("GET", asked("Microsoft.ClassicStorage"), status=404, version="2015-12-01")
    assert missing.code == "ResourceNotFound"
    assert client.arm("GET", asked("Microsoft.Storage"), version="2016-01-01")["id"] == path


def test_what_is_not_kept(client: Client) -> None:
    group = client.group("Strange")
    path = f"{group}/providers/Microsoft.Web/sites/s1"
    for verb in ("GET", "PUT", "PATCH", "DELETE"):
        refused = client.refused(verb, path, {} if verb != "GET" else None, status=404)
        assert refused.code == "ResourceNotFound"
        assert MACHINE in refused.message
    assert client.ask("HEAD", path).status == 404

    machine = f"{group}/providers/{MACHINE}/m"
    assert client.refused("PUT", machine, {"location": "westeurope"}, status=400).code == (
        "LocationNotAvailableForResourceType"
    )
    assert client.refused("PUT", machine, {"location": 7}, status=400)
    assert client.refused("PUT", machine, {"location": "onprem1", "tags": {"a": 1}}, status=400)
    assert client.refused("PUT", machine + "%00", {"location": "onprem1"}, status=400).code == "InvalidResourceName"
    nowhere = f"{client.path('nowhere')}/providers/{MACHINE}/m"
    assert client.refused("PUT", nowhere, {"location": "onprem1"}, status=404).code == "ResourceGroupNotFound"
    assert names(client.arm("GET", f"{group}/resources")) == []


def test_networks_and_identities_say_what_they_are_called(client: Client, plane: Any) -> None:
    group = client.group("Named")
    network = make(client, group, NETWORK, "n1", properties={"subnets": [{"name": "a", "properties": {}}, "b"]})
    assert client.arm("GET", network)["properties"]["subnets"] == [
        {"name": "a", "properties": {}, "id": f"{network}/subnets/a"},
        "b",
    ]

    identity = make(client, group, IDENTITY, "i1", properties={"principalId": "chosen"})
    properties = client.arm("GET", identity)["properties"]
    assert UUID(properties["principalId"]) != UUID(properties["clientId"])
    assert properties["tenantId"] == plane.place.tenant
    client.arm("PATCH", identity, {"properties": {"clientId": "mine"}, "tags": {"a": "b"}})
    assert client.arm("GET", identity)["properties"] == properties


def test_lists(client: Client) -> None:
    group, other = client.group("Lists"), client.group("Lists2")
    make(client, group, MACHINE, "m1", tags={"Env": "Test", "b": "c"})
    make(client, group, MACHINE, "m2")
    make(client, group, STORAGE, "s1")
    make(client, other, MACHINE, "m1")
    vault = client.vault("Lists", "v1")

    assert names(client.arm("GET", f"{group}/providers/{MACHINE}")) == ["m1", "m2"]
    everywhere = client.arm("GET", f"{client.subscription}/providers/{MACHINE}")["value"]
    assert {one["id"] for one in everywhere} >= {f"{g}/providers/{MACHINE}/m1" for g in (group, other)}
    assert names(client.arm("GET", f"{group}/resources")) == ["m1", "m2", "v1", "s1"]
    assert client.refused("GET", f"{client.path('nowhere')}/resources", status=404).code == "ResourceGroupNotFound"

    def found(text: str) -> list[str]:
        answer = client.arm("GET", f"{client.subscription}/resources", params={"$filter": text})
        return [one["id"] for one in answer["value"] if one["id"].startswith((group + "/", other + "/"))]

    mine = "resourceGroup eq 'lists'"
    assert found(f"resourceType eq '{VAULT.lower()}'") == [vault]
    assert found(f"resourceType eq '{MACHINE}' and name eq 'M1' and {mine}") == [f"{group}/providers/{MACHINE}/m1"]
    assert found(f"{mine} and tagName eq 'env'") == [f"{group}/providers/{MACHINE}/m1"]
    assert found(f"{mine} and tagname eq 'env' and tagvalue eq 'test'") == [f"{group}/providers/{MACHINE}/m1"]
    assert found(f"{mine} and tagname eq 'b' and tagvalue eq 'test'") == []
    assert found(f"{mine} and location eq 'westeurope'") == []
    assert len(found(f"{mine} and location eq 'onprem1'")) == 4
    client.refused("GET", f"{client.subscription}/resources", params={"$filter": "size eq '1'"}, status=400)

    shown = next(one for one in client.arm("GET", f"{group}/resources")["value"] if one["id"] == vault)
    assert shown["type"] == VAULT
    assert shown["sku"] == {"name": "Standard"}
    assert "properties" not in shown
    assert client.ask("HEAD", vault).status == 204
    assert client.ask("HEAD", f"{vault}x").status == 404
    assert client.ask("DELETE", vault).status == 202
    assert names(client.arm("GET", f"{group}/resources")) == ["m1", "m2", "s1"]


def test_pages(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAGE", 2)
    group = client.group("Pages")
    for number in range(5):
        make(client, group, MACHINE, f"m{number}")

    pages, path = [], f"{client.subscription}/resources"
    params = {"$filter": "resourceGroup eq 'pages'"}
    while path:
        answer = client.arm("GET", path, params=params)
        pages.append(names(answer))
        path, _, query = answer.get("nextLink", "").partition("?")
        params = dict(parse_qsl(query))

    assert pages == [["m0", "m1"], ["m2", "m3"], ["m4"]]


def test_everybody_sees_what_he_may(client: Client, client_of: Clients, principal: People) -> None:
    group = client.group("Seen")
    machine, storage = make(client, group, MACHINE, "m1"), make(client, group, STORAGE, "s1")
    client.vault("Seen", "v1")
    operator = client_of(principal("Backup Operator", scope=group))  # of Azure's rights: storage, vaults, no machine
    reader = client_of(principal("Reader", scope=machine))
    nobody = client_of(principal())

    assert names(operator.arm("GET", f"{group}/resources")) == ["v1", "s1"]
    assert names(operator.arm("GET", f"{client.subscription}/resources")) == ["v1", "s1"]
    assert names(operator.arm("GET", f"{group}/providers/{MACHINE}")) == []
    operator.refused("GET", machine, status=403)
    operator.arm("GET", storage)
    operator.refused("PUT", storage, {"location": "onprem1"}, status=403)
    assert names(reader.arm("GET", f"{client.subscription}/providers/{MACHINE}")) == ["m1"]
    reader.refused("DELETE", machine, status=403)
    assert nobody.arm("GET", f"{client.subscription}/resources")["value"] == []
    client_of(None).refused("GET", f"{client.subscription}/resources", status=401)


def test_a_lock_keeps_a_machine(client: Client) -> None:
    machine = make(client, client.group("KeptMachine"), MACHINE, "m1")
    lock = f"{machine}/providers/Microsoft.Authorization/locks/l"
    client.arm("PUT", lock, {"properties": {"level": "ReadOnly"}}, status=201)

    assert client.refused("DELETE", machine, status=409).code == "ScopeLocked"
    assert client.refused("PUT", machine, {"location": "onprem1"}, status=409).code == "ScopeLocked"

    client.arm("DELETE", lock)
    client.arm("DELETE", machine)


# As az 2.91 builds it.
QUERY = """recoveryservicesresources
| where type == "microsoft.recoveryservices/locations/deletedvaults/backupfabrics/protectioncontainers/protecteditems"
| extend dataSourceType = strcat(properties.backupManagementType, '/', properties.workloadType)"""
PROJECT = "\n| project id, type, name, location, resourceGroup, subscriptionId, dataSourceType, properties, tags"


@pytest.mark.parametrize("where", ["", '\n| where tostring(id) contains "v1"\n| where tostring(id) contains "onprem1"'])
def test_the_query_of_deleted_vaults(client: Client, where: str) -> None:
    body = {"query": QUERY + where + PROJECT, "options": {"subscriptions": [client.subscription]}}

    answer = client.arm("POST", "/providers/Microsoft.ResourceGraph/resources", body, version="2021-03-01")

    assert answer == {"totalRecords": 0, "count": 0, "data": [], "facets": [], "resultTruncated": "false"}


@pytest.mark.parametrize(
    "query",
    [
        "",
        "resources | project id",
        QUERY.replace("protecteditems", "containers"),
        QUERY + "\n| summarize count()",
        QUERY + ' | where tostring(id) contains "a" or true',
        QUERY + "\n| project id; resources",
    ],
)
def test_other_queries_are_refused(client: Client, query: str) -> None:
    client.refused("POST", "/providers/Microsoft.ResourceGraph/resources", {"query": query}, status=400)


def test_what_stands_beside_the_properties_comes_back(client: Client) -> None:
    """`sku`, `kind` and `zones`: of a storage account and of a machine."""
    group = client.group("beside")
    beside = {"sku": {"name": "Standard_LRS", "tier": "Standard"}, "kind": "StorageV2", "zones": ["1", "2"]}
    path = f"{group}/providers/{STORAGE}/account"
    client.arm("PUT", path, {"location": "onprem1", "properties": {"a": 1}, **beside}, status=201)

    def shown() -> dict[str, Any]:
        found: dict[str, Any] = client.arm("GET", path)
        return {key: found.get(key) for key in beside}

    assert shown() == beside
    listed = client.arm("GET", f"{client.subscription}/resources", params={"$filter": "name eq 'account'"})["value"]
    assert {key: listed[0].get(key) for key in beside} == beside
    client.arm("PATCH", path, {"tags": {"a": "b"}, "kind": "BlobStorage"})
    assert shown() == beside | {"kind": "BlobStorage"}
    client.arm("PUT", path, {"location": "onprem1", "sku": {"name": "Premium_LRS"}})
    assert shown() == {"sku": {"name": "Premium_LRS"}, "kind": None, "zones": None}
    assert "kind" not in client.arm("GET", path)
    for part, value in (("sku", "Standard"), ("kind", 1), ("kind", "x" * 256), ("zones", "1"), ("zones", [1])):
        refused = client.refused("PUT", path, {"location": "onprem1", part: value}, status=400)
        assert refused.body["error"]["target"] == part
