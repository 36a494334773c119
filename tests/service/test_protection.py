# SPDX-License-Identifier: Apache-2.0
"""Folders and disk images of this machine as protected items, from the first policy to the last point."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from keepstone.catalogue import items as item_rows
from keepstone.control import items as control
from keepstone.control import resources
from keepstone.workloads.files import walk

from .client import Client
from .protecting import CONTAINER, Vault

pytestmark = pytest.mark.service


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    (made / "deep").mkdir(parents=True)
    (made / "a.txt").write_bytes(b"first\n" * 1000)
    (made / "deep" / "b.bin").write_bytes(os.urandom(300_000))
    return made


def test_a_folder_from_its_first_backup_to_its_restore(vault: Vault, folder: Path, tmp_path: Path) -> None:
    item = vault.protect(folder)
    assert vault.show(item)["protectionState"] == "IRPending"
    assert vault.show(item)["protectionStatus"] == "IRPending"
    job = vault.back_up(item)
    assert job["status"] == "Completed"
    assert job["operation"] == "Backup"
    shown = vault.show(item)
    assert shown["protectionState"] == "Protected"
    assert shown["protectionStatus"] == "Healthy"
    assert shown["lastBackupStatus"] == "Completed"
    assert shown["extendedInfo"]["recoveryPointCount"] == 1
    (point,) = vault.points(item)
    assert point["properties"]["recoveryPointTime"] == shown["lastRecoveryPoint"]
    assert point["properties"]["recoveryPointProperties"]["ruleName"] == "daily"
    target = tmp_path / "restored"
    job = vault.restore(
        point, objectType="FilesRestoreRequest", recoveryType="AlternateLocation", targetPath=str(target)
    )
    assert job["status"] == "Completed"
    assert (target / "a.txt").read_bytes() == (folder / "a.txt").read_bytes()
    assert (target / "deep" / "b.bin").read_bytes() == (folder / "deep" / "b.bin").read_bytes()


def test_a_second_point_costs_what_changed(vault: Vault, folder: Path) -> None:
    item = vault.protect(folder)
    vault.back_up(item)
    (folder / "a.txt").write_bytes(b"second\n" * 10)
    vault.back_up(item)
    newest, oldest = vault.points(item)
    assert newest["properties"]["keepstone"]["newBytes"] < oldest["properties"]["keepstone"]["newBytes"] / 100


def test_in_place(vault: Vault, folder: Path) -> None:
    item = vault.protect(folder)
    vault.back_up(item)
    before = (folder / "a.txt").read_bytes()
    (folder / "a.txt").write_bytes(b"damaged")
    (point,) = vault.points(item)
    job = vault.restore(point, objectType="FilesRestoreRequest", recoveryType="OriginalLocation")
    assert job["status"] == "Completed"
    assert (folder / "a.txt").read_bytes() == before


def test_a_disk_image_as_a_virtual_machine(vault: Vault, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(os.urandom(1 << 20) + bytes(3 << 20))
    group = vault.group.rpartition("/")[2]
    with vault.plane.change() as change:
        disk = {"storageProfile": {"osDisk": {"vhd": {"uri": image.as_uri()}}}}
        subscription = vault.plane.place.subscription
        machine, _ = resources.put(
            change, subscription, group, "Microsoft.Compute/virtualMachines", "vm1", "onprem1", disk, {}
        )
    ending = f"iaasvmcontainerv2;{group};vm1"
    item = f"{vault.path}/backupFabrics/Azure/protectionContainers/IaasVMContainer;{ending}/protectedItems/VM;{ending}"
    properties = {
        "protectedItemType": "Microsoft.Compute/virtualMachines",
        "policyId": vault.policy("DefaultPolicy"),
        "sourceResourceId": machine.path,
    }
    vault.client.arm("PUT", item, {"properties": properties}, status=202)
    assert vault.back_up(item)["status"] == "Completed"
    (point,) = vault.points(item)
    target = tmp_path / "restored.img"
    job = vault.restore(
        point, objectType="ImageRestoreRequest", recoveryType="AlternateLocation", targetPath=str(target)
    )
    assert job["status"] == "Completed"
    assert target.read_bytes() == image.read_bytes()


def test_stop_resume_delete_undelete_purge(vault: Vault, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item = vault.protect(folder)
    vault.back_up(item)
    stop = {"protectedItemType": "MabFileFolderProtectedItem", "protectionState": "ProtectionStopped", "policyId": ""}
    vault.client.arm("PUT", item, {"properties": stop}, status=202)
    assert vault.show(item)["protectionState"] == "ProtectionStopped"
    vault.client.arm("POST", f"{item}/backup", {"properties": {}}, status=409)
    vault.protect(folder)
    assert vault.show(item)["protectionState"] == "Protected"
    vault.client.arm("DELETE", item, status=202)
    shown = vault.show(item)
    assert shown["isScheduledForDeferredDelete"] is True
    assert shown["deferredDeleteTimeRemaining"].startswith("13.")
    refused = vault.client.arm("DELETE", vault.path, status=400)["error"]["message"]
    assert "existing resources within the vault" in refused
    again = {"protectedItemType": "MabFileFolderProtectedItem", "isRehydrate": True, "policyId": ""}
    vault.client.arm("PUT", item, {"properties": again | {"protectionState": "ProtectionStopped"}}, status=202)
    assert vault.show(item)["protectionState"] == "ProtectionStopped"
    assert len(vault.points(item)) == 1
    vault.client.arm("DELETE", item, status=202)
    with vault.plane.database.change() as connection:  # its time passes
        early = vault.plane.env.utc() - timedelta(seconds=1)
        connection.execute(item_rows.update().where(item_rows.c.friendly == str(folder)).values(purge=early))
    assert control.purge_due(vault.plane) == 1
    assert control.purge_due(vault.plane) == 0
    vault.work()
    vault.client.arm("GET", item, status=404)
    with vault.plane.look() as connection:
        from keepstone.control import vaults

        found = vaults.find(connection, vault.plane.place.subscription, vault.group.rpartition("/")[2], "vault1")
    assert vault.plane.stores.open(found.id).points.list(deleted=True) == []
    vault.client.arm("DELETE", f"{vault.path}/backupFabrics/Azure/protectionContainers/{CONTAINER}", status=202)
    vault.client.arm("DELETE", vault.path, status=202)
    vault.client.arm("GET", vault.path, status=404)


@pytest.mark.parametrize(
    ("properties", "code"),
    [
        ({"sourcePath": "relative"}, "InvalidRequestContent"),
        ({"policyId": "/subscriptions/x/backupPolicies/y"}, "BMSUserErrorInvalidPolicyId"),
        ({"policyId": None}, "InvalidRequestContent"),
        ({"exclude": "*.tmp"}, "InvalidRequestContent"),
        ({"protectedItemType": "AzureVmWorkloadSQLDatabase"}, "UserErrorNotSupported"),
    ],
)
def test_what_cannot_be_protected(vault: Vault, folder: Path, properties: dict[str, Any], code: str) -> None:
    wanted = {
        "protectedItemType": "MabFileFolderProtectedItem",
        "policyId": vault.policy("FilesPolicy"),
        "sourcePath": str(folder),
    } | properties
    status = 404 if properties.get("policyId", "") is None else 400
    error = vault.client.arm("PUT", vault.item(folder), {"properties": wanted}, status=status)["error"]
    assert error["code"] == code if status == 400 else True
    assert vault.client.arm("GET", f"{vault.path}/backupProtectedItems")["value"] == []


@pytest.mark.parametrize("exclude", [[], ["!**"], ["!issuer.key", "!**/*"]])
def test_the_keys_of_the_service_are_never_backed_up(vault: Vault, exclude: list[str]) -> None:
    """Whatever the patterns of the item say."""
    (vault.plane.root.parent / "beside").write_text("not the service's")
    own = {
        "protectedItemType": "MabFileFolderProtectedItem",
        "policyId": vault.policy("FilesPolicy"),
        "sourcePath": str(vault.plane.root),
    }
    refused = vault.client.refused("PUT", vault.item(vault.plane.root), {"properties": own}, status=403)
    assert refused.code == "GuardRefused"
    assert "keys" in refused.message
    parent = vault.protect(vault.plane.root.parent, exclude=exclude)
    assert vault.back_up(parent)["status"] in ("Completed", "CompletedWithWarnings")
    (point,) = vault.points(parent)
    store = vault.plane.stores.open(UUID(vault.id))
    reader = store.reader(store.points.find(point["properties"]["keepstone"]["point"]))
    names = [path for path, _, _ in walk(reader)]
    assert b"beside" in names
    assert not [name for name in names if name.startswith(os.fsencode(vault.plane.root.name))]


def test_jobs_of_a_vault(vault: Vault, folder: Path, client_of: Callable[..., Client]) -> None:
    item = vault.protect(folder)
    vault.back_up(item)
    found = vault.client.arm("GET", f"{vault.path}/backupJobs")["value"]
    assert [job["properties"]["operation"] for job in found] == ["Backup", "ConfigureBackup"]
    failed = vault.client.arm("GET", f"{vault.path}/backupJobs", params={"$filter": "status eq 'Failed'"})["value"]
    assert failed == []
    vault.client.arm("POST", f"{found[0]['id']}/cancel", None, status=400)
