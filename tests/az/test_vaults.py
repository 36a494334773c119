# SPDX-License-Identifier: Apache-2.0
"""Vaults: made, looked at, changed, deleted and taken back."""

from __future__ import annotations

import pytest

from .running import Az
from .serving import LOCATION, Server

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def group(az: Az) -> str:
    """A group for the vaults of this module."""
    az(f"group create -n vaults -l {LOCATION}")
    return "vaults"


def test_a_vault_lives(az: Az, server: Server, group: str) -> None:
    made = az(f"backup vault create -g {group} -n Vault-1 -l {LOCATION} --tags team=a")

    assert made["id"] == server.vault(group, "Vault-1")
    assert made["properties"]["provisioningState"] == "Succeeded"
    assert made["tags"] == {"team": "a"}
    assert az(f"backup vault show -g {group} -n vault-1") == made
    assert "Vault-1" in [vault["name"] for vault in az("backup vault list")]
    assert [vault["name"] for vault in az(f"backup vault list -g {group}")].count("Vault-1") == 1
    assert "Vault-1" in az.table("backup vault list")

    az(f"backup vault delete -g {group} -n vault-1 --yes")

    assert "ResourceNotFound" in az.refused(f"backup vault show -g {group} -n vault-1")


def test_a_vault_is_updated(az: Az, group: str) -> None:
    az(f"backup vault create -g {group} -n updated -l {LOCATION}")

    az(
        f"backup vault update -g {group} -n updated --tags a=b --job-failure-alerts Disable"
        " --cross-subscription-restore-state Disable --backup-storage-redundancy LocallyRedundant"
        " --immutability-state Unlocked"
        " --public-network-access Disable --classic-alerts Disable"
    )

    after = az(f"backup vault show -g {group} -n updated")
    properties = after["properties"]
    assert after["tags"] == {"a": "b"}
    assert properties["securitySettings"]["immutabilitySettings"]["state"] == "Unlocked"
    assert properties["redundancySettings"]["standardTierStorageRedundancy"] == "LocallyRedundant"
    assert properties["publicNetworkAccess"] == "Disabled"
    restore = properties["restoreSettings"]["crossSubscriptionRestoreSettings"]
    assert restore["crossSubscriptionRestoreState"] == "Disabled"
    alerts = properties["monitoringSettings"]
    assert alerts["azureMonitorAlertSettings"]["alertsForAllJobFailures"] == "Disabled"
    assert alerts["classicAlertSettings"]["alertsForCriticalOperations"] == "Disabled"

    # `create` on a vault that there is asks for an update, and says that it does.
    again = az.run(f"backup vault create -g {group} -n updated -l {LOCATION} --immutability-state Disabled")

    assert again.code == 0, again
    assert again.json["properties"]["securitySettings"]["immutabilitySettings"]["state"] == "Disabled"
    assert "update vault properties" in again.err


def test_a_vault_has_backup_properties(az: Az, group: str) -> None:
    az(f"backup vault create -g {group} -n settled -l {LOCATION}")
    show = f"backup vault backup-properties show -g {group} -n settled"

    storage, config, *_ = az(show)
    assert storage["name"] == "vaultstorageconfig"
    assert storage["properties"]["storageModelType"] == "LocallyRedundant"
    assert config["name"] == "vaultconfig"
    assert config["properties"]["softDeleteFeatureState"] == "Enabled"

    az(f"backup vault backup-properties set -g {group} -n settled --soft-delete-feature-state Enable"
       " --soft-delete-duration 30 --hybrid-backup-security-features Enable")  # fmt: skip

    _, config, *_ = az(show)
    assert config["properties"]["softDeleteRetentionPeriodInDays"] == 30


def test_a_vault_has_an_identity(az: Az, server: Server, group: str) -> None:
    az(f"backup vault create -g {group} -n known -l {LOCATION}")
    vault = f"-g {group} -n known"

    assigned = az(f"backup vault identity assign {vault} --system-assigned")

    assert assigned["identity"]["type"] == "SystemAssigned"
    assert assigned["identity"]["tenantId"] == server.tenant
    assert az(f"backup vault identity show {vault}")["principalId"] == assigned["identity"]["principalId"]

    removed = az(f"backup vault identity remove {vault} --system-assigned")

    assert removed["identity"] is None or removed["identity"]["type"] == "None"


def test_a_vault_says_how_it_is_encrypted(az: Az, group: str) -> None:
    az(f"backup vault create -g {group} -n sealed -l {LOCATION}")

    shown = az(f"backup vault encryption show -g {group} -n sealed")

    assert shown["properties"]["encryptionAtRestType"] == "MicrosoftManaged"
    assert shown["properties"]["infrastructureEncryptionState"] in ("Enabled", "Disabled")


def test_a_deleted_vault_is_taken_back(az: Az, server: Server, group: str) -> None:
    az(f"backup vault create -g {group} -n returning -l {LOCATION} --tags was=here")
    az(f"backup vault delete -g {group} -n returning --yes")

    listed = az(f"backup deleted-vault list -l {LOCATION}")
    (gone,) = [one for one in listed if one["properties"]["vaultId"] == server.vault(group, "returning")]
    assert az(f"backup deleted-vault get -l {LOCATION} -n {gone['name']}") == gone
    assert gone["name"] in az.table(f"backup deleted-vault list -l {LOCATION}")

    az(f"backup deleted-vault undelete --ids {gone['id']}")

    back = az(f"backup vault show -g {group} -n returning")
    assert back["tags"] == {"was": "here"}
    assert gone["name"] not in [one["name"] for one in az(f"backup deleted-vault list -l {LOCATION}")]


def test_what_is_wrong_with_a_vault_is_said(az: Az, group: str) -> None:
    create = f"backup vault create -g {group}"

    assert "'1st' is no name for a vault" in az.refused(f"{create} -n 1st -l {LOCATION}")
    assert f"choose '{LOCATION}'" in az.refused(f"{create} -n far -l westeurope")
    assert "Resource group 'nowhere' could not be found" in az.refused(
        f"backup vault create -g nowhere -n v1 -l {LOCATION}"
    )
    assert "ResourceNotFound" in az.refused(f"backup vault show -g {group} -n missing")
