# SPDX-License-Identifier: Apache-2.0
"""A machine and a folder, from the first protection to the last point, by the commands that people use."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keepstone.control import containers, sources

from .machines import make_machine
from .running import Az
from .serving import LOCATION, Server

pytestmark = pytest.mark.service

GROUP, VAULT = "protection", "protection"
IN = f"-g {GROUP} -v {VAULT}"
VM = "--backup-management-type AzureIaasVM --workload-type VM"


@pytest.fixture(scope="module")
def vault(az: Az, server: Server) -> str:
    """The id of the vault of this module."""
    az(f"group create -n {GROUP} -l {LOCATION}")
    az(f"backup vault create -g {GROUP} -n {VAULT} -l {LOCATION}")
    return server.vault(GROUP, VAULT)


@pytest.fixture
def machine(az: Az, server: Server, tmp_path: Path) -> Callable[[str], str]:
    """Makes a virtual machine; its id."""
    return lambda name: make_machine(az, server, GROUP, name, tmp_path)


def names(listed: list[dict[str, Any]]) -> list[str]:
    return [one["name"] for one in listed]


def test_a_machine_is_backed_up(az: Az, server: Server, vault: str, machine: Callable[[str], str]) -> None:
    path = machine("web")
    assert not az(f"backup protection check-vm --vm {path}")

    configured = az(f"backup protection enable-for-vm {IN} --vm {path} -p DefaultPolicy")

    assert configured["properties"]["operation"] == "ConfigureBackup"
    assert configured["properties"]["status"] == "Completed"
    assert az(f"backup protection check-vm --vm {path}").casefold() == vault.casefold()

    (container,) = az(f"backup container list {IN} --backup-management-type AzureIaasVM")
    assert container["name"] == f"IaasVMContainer;iaasvmcontainerv2;{GROUP};web"
    assert az(f"backup container show {IN} -n web --backup-management-type AzureIaasVM") == container
    (item,) = az(f"backup item list {IN} {VM}")
    assert item["name"] == f"VM;iaasvmcontainerv2;{GROUP};web"
    assert item["properties"]["protectionState"] == "IRPending"
    assert item["properties"]["policyName"] == "DefaultPolicy"
    assert names(az(f"backup policy list-associated-items {IN} -n DefaultPolicy")) == [item["name"]]
    assert "protects 1 item" in az.refused(f"backup policy delete {IN} -n DefaultPolicy")

    job = az(f"backup protection backup-now {IN} -c web -i web {VM} --retain-until 31-12-2199")

    assert job["properties"]["operation"] == "Backup"
    server.settle(job["name"])
    az(f"backup job wait {IN} -n {job['name']}")
    done = az(f"backup job show {IN} -n {job['name']}")
    assert done["properties"]["status"] == "Completed", done
    assert done["properties"]["extendedInfo"]["propertyBag"]["VM Name"] == "web"
    assert names(az(f"backup job list {IN}"))[0] == job["name"]
    assert names(az(f"backup job list {IN} --operation Backup --status Completed")) == [job["name"]]

    (point,) = az(f"backup recoverypoint list {IN} -c web -i web {VM}")
    assert point["properties"]["objectType"] == "IaasVMRecoveryPoint"
    assert point["properties"]["recoveryPointType"] == "CrashConsistent"
    named = f"-c '{container['name']}' -i '{item['name']}'"
    shown = az(f"backup recoverypoint show {IN} {named} -n {point['name']}")
    assert shown["id"] == point["id"]
    item = az(f"backup item show {IN} -c web -n web {VM}")
    assert item["properties"]["protectionState"] == "Protected"
    assert item["properties"]["lastBackupStatus"] == "Completed"

    policy = az(f"backup policy show {IN} -n DefaultPolicy")
    az(f"backup policy create {IN} -n Other --backup-management-type AzureIaasVM --policy", json.dumps(policy))
    moved = az(f"backup item set-policy {IN} -c web -n web {VM} -p Other")
    assert moved["properties"]["status"] == "Completed"
    assert names(az(f"backup policy list-associated-items {IN} -n Other")) == [item["name"]]

    # What is missing is said, and what to do.
    at = f"{IN} -c web -i web -r {point['name']}"
    account = f"-g {GROUP} -n account1 --resource-type Microsoft.Storage/storageAccounts"
    az(f"resource create {account} --properties", "{}")
    restore = f"backup restore restore-disks {at} --storage-account account1 --target-resource-group {GROUP}"
    assert "`keepstone storage create -g protection -n account1" in az.refused(restore)
    move = "--source-tier VaultStandard --destination-tier VaultArchive"
    assert "there is no archive tier" in az.refused(
        f"backup recoverypoint move {at.replace(' -r ', ' -n ')} {VM} {move}"
    )

    # What people see: each list as a table.
    assert "web" in az.table(f"backup container list {IN} --backup-management-type AzureIaasVM")
    assert "web" in az.table(f"backup item list {IN} {VM}")
    assert job["name"] in az.table(f"backup job list {IN}")
    assert point["name"] in az.table(f"backup recoverypoint list {IN} -c web -i web {VM}")


def test_protection_stops_and_comes_back(az: Az, server: Server, vault: str, machine: Callable[[str], str]) -> None:
    az(f"backup protection enable-for-vm {IN} --vm {machine('db')} -p DefaultPolicy")
    item = f"{IN} -c db -i db {VM}"

    def state() -> dict[str, Any]:
        properties: dict[str, Any] = az(f"backup item show {IN} -c db -n db {VM}")["properties"]
        return properties

    stopped = az(f"backup protection disable {item} --yes")
    assert stopped["properties"]["operation"] == "DisableBackup"
    assert state()["protectionState"] == "ProtectionStopped"
    assert "resume it" in az.refused(f"backup protection backup-now {item}")

    az(f"backup protection resume {item} -p DefaultPolicy")
    assert state()["protectionState"] == "IRPending"

    az(f"backup protection disable {item} --retain-recovery-points-as-per-policy --yes")
    assert state()["protectionState"] == "BackupsSuspended"

    deleted = az(f"backup protection disable {item} --delete-backup-data true --yes")
    assert deleted["properties"]["operation"] == "DeleteBackupData"
    gone = state()
    assert gone["isScheduledForDeferredDelete"] is True
    assert gone["deferredDeleteTimeInUTC"]
    assert "soft-deleted" in az.refused(f"backup vault delete -g {GROUP} -n {VAULT} --yes")

    undeleted = az(f"backup protection undelete {item}")
    assert undeleted["properties"]["operation"] == "Undelete"
    assert state()["protectionState"] == "ProtectionStopped"
    assert not state()["isScheduledForDeferredDelete"]


@pytest.mark.usefixtures("vault")
def test_a_container_without_items_goes(az: Az, server: Server) -> None:
    az(f"backup vault create -g {GROUP} -n registered -l {LOCATION}")
    name = containers.local_name()
    path = f"{server.vault(GROUP, 'registered')}/backupFabrics/Azure/protectionContainers/{name}"
    body = {"properties": {"containerType": "Windows", "backupManagementType": "MAB"}}
    az(f"rest --method put --url '{path}?api-version=2024-04-01' --body", json.dumps(body))
    which = f"-g {GROUP} -v registered --backup-management-type MAB"
    (container,) = az(f"backup container list {which}")
    friendly = container["properties"]["friendlyName"]
    assert az(f"backup container show {which} -n {friendly}") == container

    az(f"backup container unregister {which} -c {friendly} --yes")

    assert az(f"backup container list {which}") == []


@pytest.mark.usefixtures("vault")
def test_a_virtual_machine_is_registered_for_its_databases(az: Az, machine: Callable[[str], str]) -> None:
    az(f"backup vault create -g {GROUP} -n databases -l {LOCATION}")
    which = f"-g {GROUP} -v databases --backup-management-type AzureWorkload"
    resource = machine("databases")
    az(f"backup container register {which} --workload-type MSSQL --resource-id {resource}")
    (container,) = az(f"backup container list {which}")
    assert container["properties"]["sourceResourceId"] == resource
    assert "Registered" in az.table(f"backup container list {which}")
    name = container["name"]
    az(f"backup container re-register {which} --workload-type MSSQL -c '{name}' --yes")
    assert "already registered" in az.refused(
        f"backup container register {which} --workload-type MSSQL --resource-id {resource}"
    )
    az(f"backup container unregister {which} -c '{name}' --yes")
    assert az(f"backup container list {which}") == []


@pytest.mark.usefixtures("vault")
def test_a_vault_is_emptied_by_force(az: Az, server: Server, machine: Callable[[str], str]) -> None:
    az(f"backup vault create -g {GROUP} -n forced -l {LOCATION}")
    forced = f"-g {GROUP} -v forced"
    az(f"backup vault backup-properties set -g {GROUP} -n forced --soft-delete-feature-state Disable")
    az(f"backup protection enable-for-vm {forced} --vm {machine('old')} -p DefaultPolicy")
    assert "existing resources within the vault" in az.refused(f"backup vault delete -g {GROUP} -n forced --yes")

    az(f"backup vault delete -g {GROUP} -n forced --yes --force")

    assert "ResourceNotFound" in az.refused(f"backup vault show -g {GROUP} -n forced")


def test_a_job_is_stopped(az: Az, server: Server, vault: str) -> None:
    job = server.waiting_job(GROUP, VAULT)
    assert job in names(az(f"backup job list {IN} --status InProgress"))

    az(f"backup job stop {IN} -n {job}")

    assert az(f"backup job show {IN} -n {job}")["properties"]["status"] == "Cancelled"
    assert "only one that waits or goes on can be cancelled" in az.refused(f"backup job stop {IN} -n {job}")


def test_a_folder_of_this_machine_is_backed_up(az: Az, server: Server, vault: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_text("content")
    container = containers.local_name()
    item = (
        f"{vault}/backupFabrics/Azure/protectionContainers/{container}/protectedItems/{sources.item_name(str(folder))}"
    )
    body = {
        "properties": {
            "protectedItemType": "MabFileFolderProtectedItem",
            "policyId": f"{vault}/backupPolicies/FilesPolicy",
            "sourcePath": str(folder),
        }
    }
    az(f"rest --method put --url '{item}?api-version=2024-04-01' --body", json.dumps(body))

    listed = az(f"backup container list {IN} --backup-management-type MAB")
    assert names(listed) == [container]
    assert "Registered" in az.table(f"backup container list {IN} --backup-management-type MAB")
    friendly = listed[0]["properties"]["friendlyName"]
    (shown,) = az(f"backup item list {IN} --backup-management-type MAB -c '{container}'")
    assert shown["properties"]["friendlyName"] == str(folder)
    assert os.fspath(folder) in az.table(f"backup item list {IN} --backup-management-type MAB")
    assert "still has" in az.refused(
        f"backup container unregister {IN} -c {friendly} --backup-management-type MAB --yes"
    )

    az(f"rest --method post --url '{item}/backup?api-version=2024-04-01' --body",
       json.dumps({"properties": {"objectType": "IaasVMBackupRequest"}}))  # fmt: skip
    (job, *_) = az(f"backup job list {IN} --backup-management-type MAB --operation Backup")
    server.settle(job["name"])
    assert az(f"backup job show {IN} -n {job['name']}")["properties"]["status"] == "Completed"
    points = az(f"rest --method get --url '{item}/recoveryPoints?api-version=2024-04-01'")
    assert len(points["value"]) == 1
