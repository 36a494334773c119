# SPDX-License-Identifier: Apache-2.0
"""Azure's built-in roles that concern a vault, with Azure's ids and actions.

Source: Microsoft Learn, "Azure built-in roles", pages General, Privileged and Storage (azure-docs 1b4e136a). Left out
are actions of providers that Keepstone does not answer for (Microsoft.DataProtection's backup vaults,
Microsoft.Support).
"""

from __future__ import annotations

from collections.abc import Iterable

from keepstone.identity.roles import Role

__all__ = ["BUILT_IN", "CONTRIBUTOR", "OPERATOR", "OWNER", "READER", "VAULT_CONTRIBUTOR", "VAULT_READER"]

_VAULTS = "Microsoft.RecoveryServices/Vaults"
_LOCATIONS = "Microsoft.RecoveryServices/locations"
_ITEMS = "backupFabrics/protectionContainers/protectedItems"


def _beneath(prefix: str, names: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{prefix}/{name}" for name in names)


OWNER = Role(
    "8e3af657-a8ff-443c-a75c-2fe8c4bcb635",
    "Owner",
    "Grants full access to manage all resources, including the ability to assign roles.",
    ("*",),
)
CONTRIBUTOR = Role(
    "b24988ac-6180-42a0-ab88-20f7382dd24c",
    "Contributor",
    "Grants full access to manage all resources, but does not allow you to assign roles.",
    ("*",),
    (
        "Microsoft.Authorization/*/Delete",
        "Microsoft.Authorization/*/Write",
        "Microsoft.Authorization/elevateAccess/Action",
    ),
)
READER = Role(
    "acdd72a7-3385-48ef-bd42-f606fba81ae7",
    "Reader",
    "View all resources, but does not allow you to make any changes.",
    ("*/read",),
)
VAULT_CONTRIBUTOR = Role(
    "5e467623-bb1f-42f4-a55d-6e525e11384b",
    "Backup Contributor",
    "Lets you manage backups, but can't delete vaults and give access to others.",
    (
        "Microsoft.Authorization/*/read",
        "Microsoft.Network/virtualNetworks/read",
        "Microsoft.RecoveryServices/operations/read",
        "Microsoft.Resources/deployments/*",
        "Microsoft.Resources/subscriptions/resourceGroups/read",
        "Microsoft.Storage/storageAccounts/read",
        *_beneath(_LOCATIONS, ("*",)),
        *_beneath(
            _VAULTS,
            (
                "read",
                "write",
                "backupEngines/read",
                "backupFabrics/backupProtectionIntent/*",
                "backupFabrics/operationResults/*",
                "backupFabrics/protectableContainers/read",
                "backupFabrics/protectionContainers/*",
                "backupFabrics/refreshContainers/action",
                "backupJobs/*",
                "backupJobsExport/action",
                "backupOperationResults/*",
                "backupOperations/read",
                "backupPolicies/*",
                "backupProtectableItems/*",
                "backupProtectedItems/*",
                "backupProtectionContainers/*",
                "backupProtectionIntents/read",
                "backupResourceGuardProxies/delete",
                "backupResourceGuardProxies/read",
                "backupResourceGuardProxies/unlockDelete/action",
                "backupResourceGuardProxies/write",
                "backupSecurityPIN/*",
                "backupUsageSummaries/read",
                "backupValidateOperation/action",
                "backupconfig/*",
                "backupstorageconfig/*",
                "certificates/*",
                "extendedInformation/*",
                "monitoringAlerts/read",
                "monitoringAlerts/write",
                "monitoringConfigurations/*",
                "operationResults/read",
                "operationStatus/read",
                "registeredIdentities/*",
                "usages/*",
            ),
        ),
    ),
)
OPERATOR = Role(
    "00c29273-979b-4161-815c-10b084fb9324",
    "Backup Operator",
    "Lets you manage backup services, except removal of backup, vault creation and giving access to others.",
    (
        "Microsoft.Authorization/*/read",
        "Microsoft.Network/virtualNetworks/read",
        "Microsoft.RecoveryServices/operations/read",
        "Microsoft.Resources/deployments/*",
        "Microsoft.Resources/subscriptions/resourceGroups/read",
        "Microsoft.Storage/storageAccounts/read",
        *_beneath(
            _LOCATIONS,
            (
                "backupAadProperties/read",
                "backupCrossRegionRestore/action",
                "backupCrrJob/action",
                "backupCrrJobs/action",
                "backupCrrOperationResults/read",
                "backupCrrOperationsStatus/read",
                "backupPreValidateProtection/action",
                "backupStatus/action",
                "backupValidateFeatures/action",
                "operationStatus/read",
            ),
        ),
        *_beneath(
            _VAULTS,
            (
                "read",
                "backupEngines/read",
                "backupFabrics/backupProtectionIntent/read",
                "backupFabrics/backupProtectionIntent/write",
                "backupFabrics/operationResults/read",
                "backupFabrics/protectableContainers/read",
                "backupFabrics/protectionContainers/inquire/action",
                "backupFabrics/protectionContainers/items/read",
                "backupFabrics/protectionContainers/operationResults/read",
                "backupFabrics/protectionContainers/read",
                "backupFabrics/protectionContainers/write",
                f"{_ITEMS}/backup/action",
                f"{_ITEMS}/operationResults/read",
                f"{_ITEMS}/operationsStatus/read",
                f"{_ITEMS}/read",
                f"{_ITEMS}/recoveryPoints/accessToken/action",
                f"{_ITEMS}/recoveryPoints/provisionInstantItemRecovery/action",
                f"{_ITEMS}/recoveryPoints/read",
                f"{_ITEMS}/recoveryPoints/restore/action",
                f"{_ITEMS}/recoveryPoints/revokeInstantItemRecovery/action",
                f"{_ITEMS}/write",
                "backupFabrics/refreshContainers/action",
                "backupJobs/*",
                "backupJobsExport/action",
                "backupOperationResults/*",
                "backupOperations/read",
                "backupPolicies/operationResults/read",
                "backupPolicies/operations/read",
                "backupPolicies/read",
                "backupProtectableItems/*",
                "backupProtectedItems/read",
                "backupProtectionContainers/read",
                "backupProtectionIntents/read",
                "backupResourceGuardProxies/delete",
                "backupResourceGuardProxies/read",
                "backupResourceGuardProxies/unlockDelete/action",
                "backupResourceGuardProxies/write",
                "backupTriggerValidateOperation/action",
                "backupUsageSummaries/read",
                "backupValidateOperation/action",
                "backupValidateOperationResults/read",
                "backupValidateOperationsStatuses/read",
                "backupstorageconfig/*",
                "certificates/write",
                "extendedInformation/read",
                "extendedInformation/write",
                "monitoringAlerts/read",
                "monitoringAlerts/write",
                "monitoringConfigurations/*",
                "registeredIdentities/operationResults/read",
                "registeredIdentities/read",
                "registeredIdentities/write",
                "usages/read",
            ),
        ),
    ),
)
VAULT_READER = Role(
    "a795c7a0-d4a2-40c1-ae25-d81f01202912",
    "Backup Reader",
    "Can view backup services, but can't make changes.",
    (
        "Microsoft.Authorization/*/read",
        "Microsoft.RecoveryServices/operations/read",
        *_beneath(
            _LOCATIONS,
            (
                "allocatedStamp/read",
                "backupCrrJob/action",
                "backupCrrJobs/action",
                "backupCrrOperationResults/read",
                "backupCrrOperationsStatus/read",
                "backupStatus/action",
                "backupValidateFeatures/action",
                "operationStatus/read",
            ),
        ),
        *_beneath(
            _VAULTS,
            (
                "read",
                "backupEngines/read",
                "backupFabrics/backupProtectionIntent/read",
                "backupFabrics/operationResults/read",
                "backupFabrics/operationsStatus/read",
                "backupFabrics/protectionContainers/items/read",
                "backupFabrics/protectionContainers/operationResults/read",
                "backupFabrics/protectionContainers/read",
                f"{_ITEMS}/operationResults/read",
                f"{_ITEMS}/operationsStatus/read",
                f"{_ITEMS}/read",
                f"{_ITEMS}/recoveryPoints/read",
                "backupJobs/operationResults/read",
                "backupJobs/read",
                "backupJobsExport/action",
                "backupOperationResults/read",
                "backupOperations/read",
                "backupPolicies/operationResults/read",
                "backupPolicies/operations/read",
                "backupPolicies/read",
                "backupProtectedItems/read",
                "backupProtectionContainers/read",
                "backupProtectionIntents/read",
                "backupUsageSummaries/read",
                "backupconfig/read",
                "backupstorageconfig/read",
                "extendedInformation/read",
                "monitoringAlerts/read",
                "monitoringAlerts/write",
                "monitoringConfigurations/*",
                "registeredIdentities/operationResults/read",
                "registeredIdentities/read",
                "usages/read",
            ),
        ),
    ),
)

BUILT_IN = {role.id: role for role in (OWNER, CONTRIBUTOR, READER, VAULT_CONTRIBUTOR, OPERATOR, VAULT_READER)}
"""By their ids."""
