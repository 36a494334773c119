# SPDX-License-Identifier: Apache-2.0
"""Settings of a vault, what it is used for, and what clients ask before they protect something."""

from __future__ import annotations

import socket
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from keepstone.control import locks, resources
from keepstone.control.plane import Plane
from keepstone.control.sources import item_name
from keepstone.control.work import handlers
from keepstone.identity import Principal
from keepstone.jobs import Worker

from .client import Client
from .exercised import exercises

pytestmark = pytest.mark.service

NUMBERS = count(1)
CONTAINER = f"Windows;{socket.gethostname()}"
SECURITY = "backupconfig/vaultconfig"
STORAGE = "backupstorageconfig/vaultstorageconfig"
ENCRYPTION = "backupEncryptionConfigs/backupResourceEncryptionConfig"
EXTENDED = "extendedInformation/vaultExtendedInfo"


@pytest.fixture
def group(client: Client) -> str:
    """The name of a group for one test."""
    name = f"group{next(NUMBERS)}"
    client.group(name)
    return name


@pytest.fixture
def vault(client: Client, group: str) -> str:
    """The id of an empty vault."""
    return client.vault(group, "vault1")


@pytest.fixture
def location(client: Client, plane: Plane) -> str:
    """Where questions about this region are asked."""
    return f"{client.subscription}/providers/Microsoft.RecoveryServices/locations/{plane.place.location}"


def machine(plane: Plane, group: str, name: str, image: Path) -> str:
    """A virtual machine with a disk image; its id."""
    image.write_bytes(b"disk" * 1024)
    disk = {"storageProfile": {"osDisk": {"vhd": {"uri": image.as_uri()}}}}
    with plane.change() as change:
        made, _ = resources.put(
            change,
            plane.place.subscription,
            group,
            "Microsoft.Compute/virtualMachines",
            name,
            plane.place.location,
            disk,
            {},
        )
    return made.path


def protect(client: Client, vault: str, group: str, resource: str) -> str:
    """Protect a virtual machine; its item."""
    name = resource.rpartition("/")[2]
    ending = f"iaasvmcontainerv2;{group};{name}"
    item = f"{vault}/backupFabrics/Azure/protectionContainers/IaasVMContainer;{ending}/protectedItems/VM;{ending}"
    properties = {
        "protectedItemType": "Microsoft.Compute/virtualMachines",
        "policyId": f"{vault}/backupPolicies/DefaultPolicy",
        "sourceResourceId": resource,
    }
    client.arm("PUT", item, {"properties": properties}, status=202)
    return item


def protect_folder(client: Client, vault: str, folder: Path) -> str:
    """Protect a folder; its item."""
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"kept" * 1000)
    item = f"{vault}/backupFabrics/Azure/protectionContainers/{CONTAINER}/protectedItems/{item_name(str(folder))}"
    properties = {
        "protectedItemType": "MabFileFolderProtectedItem",
        "policyId": f"{vault}/backupPolicies/FilesPolicy",
        "sourcePath": str(folder),
    }
    client.arm("PUT", item, {"properties": properties}, status=202)
    return item


# --- soft delete


@exercises("backup_resource_vault_configs.get")
def test_a_new_vault_deletes_softly(client: Client, vault: str) -> None:
    shown = client.arm("GET", f"{vault}/{SECURITY}")
    assert shown == {
        "id": f"{vault}/{SECURITY}",
        "name": "vaultconfig",
        "type": "Microsoft.RecoveryServices/vaults/backupconfig",
        "properties": {
            "softDeleteFeatureState": "Enabled",
            "softDeleteRetentionPeriodInDays": 14,
            "enhancedSecurityState": "Enabled",
            "isSoftDeleteFeatureStateEditable": True,
        },
    }


@exercises("backup_resource_vault_configs.update", "backup_resource_vault_configs.put")
@pytest.mark.parametrize("verb", ["PUT", "PATCH"])
def test_soft_delete_is_one_setting_under_two_names(client: Client, vault: str, verb: str) -> None:
    other = "PATCH" if verb == "PUT" else "PUT"
    client.arm(other, f"{vault}/{SECURITY}", {"properties": {"softDeleteRetentionPeriodInDays": 60}})
    sent = {"softDeleteFeatureState": "disabled", "enhancedSecurityState": "DISABLED"}
    answered = client.arm(verb, f"{vault}/{SECURITY}", {"properties": sent})["properties"]

    assert answered["softDeleteFeatureState"] == answered["enhancedSecurityState"] == "Disabled"
    assert answered["softDeleteRetentionPeriodInDays"] == 60
    assert client.arm("GET", f"{vault}/{SECURITY}")["properties"] == answered
    settings = client.arm("GET", vault)["properties"]["securitySettings"]["softDeleteSettings"]
    assert settings == {
        "softDeleteState": "Disabled",
        "enhancedSecurityState": "Disabled",
        "softDeleteRetentionPeriodInDays": 60,
    }
    back = {"securitySettings": {"softDeleteSettings": {"softDeleteState": "Enabled"}}}
    client.arm("PATCH", vault, {"properties": back})
    assert client.arm("GET", f"{vault}/{SECURITY}")["properties"]["softDeleteFeatureState"] == "Enabled"


def test_what_is_shown_may_be_sent_back(client: Client, vault: str) -> None:
    """Clients read, change one thing, and send all of it; also where the vault knows a word that they do not."""
    always = {"softDeleteSettings": {"softDeleteState": "AlwaysON", "enhancedSecurityState": "AlwaysON"}}
    client.arm("PATCH", vault, {"properties": {"securitySettings": always}})
    shown = client.arm("GET", f"{vault}/{SECURITY}")
    assert shown["properties"]["softDeleteFeatureState"] == "AlwaysON"
    assert shown["properties"]["enhancedSecurityState"] == "Enabled"
    assert shown["properties"]["isSoftDeleteFeatureStateEditable"] is False
    shown["properties"]["softDeleteRetentionPeriodInDays"] = 90
    assert client.arm("PUT", f"{vault}/{SECURITY}", shown) == shown
    settings = client.arm("GET", vault)["properties"]["securitySettings"]["softDeleteSettings"]
    assert settings["enhancedSecurityState"] == "AlwaysON"


def test_soft_delete_that_is_always_on_stays(client: Client, vault: str) -> None:
    client.arm("PATCH", f"{vault}/{SECURITY}", {"properties": {"softDeleteFeatureState": "AlwaysOn"}})
    for sent in ({"softDeleteFeatureState": "Enabled"}, {"enhancedSecurityState": "Disabled"}):
        if "enhancedSecurityState" in sent:
            client.arm("PATCH", f"{vault}/{SECURITY}", {"properties": {"enhancedSecurityState": "AlwaysON"}})
        refused = client.refused("PATCH", f"{vault}/{SECURITY}", {"properties": sent}, status=403)
        assert refused.code == "GuardRefused"
    assert client.arm("GET", f"{vault}/{SECURITY}")["properties"]["softDeleteFeatureState"] == "AlwaysON"


@pytest.mark.parametrize(
    ("sent", "target"),
    [
        ({"softDeleteRetentionPeriodInDays": 13}, "softDeleteRetentionPeriodInDays"),
        ({"softDeleteRetentionPeriodInDays": 181}, "softDeleteRetentionPeriodInDays"),
        ({"softDeleteRetentionPeriodInDays": True}, "softDeleteRetentionPeriodInDays"),
        ({"softDeleteRetentionPeriodInDays": "14"}, "softDeleteRetentionPeriodInDays"),
        ({"softDeleteFeatureState": "Perhaps"}, "softDeleteFeatureState"),
        ({"enhancedSecurityState": 1}, "enhancedSecurityState"),
    ],
)
def test_soft_delete_that_cannot_be(client: Client, vault: str, sent: dict[str, Any], target: str) -> None:
    refused = client.refused("PATCH", f"{vault}/{SECURITY}", {"properties": sent}, status=400)
    assert refused.code == "InvalidRequestContent"
    assert refused.body["error"]["target"] == f"properties.{target}"
    assert target in refused.message


# --- redundancy, encryption, extended information


@exercises(
    "backup_resource_storage_configs_non_crr.get",
    "backup_resource_storage_configs_non_crr.update",
    "backup_resource_storage_configs_non_crr.patch",
)
def test_redundancy(client: Client, vault: str) -> None:
    shown = client.arm("GET", f"{vault}/{STORAGE}")
    assert shown["name"] == "vaultstorageconfig"
    assert shown["properties"] == {
        "storageModelType": "LocallyRedundant",
        "storageType": "LocallyRedundant",
        "storageTypeState": "Unlocked",
        "crossRegionRestoreFlag": False,
        "dedupState": "Enabled",
        "xcoolState": "Disabled",
    }
    assert client.arm("PUT", f"{vault}/{STORAGE}", shown) == shown
    azures = {"storageModelType": "locallyredundant", "dedupState": "Disabled"}
    assert client.ask("PATCH", f"{vault}/{STORAGE}", {"properties": azures}).body is None
    assert client.arm("GET", f"{vault}/{STORAGE}") == shown


@pytest.mark.parametrize("verb", ["PUT", "PATCH"])
@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ({"storageModelType": "GeoRedundant"}, "UserErrorNotSupported"),
        ({"storageType": "ZoneRedundant"}, "UserErrorNotSupported"),
        ({"storageModelType": "ReadAccessGeoZoneRedundant"}, "UserErrorNotSupported"),
        ({"crossRegionRestoreFlag": True}, "UserErrorNotSupported"),
        ({"xcoolState": "Enabled"}, "UserErrorNotSupported"),
        ({"crossRegionRestoreFlag": "yes"}, "InvalidRequestContent"),
        ({"storageModelType": "Everywhere"}, "InvalidRequestContent"),
    ],
)
def test_redundancy_that_cannot_be(client: Client, vault: str, verb: str, sent: dict[str, Any], code: str) -> None:
    before = client.arm("GET", f"{vault}/{STORAGE}")
    assert client.refused(verb, f"{vault}/{STORAGE}", {"properties": sent}, status=400).code == code
    assert client.arm("GET", f"{vault}/{STORAGE}") == before


@exercises("backup_resource_encryption_configs.get", "backup_resource_encryption_configs.update")
def test_encryption(client: Client, vault: str) -> None:
    shown = client.arm("GET", f"{vault}/{ENCRYPTION}")
    assert shown["properties"]["encryptionAtRestType"] == "MicrosoftManaged"
    assert client.arm("PUT", f"{vault}/{ENCRYPTION}", shown) is None
    for sent in (
        {"encryptionAtRestType": "CustomerManaged"},
        {"keyUri": "https://keys.example/keys/one"},
        {"infrastructureEncryptionState": "Enabled"},
    ):
        refused = client.refused("PUT", f"{vault}/{ENCRYPTION}", {"properties": sent}, status=400)
        assert refused.code == "UserErrorNotSupported"
    refused = client.refused("PUT", f"{vault}/{ENCRYPTION}", {"properties": {"encryptionAtRestType": "x"}}, status=400)
    assert refused.body["error"]["target"] == "properties.encryptionAtRestType"


@exercises("vault_extended_info.get", "vault_extended_info.create_or_update", "vault_extended_info.update")
def test_extended_information_is_kept(client: Client, vault: str) -> None:
    assert client.refused("GET", f"{vault}/{EXTENDED}", status=404).code == "ResourceExtendedInfoNotFound"
    client.arm("PUT", f"{vault}/{EXTENDED}", {"properties": {"integrityKey": "abc", "algorithm": None}})
    client.arm("PATCH", f"{vault}/{EXTENDED}", {"properties": {"algorithm": "None"}})
    shown = client.arm("GET", f"{vault}/{EXTENDED}")
    assert shown["id"] == f"{vault}/{EXTENDED}"
    assert shown["properties"] == {"integrityKey": "abc", "algorithm": "None"}
    client.arm("PUT", f"{vault}/{EXTENDED}", {"properties": {"encryptionKey": "def"}})
    assert client.arm("GET", f"{vault}/{EXTENDED}")["properties"] == {"encryptionKey": "def"}


@pytest.mark.parametrize("sent", [{"other": "x"}, {"integrityKey": 1}, {"integrityKey": "x" * 8193}])
def test_extended_information_that_cannot_be(client: Client, vault: str, sent: dict[str, Any]) -> None:
    refused = client.refused("PUT", f"{vault}/{EXTENDED}", {"properties": sent}, status=400)
    assert refused.body["error"]["target"] == f"properties.{next(iter(sent))}"
    client.refused("GET", f"{vault}/{EXTENDED}", status=404)


@pytest.mark.parametrize(
    ("rest", "properties"),
    [
        (SECURITY, {"softDeleteFeatureState": "Disabled"}),
        (STORAGE, {"storageModelType": "LocallyRedundant"}),
        (ENCRYPTION, {"encryptionAtRestType": "MicrosoftManaged"}),
        (EXTENDED, {"algorithm": "None"}),
    ],
)
def test_a_lock_holds_for_settings(
    client: Client, plane: Plane, vault: str, rest: str, properties: dict[str, Any]
) -> None:
    with plane.change() as change:
        locks.put(change, vault, "hands-off", "ReadOnly", None)
    refused = client.refused("PUT", f"{vault}/{rest}", {"properties": properties}, status=409)
    assert "hands-off" in refused.message


# --- usage


@exercises("usages.list_by_vaults", "backup_usage_summaries.list")
def test_usage_counts_what_there_is(client: Client, plane: Plane, vault: str, group: str, tmp_path: Path) -> None:
    def usages() -> dict[str, int]:
        return {one["name"]["value"]: one["currentValue"] for one in client.arm("GET", f"{vault}/usages")["value"]}

    def summary(kind: str) -> dict[str, int]:
        answered = client.arm("GET", f"{vault}/backupUsageSummaries", params={"$filter": f"type eq '{kind}'"})
        return {one["name"]["value"]: one["currentValue"] for one in answered["value"] if one["currentValue"]}

    assert set(usages().values()) == {0}
    folder = protect_folder(client, vault, tmp_path / "data")
    protect(client, vault, group, machine(plane, group, "vm1", tmp_path / "disk.img"))
    client.arm("POST", f"{folder}/backup", {"properties": {}}, status=202)
    assert usages()["InProgressJobsCount"] == 1
    while Worker(plane.queue, handlers(plane), plane.env, "test").run_one():
        pass
    used = usages()
    assert used["ProtectedItemCount"] == 2
    assert used["IaaSVMProtectedItemCount"] == used["MABProtectedItemCount"] == used["MABContainersCount"] == 1
    assert used["InProgressJobsCount"] == used["FailedJobsCount"] == 0
    assert used["LRSStorageUsage"] > 0
    assert summary("BackupProtectedItemCountSummary") == {"AzureIaasVM": 1, "MAB": 1}
    assert summary("backupprotectioncontainercountsummary") == {"AzureIaasVM": 1, "MAB": 1}
    client.arm("DELETE", folder, status=202)
    assert summary("BackupProtectedItemCountSummary") == {"AzureIaasVM": 1}
    assert summary("BackupProtectionContainerCountSummary") == {"AzureIaasVM": 1, "MAB": 1}
    assert usages()["LRSStorageUsage"] == used["LRSStorageUsage"]


@pytest.mark.parametrize("text", ["type eq 'Everything'", "kind eq 'x'", "type"])
def test_a_summary_of_something_else(client: Client, vault: str, text: str) -> None:
    refused = client.refused("GET", f"{vault}/backupUsageSummaries", params={"$filter": text}, status=400)
    assert refused.code == "InvalidFilterInQueryString"


# --- before something is made or protected


@exercises("recovery_services.check_name_availability")
@pytest.mark.parametrize(
    ("name", "available", "reason"),
    [("another", True, ""), ("VAULT1", False, "AlreadyExists"), ("1st", False, "Invalid")],
)
def test_whether_a_name_is_free(
    client: Client, vault: str, group: str, location: str, name: str, available: bool, reason: str
) -> None:
    path = location.replace("/providers/", f"/resourceGroups/{group}/providers/")
    body = {"type": "Microsoft.RecoveryServices/Vaults", "name": name}
    answered = client.arm("POST", f"{path}/checkNameAvailability", body)
    assert (answered["nameAvailable"], answered["reason"]) == (available, reason)
    assert bool(answered["message"]) is not available
    client.refused("POST", f"{path}/checkNameAvailability", body | {"type": "Microsoft.Compute/disks"}, status=400)
    client.refused("POST", f"{path}/checkNameAvailability", {"type": body["type"]}, status=400)


@exercises("recovery_services.capabilities")
def test_private_links_need_no_names(client: Client, location: str) -> None:
    body = {"type": "Microsoft.RecoveryServices/Vaults", "properties": {"dnsZones": [{"subResource": "AzureBackup"}]}}
    answered = client.arm("POST", f"{location}/capabilities", body)
    assert answered["properties"]["dnsZones"] == [{"subResource": "AzureBackup", "requiredZoneNames": []}]
    client.refused("POST", f"{location}/capabilities", {"type": "x", "properties": {"dnsZones": ["x"]}}, status=400)


@exercises("feature_support.validate")
def test_features(client: Client, location: str) -> None:
    ask = f"{location}/backupValidateFeatures"
    assert client.arm("POST", ask, {"featureType": "azurevmresourcebackup"}) == {"supportStatus": "Supported"}
    assert client.arm("POST", ask, {"featureType": "AzureBackupGoals"}) == {"supportStatus": "NotSupported"}
    assert client.refused("POST", ask, {"featureType": "Wishes"}, status=400).body["error"]["target"] == "featureType"


@exercises("backup_status.get")
def test_whether_a_machine_is_protected(
    client: Client, plane: Plane, vault: str, group: str, location: str, tmp_path: Path
) -> None:
    vm = machine(plane, group, "vm1", tmp_path / "disk.img")

    def status() -> dict[str, Any]:
        body = {"resourceType": "VM", "resourceId": vm.upper()}
        answered: dict[str, Any] = client.arm("POST", f"{location}/backupStatus", body)
        return answered

    assert status()["protectionStatus"] == "NotProtected"
    assert status()["vaultId"] == ""
    item = protect(client, vault, group, vm)
    shown = status()
    assert shown["protectionStatus"] == "Protected"
    assert shown["vaultId"] == vault
    assert shown["policyName"] == "DefaultPolicy"
    assert shown["protectedItemsCount"] == 1
    assert f"{shown['containerName']}/protectedItems/{shown['protectedItemName']}" in item
    stop = {"protectedItemType": "Microsoft.Compute/virtualMachines", "protectionState": "ProtectionStopped"}
    client.arm("PUT", item, {"properties": stop | {"policyId": "", "sourceResourceId": vm}}, status=202)
    shown = status()
    assert (shown["protectionStatus"], shown["vaultId"], shown["policyName"]) == ("NotProtected", vault, "")
    client.arm("DELETE", item, status=202)
    assert status()["vaultId"] == ""


@exercises("protection_intent.validate")
def test_whether_a_machine_can_be_protected(
    client: Client, plane: Plane, vault: str, group: str, location: str, tmp_path: Path
) -> None:
    vm = machine(plane, group, "vm1", tmp_path / "disk.img")
    other = client.vault(group, "other")
    ask = f"{location}/backupPreValidateProtection"
    body = {"resourceType": "VM", "resourceId": vm, "vaultId": vault}
    assert client.arm("POST", ask, body)["status"] == "Succeeded"
    protect(client, other, group, vm)
    refused = client.arm("POST", ask, body)
    assert (refused["status"], refused["errorCode"]) == ("Failed", "Conflict")
    assert other in refused["errorMessage"]
    assert client.arm("POST", ask, body | {"vaultId": other})["status"] == "Succeeded"
    missing = client.arm("POST", ask, body | {"resourceId": f"{vm}0"})
    assert (missing["status"], missing["errorCode"]) == ("Failed", "BMSUserErrorVMNotFound")
    sql = client.arm("POST", ask, body | {"resourceType": "SQLDataBase"})
    assert (sql["status"], sql["errorCode"]) == ("Failed", "UserErrorNotSupported")
    client.refused("POST", ask, body | {"vaultId": f"{vault}0"}, status=404)
    client.refused("POST", ask, body | {"vaultId": vm}, status=400)


@pytest.mark.parametrize("rest", ["backupStatus", "backupValidateFeatures", "capabilities"])
def test_another_region(client: Client, location: str, rest: str) -> None:
    path = f"{location.rpartition('/')[0]}/elsewhere/{rest}"
    refused = client.refused("POST", path, {"resourceId": "x", "featureType": "x", "type": "x"}, status=400)
    assert refused.code == "NoRegisteredProviderFound"
    assert "onprem1" in refused.message


# --- machines that are taken out


@exercises("registered_identities.delete")
@pytest.mark.parametrize("name", [CONTAINER, CONTAINER.upper(), socket.gethostname()])
def test_a_machine_is_taken_out(client: Client, vault: str, tmp_path: Path, name: str) -> None:
    containers = f"{vault}/backupFabrics/Azure/protectionContainers"
    client.arm("PUT", f"{containers}/{CONTAINER}", {"properties": {"containerType": "Windows"}}, status=202)
    client.arm("DELETE", f"{vault}/registeredIdentities/another", status=204)
    client.arm("GET", f"{containers}/{CONTAINER}")
    client.arm("DELETE", f"{vault}/registeredIdentities/{name}", status=204)
    client.refused("GET", f"{containers}/{CONTAINER}", status=404)
    client.arm("DELETE", f"{vault}/registeredIdentities/{name}", status=204)


@exercises("registered_identities.delete")
def test_a_machine_with_items_stays(client: Client, vault: str, tmp_path: Path) -> None:
    item = protect_folder(client, vault, tmp_path / "data")
    refused = client.refused("DELETE", f"{vault}/registeredIdentities/{CONTAINER}", status=400)
    assert refused.code == "ServiceResourceNotEmptyWithBackendMessage"
    assert str(tmp_path / "data") in refused.message
    client.arm("GET", item)


# --- what there is none of, and what comes later


@exercises(
    "backup_engines.list",
    "backup_protection_intent.list",
    "resource_guard_proxies.get",
    "private_link_resources.list",
    "replication_usages.list",
)
def test_lists_of_nothing(client: Client, vault: str) -> None:
    for rest in (
        "backupEngines?$filter=backupManagementType eq 'AzureBackupServer'",
        "backupProtectionIntents?$filter=itemType eq 'x' and backupManagementType eq 'AzureWorkload'",
        "backupResourceGuardProxies",
        "privateLinkResources",
        "replicationUsages",
    ):
        assert client.arm("GET", f"{vault}/{rest}") == {"value": []}
    refused = client.refused("GET", f"{vault}/backupEngines", params={"$filter": "color eq 'red'"}, status=400)
    assert refused.code == "InvalidFilterInQueryString"


@exercises("backup_workload_items.list", "recovery_points_recommended_for_move.list")
def test_lists_of_nothing_in_something(client: Client, vault: str, tmp_path: Path) -> None:
    item = protect_folder(client, vault, tmp_path / "data")
    container = item.partition("/protectedItems/")[0]
    body = {"objectType": "ListRecoveryPointsRecommendedForMoveRequest", "excludedRPList": []}
    assert client.arm("GET", f"{container}/items") == {"value": []}
    assert client.arm("POST", f"{item}/recoveryPointsRecommendedForMove", body) == {"value": []}
    assert client.refused("GET", f"{container}0/items", status=404).code == "BMSUserErrorContainerNotFound"
    refused = client.refused("POST", f"{item}0/recoveryPointsRecommendedForMove", body, status=404)
    assert refused.code == "BMSUserErrorProtectedItemNotFound"


@exercises(
    "resource_guard_proxy.get", "resource_guard_proxy.delete", "protection_intent.get", "protection_intent.delete"
)
def test_what_is_not_there_need_not_go(client: Client, vault: str) -> None:
    for rest in ("backupResourceGuardProxies/VaultProxy", "backupFabrics/Azure/backupProtectionIntent/one"):
        refused = client.refused("GET", f"{vault}/{rest}", status=404)
        assert refused.code == "ResourceNotFound"
        assert rest.rpartition("/")[2] in refused.message
        client.arm("DELETE", f"{vault}/{rest}", status=204)


@exercises("backup_protected_items_crr.list", "backup_crr_jobs.list", "aad_properties.get", "recovery_points_crr.list")
def test_the_other_region_says_that_it_is_not_there(client: Client, vault: str, location: str, tmp_path: Path) -> None:
    item = protect_folder(client, vault, tmp_path / "data")
    elsewhere = location.rpartition("/")[0] + "/westus"  # az asks in the region that it takes for the second
    for verb, path in (
        ("GET", f"{vault}/backupProtectedItems/"),
        ("GET", f"{item}/recoveryPoints/"),
        ("GET", f"{elsewhere}/backupAadProperties"),
        ("POST", f"{elsewhere}/backupCrrJobs"),
    ):
        refused = client.refused(verb, path, {} if verb == "POST" else None, status=400, version="2021-11-15")
        assert refused.code == "UserErrorNotSupported"
        assert "--use-secondary-region" in refused.message
    assert client.arm("GET", f"{vault}/backupProtectedItems", version="2021-11-15")["value"]


@exercises("resource_guards.get_resources_in_resource_group", "resource_guards.get", "resource_guards.delete",
           "resource_guards.get_disable_soft_delete_requests_objects")  # fmt: skip
def test_there_are_no_resource_guards(client: Client, group: str) -> None:
    guards = f"{client.path(group)}/providers/Microsoft.DataProtection/resourceGuards"
    assert client.arm("GET", guards) == {"value": []}
    for rest in ("one", "one/disableSoftDeleteRequests", "one/disableSoftDeleteRequests/default"):
        refused = client.refused("GET", f"{guards}/{rest}", status=404)
        assert refused.code == "ResourceNotFound"
        assert "resource guard 'one'" in refused.message
    client.arm("DELETE", f"{guards}/one", status=204)
    elsewhere = client.refused("GET", guards.replace(group, "nowhere"), status=404)
    assert elsewhere.code == "ResourceGroupNotFound"


@exercises("security_pins.get", "jobs.export", "resource_guards.put")
def test_what_comes_later_says_what_to_do_instead(client: Client, vault: str, group: str) -> None:
    for verb, path, hint in (
        ("POST", f"{vault}/backupSecurityPIN", "az lock create"),
        ("POST", f"{vault}/backupJobsExport", "az backup job list"),
        ("PUT", f"{client.path(group)}/providers/Microsoft.DataProtection/resourceGuards/one", "resource guards"),
    ):
        refused = client.refused(verb, path, {}, status=400)
        assert refused.code == "UserErrorNotSupported"
        assert hint in refused.message


@exercises("backup_client.get_operation_status", "validate_operation_statuses.get", "tiering_cost_operation_status.get",
           "private_endpoint.get_operation_status")  # fmt: skip
def test_an_operation_is_known_under_every_address(
    client: Client, vault: str, group: str, tmp_path: Path, client_of: Callable[..., Client], principal: Any
) -> None:
    folder = protect_folder(client, vault, tmp_path / "data")
    answered = client.ask("POST", f"{folder}/backup", {"properties": {}})
    operation = answered.headers["azure-asyncoperation"].partition("?")[0].rpartition("/")[2]
    other = client.vault(group, "other")
    who: Principal = principal("Backup Reader", scope=other)
    for rest in (
        "backupstorageconfig/vaultstorageconfig/operationStatus",
        "backupValidateOperationsStatuses",
        "backupTieringCost/default/operationsStatus",
        "privateEndpointConnections/one/operationsStatus",
    ):
        shown = client.arm("GET", f"{vault}/{rest}/{operation}")
        assert shown["name"] == operation
        assert shown["status"] == "Succeeded"
        client.refused("GET", f"{other}/{rest}/{operation}", status=404)
        client_of(who).refused("GET", f"{vault}/{rest}/{operation}", status=403)
