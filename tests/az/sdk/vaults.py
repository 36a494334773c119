# SPDX-License-Identifier: Apache-2.0
"""Vaults and policies by the Azure SDK for Python, with each kind of credential."""

from __future__ import annotations

from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.mgmt.recoveryservices import models as vaults
from azure.mgmt.recoveryservicesbackup import models as backup

from tests.az.sdk.connecting import Told, told

__all__ = ["main"]


def main(given: Told, kind: str) -> None:
    """From a vault's creation to its deletion, and back."""
    group = given.more["group"]
    name = f"sdk-{kind}"
    client, backups, watch = given.clients(kind)

    wanted = vaults.Vault(
        location=given.location,
        sku=vaults.Sku(name="Standard"),
        properties=vaults.VaultProperties(public_network_access="Enabled"),
        identity=vaults.IdentityData(type="SystemAssigned"),
        tags={"made": "sdk"},
    )
    made = client.vaults.begin_create_or_update(group, name, wanted).result()
    assert made.properties.provisioning_state == "Succeeded", made
    assert made.identity.principal_id, made
    assert client.vaults.get(group, name).tags == {"made": "sdk"}
    assert name in [one.name for one in client.vaults.list_by_resource_group(group)]
    assert name in [one.name for one in client.vaults.list_by_subscription_id()]
    changed = client.vaults.begin_update(group, name, vaults.PatchVault(tags={"made": "again"})).result()
    assert changed.tags == {"made": "again"}, changed
    assert changed.identity.principal_id == made.identity.principal_id, changed
    assert list(client.usages.list_by_vaults(group, name))
    assert list(client.replication_usages.list(group, name)) == []
    assert [one.name for one in client.operations.list()]

    config = backups.backup_resource_vault_configs.get(name, group)
    assert config.properties.soft_delete_feature_state == "Enabled", config
    config.properties.soft_delete_retention_period_in_days = 20
    updated = backups.backup_resource_vault_configs.update(name, group, config)
    assert updated.properties.soft_delete_retention_period_in_days == 20, updated
    assert backups.backup_resource_vault_configs.put(name, group, config).properties is not None
    storage = backups.backup_resource_storage_configs_non_crr.get(name, group)
    assert storage.properties.storage_type == "LocallyRedundant", storage
    assert backups.backup_resource_storage_configs_non_crr.update(name, group, storage).properties is not None
    backups.backup_resource_storage_configs_non_crr.patch(name, group, storage)
    encryption = backups.backup_resource_encryption_configs.get(name, group)
    assert encryption.properties.encryption_at_rest_type == "MicrosoftManaged", encryption
    assert list(backups.resource_guard_proxies.get(name, group)) == []

    policies = {one.name: one for one in backups.backup_policies.list(name, group)}
    assert {"DefaultPolicy", "EnhancedPolicy", "HourlyLogBackup"} <= set(policies), policies
    only = backups.backup_policies.list(name, group, filter="backupManagementType eq 'AzureWorkload'")
    assert [one.name for one in only] == ["HourlyLogBackup"]
    default = backups.protection_policies.get(name, group, "DefaultPolicy")
    assert isinstance(default.properties, backup.AzureIaaSVMProtectionPolicy), default
    default.properties.retention_policy.daily_schedule.retention_duration.count = 77
    copy = backups.protection_policies.create_or_update(name, group, "Copy", default)
    assert copy.properties.retention_policy.daily_schedule.retention_duration.count == 77, copy
    backups.protection_policies.begin_delete(name, group, "Copy").result()
    try:
        backups.protection_policies.get(name, group, "Copy")
        raise AssertionError("the policy is still there")
    except ResourceNotFoundError as error:
        assert "Copy" in error.message, error
    default.properties.schedule_policy.schedule_run_times = []
    try:
        backups.protection_policies.create_or_update(name, group, "Never", default)
        raise AssertionError("a policy without a time was taken")
    except HttpResponseError as error:
        assert error.status_code == 400, error
        assert error.error.target, error

    client.vaults.begin_delete(group, name).result()
    gone = [one for one in client.deleted_vaults.list_by_subscription_id(given.location)
            if one.properties.vault_id.endswith(f"/{name}")]  # fmt: skip
    assert len(gone) == 1, gone
    assert client.deleted_vaults.get(given.location, gone[0].name).id == gone[0].id
    target = f"/subscriptions/{given.subscription}/resourceGroups/{group}"
    body = vaults.DeletedVaultUndeleteInput(
        properties=vaults.DeletedVaultUndeleteInputProperties(recovery_resource_group_id=target)
    )
    client.deleted_vaults.begin_undelete(given.location, gone[0].name, body).result()
    assert client.vaults.get(group, name).tags == {"made": "again"}
    client.vaults.begin_delete(group, name).result()
    try:
        client.vaults.get(group, name)
        raise AssertionError("the vault is still there")
    except ResourceNotFoundError as error:
        assert error.error.code == "ResourceNotFound", error
    watch.check()


if __name__ == "__main__":
    instructions = told()
    for credential in ("static", "secret"):
        main(instructions, credential)
