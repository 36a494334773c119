# SPDX-License-Identifier: Apache-2.0
"""Vaults, and those that were deleted. Source: Microsoft.RecoveryServices, vaults 2024-04-01; deletedVaults
2025-08-01."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from keepstone.arm.answers import accepted, moment, page, paged, skip_token, status_document
from keepstone.arm.cloud import known_subscription
from keepstone.arm.table import GROUP, PROVIDER, SUBSCRIPTION, VAULT, Answer, Call, Table
from keepstone.control import operations, people, vaults
from keepstone.errors import InvalidRequest
from keepstone.vault import Vault, folded

__all__ = ["document", "etag", "find", "table"]

table = Table()
_READ = "Microsoft.RecoveryServices/Vaults/read"
_WRITE = "Microsoft.RecoveryServices/Vaults/write"
_DELETE = "Microsoft.RecoveryServices/Vaults/delete"
_LOCATION = f"{SUBSCRIPTION}{PROVIDER}/locations/{{location}}"
_PAGE = 200


def find(call: Call, connection: Any) -> Vault:
    """The vault that the path names. `NotFound`."""
    return vaults.find(connection, call.names["subscription"], call.names["group"], call.names["vault"])


@table("GET", VAULT, "vaults.get", action=_READ, az=("backup vault show",))
def get(call: Call) -> Answer:
    """`NotFound`."""
    with call.plane.look() as connection:
        return Answer(body=document(find(call, connection)))


@table("GET", f"{SUBSCRIPTION}{PROVIDER}/vaults", "vaults.list_by_subscription_id", action=_READ, filtered=True,
       az=("backup vault list",))  # fmt: skip
@table("GET", f"{GROUP}{PROVIDER}/vaults", "vaults.list_by_resource_group", action=_READ, filtered=True,
       az=("backup vault list -g",))  # fmt: skip
def listing(call: Call) -> Answer:
    """The vaults that the client may see."""
    subscription, group = known_subscription(call), call.names.get("group")
    with call.plane.look() as connection:
        found = vaults.listing(connection, subscription, group)
    assert call.who is not None
    seen = [vault for vault in found if people.may(call.held, call.who.id, _READ, vault.path)]
    last = skip_token(call)
    rest = [vault for vault in seen if f"{folded(vault.name)} {vault.id}" > last]
    return paged(call, rest[: _PAGE + 1], _PAGE, lambda vault: f"{folded(vault.name)} {vault.id}", document)


@table("PUT", VAULT, "vaults.begin_create_or_update", action=_WRITE, az=("backup vault create",))
def put(call: Call) -> Answer:
    """A new vault, or everything of one that there is."""
    subscription = known_subscription(call)
    sku = call.part("sku")
    if folded(str(sku.get("name", "Standard"))) not in ("standard", "rs0"):
        raise InvalidRequest("sku.name is Standard or RS0", target="sku.name")
    with call.plane.look() as connection:
        there = vaults.lookup(connection, subscription, call.names["group"], call.names["vault"])
    if there is None:
        location = folded(call.text("location")).replace(" ", "")
        vault = vaults.create(
            call.plane,
            subscription,
            call.names["group"],
            call.names["vault"],
            location,
            call.part("properties"),
            sku={"name": "Standard"} | sku,
            tags=call.tags(),
            identity=call.part("identity"),
        )
        with call.plane.change() as change:
            operation = operations.record(change, vault.id)
        return accepted(call, status=f"{vault.path}/operationStatus/{operation.id}", body=document(vault), code=201)
    location = folded(call.text("location")).replace(" ", "")
    if location != folded(there.location):
        raise InvalidRequest(
            f"The vault '{there.name}' is in '{there.location}' and cannot move to '{location}'",
            target="location",
            code="InvalidResourceLocation",
        )
    with call.plane.change() as change:
        vault = vaults.update(
            change, there, properties=call.part("properties"), tags=call.tags(), identity=call.part("identity") or None
        )
    return Answer(body=document(vault))


@table("PATCH", VAULT, "vaults.begin_update", action=_WRITE,
       az=("backup vault update", "backup vault identity assign", "backup vault identity remove"))  # fmt: skip
def patch(call: Call) -> Answer:
    """What is sent is laid over what is there; done when it is answered."""
    body = call.document()
    with call.plane.change() as change:
        vault = vaults.update(
            change,
            find(call, change.connection),
            properties=call.part("properties"),
            tags=call.tags() if body.get("tags") is not None else None,
            identity=call.part("identity") if body.get("identity") is not None else None,
        )
    return Answer(body=document(vault))


@table("DELETE", VAULT, "vaults.begin_delete", action=_DELETE, az=("backup vault delete",))
def delete(call: Call) -> Answer:
    """204 where there is none; clients take no 200."""
    known_subscription(call)
    with call.plane.change() as change:
        there = vaults.lookup(change.connection, call.names["subscription"], call.names["group"], call.names["vault"])
        if there is None:
            return Answer(status=204)
        vaults.delete(change, there)
        operation = operations.record(change, None)
    return accepted(
        call,
        status=f"{there.path}/operationStatus/{operation.id}",
        location=f"{there.path}/operationResults/{operation.id}",
    )


@table("GET", f"{VAULT}/operationStatus/{{operation}}", "client.get_operation_status", action=_READ)
def operation_status(call: Call) -> Answer:
    """Also for a vault that the operation deleted."""
    with call.plane.look() as connection:
        there = _there(call, connection)
        mine = None if there is None else there.id
        found = operations.find(connection, call.names["operation"], mine)
    return Answer(body=status_document(found, with_job=False))


@table("GET", f"{VAULT}/operationResults/{{operation}}", "client.get_operation_result", action=_READ)
def operation_result(call: Call) -> Answer:
    """The vault as it is now; nothing where the operation deleted it."""
    with call.plane.look() as connection:
        there = _there(call, connection)
        operations.find(connection, call.names["operation"], None if there is None else there.id)
    return Answer(body=None if there is None else document(there))


@table("GET", f"{_LOCATION}/deletedVaults", "deleted_vaults.list_by_subscription_id",
       action="Microsoft.RecoveryServices/locations/deletedVaults/read", az=("backup deleted-vault list",))  # fmt: skip
def deleted_listing(call: Call) -> Answer:
    """Those that can be taken back."""
    with call.plane.look() as connection:
        found = vaults.deleted(connection, known_subscription(call), call.names["location"])
    return page([_deleted(vault) for vault in found])


@table("GET", f"{_LOCATION}/deletedVaults/{{vault}}", "deleted_vaults.get",
       action="Microsoft.RecoveryServices/locations/deletedVaults/read", az=("backup deleted-vault get",))  # fmt: skip
def deleted_get(call: Call) -> Answer:
    """`NotFound`."""
    with call.plane.look() as connection:
        vault = vaults.find_deleted(connection, known_subscription(call), call.names["location"], call.names["vault"])
    return Answer(body=_deleted(vault))


@table("POST", f"{_LOCATION}/deletedVaults/{{vault}}/undelete", "deleted_vaults.begin_undelete",
       action="Microsoft.RecoveryServices/locations/deletedVaults/undelete/action",
       az=("backup deleted-vault undelete",))  # fmt: skip
def undelete(call: Call) -> Answer:
    """Into the group that the body names."""
    group = call.part("properties").get("recoveryResourceGroupId")
    if not isinstance(group, str) or not group.strip("/"):
        raise InvalidRequest(
            "properties.recoveryResourceGroupId is missing", target="properties.recoveryResourceGroupId"
        )
    subscription = known_subscription(call)
    with call.plane.change() as change:
        vault = vaults.find_deleted(change.connection, subscription, call.names["location"], call.names["vault"])
        vaults.undelete(change, vault, group.rstrip("/").rpartition("/")[2])
        operations.record(change, None)
    return Answer(body=_deleted(vault))


@table("GET", f"{_LOCATION}/deletedVaults/{{vault}}/operations/{{operation}}", "deleted_vaults.get_operation_status",
       action="Microsoft.RecoveryServices/locations/deletedVaults/read")  # fmt: skip
def deleted_status(call: Call) -> Answer:
    """Of an undelete."""
    with call.plane.look() as connection:
        return Answer(body=status_document(operations.find(connection, call.names["operation"], None), with_job=False))


def _there(call: Call, connection: Any) -> Vault | None:
    return vaults.lookup(connection, call.names["subscription"], call.names["group"], call.names["vault"])


def etag(changed: Any) -> str:
    """As the vaults' service writes it."""
    return f"W/\"datetime'{quote(moment(changed) or '', safe='')}'\""


def document(vault: Vault) -> dict[str, Any]:
    """A vault as clients see it."""
    properties: Mapping[str, Any] = vault.properties
    security = properties["securitySettings"]
    locked = security["immutabilitySettings"]["state"] == "Locked"
    always = security["softDeleteSettings"]["softDeleteState"] == "AlwaysON"
    # Microsoft Learn, "Security levels in Azure Backup": one irreversible protection is adequate; the maximum needs a
    # resource guard as well.
    score, level = ("Adequate", "Good") if locked or always else ("Minimum", "Fair")
    if security["softDeleteSettings"]["softDeleteState"] == "Disabled" and not locked:
        score, level = "None", "Poor"
    return {
        "id": vault.path,
        "name": vault.name,
        "type": "Microsoft.RecoveryServices/vaults",
        "location": vault.location,
        "tags": vault.tags,
        "etag": etag(vault.changed),
        "sku": vault.sku,
        "identity": vault.identity,
        "systemData": {
            "createdAt": moment(vault.created),
            "lastModifiedAt": moment(vault.changed),
        },
        "properties": {
            **properties,
            "provisioningState": "Succeeded",
            "privateEndpointStateForBackup": "None",
            "privateEndpointStateForSiteRecovery": "None",
            "backupStorageVersion": "V2",
            "securitySettings": {**security, "multiUserAuthorization": "Disabled"},
            "secureScore": score,
            "bcdrSecurityLevel": level,
        },
    }


def _deleted(vault: Vault) -> dict[str, Any]:
    base = f"/subscriptions/{vault.subscription}/providers/Microsoft.RecoveryServices/locations/{vault.location}"
    return {
        "id": f"{base}/deletedVaults/{vault.id}",
        "name": str(vault.id),
        "type": "Microsoft.RecoveryServices/locations/deletedVaults",
        "properties": {
            "vaultId": vault.path,
            "vaultDeletionTime": moment(vault.deleted),
            "purgeAt": moment(vault.purge or (vault.deleted or vault.changed) + timedelta()),
        },
    }
