# SPDX-License-Identifier: Apache-2.0
"""Recovery points and restores. Source: backup API 2024-04-01, RecoveryPoints, Restores.

Restoring files is Keepstone's own kind of request, for which Azure has none: `FilesRestoreRequest` with `recoveryType`
(OriginalLocation, AlternateLocation), `targetPath`, `paths`, `conflict` and `delete`. For a machine or a disk these are
files out of its disks, and `paths` are written as they are shown when it is browsed; OriginalLocation is the guest that
runs, there beneath the folder `guestPath` or where the files came from. A disk image takes `ImageRestoreRequest` with
the first two and `format`, of the new image that it becomes. Each goes to another machine of the vault by
`targetInfo.containerId`, as AzureWorkloadRestoreRequest has it: the id of its container, or the name.

A virtual machine takes Azure's `IaasVMRestoreRequest`, with what is our own in its property `keepstone`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from keepstone.arm.answers import moment, paged, skip_token
from keepstone.arm.filters import filter_of
from keepstone.arm.filters import moment as moment_of
from keepstone.arm.items import path as item_path
from keepstone.arm.lro import ITEM, POINT, taken_on
from keepstone.arm.table import Answer, Call, Table
from keepstone.arm.vaults import find
from keepstone.control import (
    drills,
    file_recovery,
    guest_restores,
    items,
    machine_restores,
    operations,
    people,
    points,
    resources,
    restores,
    snapshots,
    virtual_machines,
)
from keepstone.disks.writing import FORMATS
from keepstone.errors import InvalidRequest, Unsupported
from keepstone.vault import Container, Item, RecoveryPoint, Vault, folded

__all__ = ["container_of", "document", "found_point", "table"]

table = Table()
_ACTION = "Microsoft.RecoveryServices/Vaults/backupFabrics/protectionContainers/protectedItems/recoveryPoints"
_KEYS = ("startDate", "endDate", "restorePointQueryType", "extendedInfo", "moveReadyRPOnly", "includeSoftDeletedRP")
_PAGE = 200
_FILES, _IMAGE, _MACHINE = "FilesRestoreRequest", "ImageRestoreRequest", "IaasVMRestoreRequest"


@table("GET", f"{ITEM}/recoveryPoints", "recovery_points.list", action=f"{_ACTION}/read",
       az=("backup recoverypoint list",))  # fmt: skip
def listing(call: Call) -> Answer:
    """The newest first, page by page."""
    wanted = filter_of(call, _KEYS)
    kind = folded(wanted.get("restorePointQueryType", "All"))
    with call.plane.look() as connection:
        vault = find(call, connection)
        held, item = items.find(connection, vault, call.names["container"], call.names["item"])
        found = points.listing(
            connection,
            item,
            begin=moment_of(wanted["startDate"], "startDate") if "startDate" in wanted else None,
            end=moment_of(wanted["endDate"], "endDate") if "endDate" in wanted else None,
            limit=_PAGE + 1,
            before=_before(skip_token(call)),
        )
        served = file_recovery.sessions(connection, item)
        guest = guest_restores.has_guest(connection, item)
        tried = drills.newest(connection, [item.id]).get(item.id, {})
        near = snapshots.there(connection, item, call.plane.env.utc())
    if (
        kind not in ("all", "full", "fullanddifferential", "fulllog", "")
        or folded(wanted.get("moveReadyRPOnly", "False")) == "true"
    ):
        found = []  # nothing here is of another type, or can move to an archive
    base = item_path(vault, held, item)
    return paged(
        call,
        found,
        _PAGE,
        lambda point: f"{point.made.isoformat()} {point.name}",
        lambda point: document(
            base,
            item,
            point,
            served=point.name in served,
            near=point.name in near,
            guest=guest,
            drill=tried.get(point.name),
        ),
    )


@table("GET", POINT, "recovery_points.get", action=f"{_ACTION}/read", az=("backup recoverypoint show",))
def get(call: Call) -> Answer:
    """`NotFound`."""
    with call.plane.look() as connection:
        vault, held, item, point = found_point(call, connection)
        served = point.name in file_recovery.sessions(connection, item)
        drill = drills.newest(connection, [item.id]).get(item.id, {}).get(point.name)
        near = point.name in snapshots.there(connection, item, call.plane.env.utc())
        guest = guest_restores.has_guest(connection, item)
    base = item_path(vault, held, item)
    return Answer(body=document(base, item, point, served=served, near=near, guest=guest, drill=drill))


@table("POST", f"{POINT}/restore", "restores.begin_trigger", action=f"{_ACTION}/restore/action",
       az=("backup restore restore-disks",))  # fmt: skip
def restore(call: Call) -> Answer:
    """A job restores."""
    properties = call.part("properties")
    kind = str(properties.get("objectType", ""))
    with call.plane.change() as change:
        vault, held, item, point = found_point(call, change.connection)
        if item.management == "AzureIaasVM" and folded(kind) == folded(_MACHINE):
            wanted = _of_machine(vault, properties)
            if wanted.mode is machine_restores.Mode.CREATE and isinstance(wanted.machine, str):
                assert call.who is not None
                people.authorize(call.held, call.who, f"{resources.MACHINE}/write", wanted.machine)
            job = machine_restores.restore(change, vault, held, item, point, wanted, call.correlation)
            operation = operations.record(change, vault.id, job=job)
            return taken_on(call, operation, item_path(vault, held, item))
        if item.workload != "FileFolder" and folded(kind) == folded(_FILES):
            files = _of_guest(vault, item, properties)
            job = guest_restores.restore(change, vault, held, item, point, files, call.correlation)
            operation = operations.record(change, vault.id, job=job)
            return taken_on(call, operation, item_path(vault, held, item))
        expected = _FILES if item.workload == "FileFolder" else _IMAGE
        if virtual_machines.is_running(item):
            expected = _MACHINE
        if folded(kind) != folded(expected):
            raise Unsupported(
                f"restore requests of type {kind!r} are not part of this version; '{item.friendly}' is restored by "
                f"{expected}, which `keepstone restore` sends"
                + ("" if expected == _FILES else f", and files out of its disks by {_FILES}")
            )
        job = restores.restore(change, vault, held, item, point, _wanted(vault, properties), call.correlation)
        operation = operations.record(change, vault.id, job=job)
    return taken_on(call, operation, item_path(vault, held, item))


def found_point(call: Call, connection: sa.Connection) -> tuple[Vault, Container, Item, RecoveryPoint]:
    """What the address of a point names. `NotFound`."""
    vault = find(call, connection)
    held, item = items.find(connection, vault, call.names["container"], call.names["item"])
    return vault, held, item, points.find(connection, item, call.names["point"])


def document(
    base: str, item: Item, point: RecoveryPoint, *, served: bool, near: bool, guest: bool, drill: drills.Drill | None
) -> dict[str, Any]:
    """A point as clients see it. `base`: the id of its item; `served`: whether files are recovered out of it now;
    `near`: whether its hypervisor has a snapshot of it still; `guest`: whether files of it can go back into the guest;
    `drill`: the newest of it."""
    expiry = {
        "expiryTime": moment(point.until),
        "ruleName": point.rule,
        "isSoftDeleted": point.deleted is not None,
    }
    properties: dict[str, Any] = {
        "recoveryPointType": point.consistency,
        "recoveryPointTime": moment(point.made),
        "recoveryPointAdditionalInfo": "",
        "recoveryPointProperties": expiry,
    }
    sizes: dict[str, Any] = {"logicalBytes": point.logical, "newBytes": point.fresh, "storedBytes": point.stored}
    if virtual_machines.is_running(item):
        sizes["filesIntoGuest"] = guest
    if item.management == "AzureIaasVM":
        properties |= {
            "objectType": "IaasVMRecoveryPoint",
            "sourceVMStorageType": "NormalStorage",
            "isSourceVMEncrypted": False,
            "isInstantIlrSessionActive": served,
            "isManagedVirtualMachine": virtual_machines.is_running(item),
            "originalStorageAccountOption": False,
            "virtualMachineSize": None,
            "keyAndSecret": None,
            "osType": None,
            "zones": None,
            "recoveryPointTierDetails": [
                {"type": tier, "status": "Valid"} for tier in (*(("InstantRP",) if near else ()), "HardenedRP")
            ],
            "isPrivateAccessEnabledOnAnyDisk": False,
            "extendedLocation": None,
        }
    else:
        properties |= {"objectType": "GenericRecoveryPoint", "friendlyName": item.friendly}
    return {
        "id": f"{base}/recoveryPoints/{point.name}",
        "name": point.name,
        "type": "Microsoft.RecoveryServices/vaults/backupFabrics/protectionContainers/protectedItems/recoveryPoints",
        "properties": properties | {"keepstone": sizes | _own(point, drill)},
    }


def _own(point: RecoveryPoint, drill: drills.Drill | None) -> dict[str, Any]:
    told: dict[str, Any] = {"warnings": point.warnings, "point": point.commit_id}
    if drill is not None:
        told["drill"] = {"began": moment(drill.began), "level": drill.level, "secondsToRecover": drill.seconds}
    return told


def _of_guest(vault: Vault, item: Item, properties: dict[str, Any]) -> restores.Wanted:
    """Files out of disks. What says two places is no request for either."""
    wanted = _wanted(vault, properties)
    if wanted.target is None and properties.get("targetPath") is not None:
        raise InvalidRequest(
            f"OriginalLocation is the guest of '{item.friendly}'; name a folder of it as properties.guestPath, or "
            "restore to properties.targetPath, of a machine, with AlternateLocation",
            target="properties.targetPath",
        )
    return wanted


def _wanted(vault: Vault, properties: dict[str, Any]) -> restores.Wanted:
    kinds = {"originallocation": False, "alternatelocation": True}
    kind = folded(str(properties.get("recoveryType", "")))
    if kind not in kinds:
        raise InvalidRequest(
            "properties.recoveryType is OriginalLocation or AlternateLocation", target="properties.recoveryType"
        )
    target = properties.get("targetPath")
    if kinds[kind] and not isinstance(target, str):
        raise InvalidRequest(
            f"properties.targetPath is {target!r}; name an absolute path", target="properties.targetPath"
        )
    paths = properties.get("paths") or []
    if not isinstance(paths, list) or not all(isinstance(one, str) and one for one in paths):
        raise InvalidRequest("properties.paths has to be a list of paths", target="properties.paths")
    conflict = properties.get("conflict")
    words = ("overwrite", "skip", "keep-both")
    if conflict is not None and conflict not in words:
        raise InvalidRequest(
            f"properties.conflict is {conflict!r}; choose one of {', '.join(words)}", target="properties.conflict"
        )
    delete = properties.get("delete", False)
    if not isinstance(delete, bool):
        raise InvalidRequest("properties.delete has to be true or false", target="properties.delete")
    format = properties.get("format")
    if format is not None and (not isinstance(format, str) or format not in FORMATS):
        raise InvalidRequest(
            f"properties.format is {format!r}; choose one of {', '.join(FORMATS)}", target="properties.format"
        )
    guest = properties.get("guestPath")
    if guest is not None and not isinstance(guest, str):
        raise InvalidRequest(
            f"properties.guestPath is {guest!r}; name an absolute folder of the guest", target="properties.guestPath"
        )
    return restores.Wanted(
        target=str(target) if kinds[kind] else None,
        container=container_of(vault, properties),
        paths=tuple(paths),
        conflict=conflict,
        delete=delete,
        format=format,
        guest=guest,
    )


def _of_machine(vault: Vault, properties: dict[str, Any]) -> machine_restores.Wanted:
    """Azure's request, and what is our own in `keepstone`: `targetPath`, `format`, `disks` and `safetyPoint`."""
    mode = {folded(one): one for one in machine_restores.Mode}.get(folded(str(properties.get("recoveryType", ""))))
    if mode is None:
        raise InvalidRequest(
            f"properties.recoveryType is {properties.get('recoveryType')!r}; choose one of "
            f"{', '.join(machine_restores.Mode)}",
            target="properties.recoveryType",
        )
    luns = properties.get("restoreDiskLunList")
    own = {} if properties.get("keepstone") is None else properties["keepstone"]
    if not isinstance(own, dict):
        raise InvalidRequest("properties.keepstone has to be an object", target="properties.keepstone")
    for key in ("storageAccountId", "targetVirtualMachineId", "virtualNetworkId"):
        if not isinstance(properties.get(key), str | None):
            raise InvalidRequest(f"properties.{key} has to be the id of a resource", target=f"properties.{key}")
    names, target, safety = own.get("disks") or [], own.get("targetPath"), own.get("safetyPoint", True)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidRequest(
            "properties.keepstone.disks has to be a list of names", target="properties.keepstone.disks"
        )
    if target is not None and not isinstance(target, str):
        raise InvalidRequest(
            f"properties.keepstone.targetPath is {target!r}; name an absolute path",
            target="properties.keepstone.targetPath",
        )
    if not isinstance(safety, bool):
        raise InvalidRequest(
            "properties.keepstone.safetyPoint has to be true or false", target="properties.keepstone.safetyPoint"
        )
    return machine_restores.Wanted(
        mode=mode,
        target=target,
        account=properties.get("storageAccountId"),
        container=container_of(vault, properties),
        luns=None if luns is None else virtual_machines.luns(luns, "properties.restoreDiskLunList"),
        names=tuple(names),
        format=own.get("format"),
        safety=safety,
        machine=properties.get("targetVirtualMachineId"),
        network=properties.get("virtualNetworkId"),
    )


def container_of(vault: Vault, properties: dict[str, Any]) -> str | None:
    """The name of the container of the machine that the point goes to; None for the item's own."""
    about = properties.get("targetInfo") or {}
    named = about.get("containerId") if isinstance(about, dict) else about
    if named is None:
        return None
    path, _, name = named.rpartition("/") if isinstance(named, str) else ("", "", "")
    if not name or (path and not folded(path).startswith(f"{folded(vault.path)}/")):
        raise InvalidRequest(
            f"properties.targetInfo.containerId is {named!r}; it has to be the id of a container of vault "
            f"'{vault.name}'",
            target="properties.targetInfo.containerId",
        )
    return name


def _before(token: str) -> tuple[datetime, str] | None:
    if not token:
        return None
    made, _, name = token.partition(" ")
    try:
        return datetime.fromisoformat(made), name
    except ValueError as error:
        raise InvalidRequest("$skipToken is none that this list gave", target="$skipToken") from error
