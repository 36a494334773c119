# SPDX-License-Identifier: Apache-2.0
"""Protected items. Source: backup API 2024-04-01, ProtectedItems, Backups, BackupProtectedItems,
BackupProtectableItems."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from keepstone.arm import containers as machines
from keepstone.arm.answers import accepted, moment, page, paged, skip_token
from keepstone.arm.filters import filter_of
from keepstone.arm.lro import ITEM, taken_on
from keepstone.arm.table import VAULT, Answer, Call, Table
from keepstone.arm.vaults import find
from keepstone.catalogue import containers, items, one, policies
from keepstone.catalogue.columns import alike
from keepstone.control import items as control
from keepstone.control import looks, operations, points, resources
from keepstone.control import policies as stored
from keepstone.control.health import is_of
from keepstone.errors import InvalidRequest
from keepstone.vault import Container, Health, Item, StoredPolicy, Vault, folded, health, zone
from keepstone.vault.properties import soft_delete

__all__ = ["document", "health_of", "path", "table"]

table = Table()
_VAULTS = "Microsoft.RecoveryServices/Vaults"
_ITEMS = f"{_VAULTS}/backupFabrics/protectionContainers/protectedItems"
_KEYS = (
    "backupManagementType",
    "itemType",
    "policyName",
    "containerName",
    "friendlyName",
    "healthState",
    "backupEngineName",
    "fabricName",
    "backupSetName",
)
_PAGE = 200


@table("GET", f"{VAULT}/backupProtectedItems", "backup_protected_items.list",
       action=f"{_VAULTS}/backupProtectedItems/read",
       az=("backup item list", "backup item show", "backup policy list-associated-items"))  # fmt: skip
def listing(call: Call) -> Answer:
    """Those that all of the filter is true of, page by page."""
    wanted = filter_of(call, _KEYS)
    with call.plane.look() as connection:
        vault = find(call, connection)
        now = call.plane.env.utc()
        where = _where(wanted)
        if "healthState" in wanted:
            where.append(_is_of(connection, wanted["healthState"], vault, now))
        found = control.listing(connection, vault, where, _PAGE + 1, skip_token(call))
        counts = points.counts(connection, [item.id for item, _, _ in found[:_PAGE]])
    rows = [
        (item, document(vault, held, item, policy, now, counts.get(item.id, (0, None)))) for item, held, policy in found
    ]
    return paged(call, rows, _PAGE, lambda row: f"{folded(row[0].name)} {row[0].id}", lambda row: row[1])


@table("GET", ITEM, "protected_items.get", action=f"{_ITEMS}/read", az=("backup item show",))
def get(call: Call) -> Answer:
    """`NotFound`."""
    with call.plane.look() as connection:
        return Answer(body=_one(call, connection))


@table("PUT", ITEM, "protected_items.begin_create_or_update", action=f"{_ITEMS}/write",
       az=("backup protection enable-for-vm", "backup protection disable", "backup protection resume",
           "backup protection undelete", "backup item set-policy"))  # fmt: skip
def put(call: Call) -> Answer:
    """Protect, stop, resume or take back, as the body says."""
    properties = call.part("properties")
    state = folded(str(properties.get("protectionState") or ""))
    container, name = call.names["container"], call.names["item"]
    with call.plane.change() as change:
        connection = change.connection
        vault = find(call, connection)
        if properties.get("isRehydrate") is True:
            held, item = control.find(connection, vault, container, name)
            item, job = control.undelete(change, vault, held, item, call.correlation)
        elif not properties.get("policyId"):
            held, item = control.find(connection, vault, container, name)
            states = {folded(one): one for one in (control.STOPPED, control.SUSPENDED)}
            if state not in states:
                raise InvalidRequest(
                    "properties.policyId is missing; name a policy, or stop protection with properties.protectionState "
                    f"{control.STOPPED} or {control.SUSPENDED}",
                    target="properties.policyId",
                )
            item, job = control.stop(change, vault, held, item, states[state], call.correlation)
        elif state == folded(control.SUSPENDED):
            held, item = control.find(connection, vault, container, name)
            item, job = control.stop(change, vault, held, item, control.SUSPENDED, call.correlation)
        else:
            item, job = control.protect(change, vault, container, name, properties, call.correlation)
            held, item = control.find(connection, vault, container, item.name)
        return _taken_on(call, change, vault, path(vault, held, item), job)


@table("DELETE", ITEM, "protected_items.delete", action=f"{_ITEMS}/delete", az=("backup protection disable",))
def delete(call: Call) -> Answer:
    """Stop protection and delete the data; 204 where there is none."""
    with call.plane.change() as change:
        vault = find(call, change.connection)
        held, item = control.find(change.connection, vault, call.names["container"], call.names["item"])
        _, job = control.delete(change, vault, held, item, call.correlation)
        operation = operations.record(change, vault.id, job=job)
    return accepted(
        call,
        status=f"{vault.path}/backupOperations/{operation.id}",
        location=f"{vault.path}/backupOperationResults/{operation.id}",
    )


@table("POST", f"{ITEM}/backup", "backups.trigger", action=f"{_ITEMS}/backup/action",
       az=("backup protection backup-now",))  # fmt: skip
def backup(call: Call) -> Answer:
    """A backup now."""
    with call.plane.change() as change:
        vault = find(call, change.connection)
        held, item = control.find(change.connection, vault, call.names["container"], call.names["item"])
        job = control.back_up(change, vault, held, item, _expiry(call), call.correlation)
        return _taken_on(call, change, vault, path(vault, held, item), job)


@table("POST", f"{ITEM}/releaseSnapshots", "keepstone.release_snapshots", action=f"{_ITEMS}/write")
def release_snapshots(call: Call) -> Answer:
    """All snapshots that its machine keeps go. Keepstone's own: Azure's go by themselves."""
    with call.plane.change() as change:
        vault = find(call, change.connection)
        held, item = control.find(change.connection, vault, call.names["container"], call.names["item"])
        job = looks.ask(change, vault, held, item, call.correlation)
        return _taken_on(call, change, vault, path(vault, held, item), job)


@table("GET", f"{VAULT}/backupProtectableItems", "backup_protectable_items.list",
       action=f"{_VAULTS}/backupProtectableItems/read",
       az=("backup protection enable-for-vm", "backup protectable-item list"))  # fmt: skip
def protectable(call: Call) -> Answer:
    """Virtual machines that no item of this vault is of."""
    keys = ("backupManagementType", "workloadType", "containerName", "status", "friendlyName")
    wanted = filter_of(call, keys)
    if folded(wanted.get("backupManagementType", "AzureIaasVM")) != "azureiaasvm":
        return page([])
    with call.plane.look() as connection:
        vault = find(call, connection)
        kind = "Microsoft.Compute/virtualMachines"
        found = resources.listing(connection, vault.subscription, kind=kind)
        query = sa.select(containers.c.key).where(containers.c.vault == vault.id)
        taken = set(connection.execute(query).scalars())
    value = []
    for machine in found:
        ending = f"iaasvmcontainerv2;{folded(machine.group_name)};{folded(machine.name)}"
        held = f"IaasVMContainer;{ending}"
        if folded(held) in taken or folded(wanted.get("friendlyName", machine.name)) != folded(machine.name):
            continue
        value.append(
            {
                "id": f"{vault.path}/backupFabrics/Azure/protectionContainers/{held}/protectableItems/vm;{ending}",
                "name": f"{held}",
                "type": "Microsoft.RecoveryServices/vaults/backupFabrics/protectionContainers/protectableItems",
                "properties": {
                    "protectableItemType": kind,
                    "backupManagementType": "AzureIaasVM",
                    "workloadType": "VM",
                    "friendlyName": machine.name,
                    "protectionState": "NotProtected",
                    "virtualMachineId": machine.path,
                    "virtualMachineVersion": "Compute",
                    "resourceGroup": machine.group_name,
                },
            }
        )
    return page(value)


def path(vault: Vault, held: Container, item: Item) -> str:
    """The resource id of an item."""
    return f"{machines.path(vault, held)}/protectedItems/{item.name}"


def document(
    vault: Vault,
    held: Container,
    item: Item,
    policy: StoredPolicy | None,
    now: datetime,
    summary: tuple[int, datetime | None],
) -> dict[str, Any]:
    """An item as clients see it. `summary`: how many points it has, and when the oldest was made."""
    count, oldest = summary
    status = health_of(item, policy, now)
    days = soft_delete(vault.properties).days
    properties: dict[str, Any] = {
        "friendlyName": item.friendly,
        "backupManagementType": item.management,
        "workloadType": item.workload,
        "containerName": held.name.partition(";")[2] if item.management == "AzureIaasVM" else held.name,
        "sourceResourceId": item.properties.get("sourceResourceId"),
        "policyId": f"{vault.path}/backupPolicies/{policy.name}" if policy is not None else "",
        "policyName": policy.name if policy is not None else "",
        "lastRecoveryPoint": moment(item.newest),
        "lastBackupStatus": item.outcome or "",
        "lastBackupTime": moment(item.backed_up),
        "protectionState": control.shown_state(item),
        "protectionStatus": str(status),
        "isScheduledForDeferredDelete": item.deleted is not None,
        "deferredDeleteTimeInUTC": moment(item.deleted),
        "deferredDeleteTimeRemaining": _remaining(item, now),
        "isDeferredDeleteScheduleUpcoming": False,
        "isRehydrate": False,
        "isArchiveEnabled": False,
        "softDeleteRetentionPeriodInDays": days,
        "vaultId": vault.path,
        "extendedInfo": {"oldestRecoveryPoint": moment(oldest), "recoveryPointCount": count},
    }
    if item.management == "AzureIaasVM":
        properties |= {
            "protectedItemType": "Microsoft.Compute/virtualMachines",
            "virtualMachineId": item.properties.get("sourceResourceId"),
            "healthStatus": "Passed" if status != Health.UNHEALTHY else "ActionRequired",
            "healthDetails": [],
            "kpisHealths": {},
            "protectedItemDataId": str(item.id.int & 0x7FFFFFFFFFFFFFFF),
            "policyType": policy.properties.get("policyType", "V1") if policy is not None else None,
            "extendedProperties": item.properties.get("extendedProperties"),
        }
    else:
        properties |= {
            "protectedItemType": "MabFileFolderProtectedItem",
            "computerName": held.friendly,
            "deferredDeleteSyncTimeInUTC": None,
            "sourcePath": item.source["path"],
        } | {key: value for key, value in item.source.items() if key != "path"}
    return {
        "id": path(vault, held, item),
        "name": item.name,
        "type": "Microsoft.RecoveryServices/vaults/backupFabrics/protectionContainers/protectedItems",
        "properties": properties,
    }


def _one(call: Call, connection: sa.Connection) -> dict[str, Any]:
    vault = find(call, connection)
    held, item = control.find(connection, vault, call.names["container"], call.names["item"])
    policy = one(connection, StoredPolicy, id=item.policy) if item.policy is not None else None
    return document(vault, held, item, policy, call.plane.env.utc(), points.summary(connection, item))


def _taken_on(call: Call, change: Any, vault: Vault, item: str, job: UUID) -> Answer:
    operation = operations.record(change, vault.id, job=job)
    return taken_on(call, operation, item)


def _where(wanted: dict[str, str]) -> list[sa.ColumnElement[bool]]:
    """What of the filter the database decides. Nothing here comes from a backup engine or a backup set."""
    where: list[sa.ColumnElement[bool]] = []
    if "backupManagementType" in wanted:
        where.append(alike(items.c.management, wanted["backupManagementType"]))
    if "itemType" in wanted:
        where.append(alike(items.c.workload, wanted["itemType"]))
    if "friendlyName" in wanted:
        where.append(alike(items.c.friendly, wanted["friendlyName"]))
    if "policyName" in wanted:
        mine = sa.select(policies.c.id).where(
            policies.c.vault == items.c.vault, policies.c.key == folded(wanted["policyName"])
        )
        where.append(items.c.policy.in_(mine))
    if "containerName" in wanted:
        name = wanted["containerName"]
        held = sa.select(containers.c.id).where(
            containers.c.vault == items.c.vault,
            sa.or_(containers.c.key == folded(name), alike(containers.c.friendly, name)),
        )
        where.append(items.c.container.in_(held))
    if "backupEngineName" in wanted or "backupSetName" in wanted:
        where.append(sa.false())
    return where


def _is_of(connection: sa.Connection, state: str, vault: Vault, now: datetime) -> sa.ColumnElement[bool]:
    states = {folded(health): health for health in Health}
    wanted = states.get(folded(state))
    return sa.false() if wanted is None else is_of(connection, wanted, vault.id, now)


def health_of(item: Item, policy: StoredPolicy | None, now: datetime) -> Health:
    """By its points. While nothing is to make new ones, those that there are do not grow too old."""
    if policy is None or item.state != control.PROTECTED:
        return Health.HEALTHY if item.newest is not None else Health.PENDING
    known = stored.parsed(policy)
    return health(item.newest, known.parts[0].schedule, zone(known.zone), now)


def _remaining(item: Item, now: datetime) -> str | None:
    """As .NET writes a span of time: days.hours:minutes:seconds."""
    if item.purge is None:
        return None
    seconds = max(0, int((item.purge - now).total_seconds()))
    days, rest = divmod(seconds, 86_400)
    return f"{days}.{rest // 3600:02}:{rest % 3600 // 60:02}:{rest % 60:02}"


def _expiry(call: Call) -> datetime | None:
    """Until when the client wants the point to be kept."""
    properties = call.part("properties") if call.body is not None else {}
    value = properties.get("recoveryPointExpiryTimeInUTC")
    if value is None:
        return None
    try:
        when = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(
            f"properties.recoveryPointExpiryTimeInUTC is {value!r}; write a date and time such as 2026-01-31T00:00:00Z",
            target="properties.recoveryPointExpiryTimeInUTC",
        ) from error
    return when.astimezone(UTC) if when.tzinfo is not None else when.replace(tzinfo=UTC)
