# SPDX-License-Identifier: Apache-2.0
"""Azure's table: every operation that today's clients know, and the statuses that each takes for a success.

Source: the Python packages azure-mgmt-recoveryservices 4.2.0, azure-mgmt-recoveryservicesbackup 11.1.0 and its
cross-region part 1.0.0b1, which azure-cli 2.91.0 installs. Whatever else is answered they raise as a failure. Some
operations stand in two of the packages, so there are fewer routes than operations.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AZURE", "OfAzure"]

_PROVIDER = "/providers/Microsoft.RecoveryServices"
_SUBSCRIPTION = "/subscriptions/{subscription}"
_GROUP = f"{_SUBSCRIPTION}/resourceGroups/{{group}}"
_VAULT = f"{_GROUP}{_PROVIDER}/vaults/{{vault}}"
_FABRIC = f"{_VAULT}/backupFabrics/{{fabric}}"
_CONTAINER = f"{_FABRIC}/protectionContainers/{{container}}"
_ITEM = f"{_CONTAINER}/protectedItems/{{item}}"
_SHORT = {
    "~": _PROVIDER,
    "S": f"{_SUBSCRIPTION}{_PROVIDER}",
    "G": f"{_GROUP}{_PROVIDER}",
    "V": _VAULT,
    "FAB": _FABRIC,
    "CON": _CONTAINER,
    "ITEM": _ITEM,
    "POINT": f"{_ITEM}/recoveryPoints/{{point}}",
}
_ROWS = """
# Vaults / vault-level
GET ~/operations 200
GET V 200
PUT V 200|201
PATCH V 200|202
DELETE V 202|204
GET S/vaults 200
GET G/vaults 200
GET S/locations/{location}/deletedVaults 200
GET S/locations/{location}/deletedVaults/{vault} 200
POST S/locations/{location}/deletedVaults/{vault}/undelete 200|202
GET S/locations/{location}/deletedVaults/{vault}/operations/{operation} 200
GET V/privateLinkResources/{link} 200
GET V/privateLinkResources 200
PUT V/certificates/{certificate} 200
DELETE V/registeredIdentities/{container} 204
GET V/replicationUsages 200
GET V/usages 200
GET V/extendedInformation/vaultExtendedInfo 200
PUT V/extendedInformation/vaultExtendedInfo 200
PATCH V/extendedInformation/vaultExtendedInfo 200
POST G/locations/{location}/checkNameAvailability 200
POST S/locations/{location}/capabilities 200
GET V/operationStatus/{operation} 200
GET V/operationResults/{operation} 200|202
# Vault config, storage config, encryption(CMK), data move
GET V/backupstorageconfig/vaultstorageconfig 200
PUT V/backupstorageconfig/vaultstorageconfig 200
PATCH V/backupstorageconfig/vaultstorageconfig 204
GET V/backupstorageconfig/vaultstorageconfig/operationResults/{operation} 200|202
GET V/backupconfig/vaultconfig 200
PUT V/backupconfig/vaultconfig 200
PATCH V/backupconfig/vaultconfig 200
GET V/backupEncryptionConfigs/backupResourceEncryptionConfig 200
PUT V/backupEncryptionConfigs/backupResourceEncryptionConfig 200
POST V/backupstorageconfig/vaultstorageconfig/prepareDataMove 200|202
POST V/backupstorageconfig/vaultstorageconfig/triggerDataMove 200|202
GET V/backupstorageconfig/vaultstorageconfig/operationStatus/{operation} 200
# Policies
GET V/backupPolicies/{policy} 200
PUT V/backupPolicies/{policy} 200|202
DELETE V/backupPolicies/{policy} 200|202|204
GET V/backupPolicies 200
GET V/backupPolicies/{policy}/operationResults/{operation} 200
GET V/backupPolicies/{policy}/operations/{operation} 200
# Containers / discovery
GET CON 200
PUT CON 200|202
DELETE CON 200|202|204
POST CON/inquire 202
POST FAB/refreshContainers 202
GET CON/items 200
GET CON/operationResults/{operation} 200|202|204
GET FAB/operationResults/{operation} 202|204
GET FAB/protectableContainers 200
GET V/backupProtectableItems 200
GET V/backupProtectionContainers 200
GET V/backupDeletedProtectionContainers 200
# Protected items, backup trigger, intents, source scan
GET ITEM 200
PUT ITEM 200|202
DELETE ITEM 200|202|204
POST ITEM/backup 202
POST ITEM/configureSourceScan 200|202
GET ITEM/operationsStatus/{operation} 200
GET ITEM/operationResults/{operation} 200|202|204
POST S/locations/{location}/backupStatus 200
POST S/locations/{location}/backupValidateFeatures 200
GET V/backupProtectionIntents 200
GET V/backupProtectedItems 200
GET FAB/backupProtectionIntent/{intent} 200
PUT FAB/backupProtectionIntent/{intent} 200
DELETE FAB/backupProtectionIntent/{intent} 204
POST S/locations/{location}/backupPreValidateProtection 200
# Jobs
GET V/backupJobs/{job} 200
GET V/backupJobs 200
POST V/backupJobs/{job}/cancel 202
GET V/backupJobs/{job}/operationResults/{operation} 200|202|204
GET V/backupJobs/operationResults/{operation} 200|202
POST V/backupJobsExport 202
# Recovery points, restore, ILR, tiering/archive move, validate
POST ITEM/recoveryPointsRecommendedForMove 200
GET POINT 200
GET ITEM/recoveryPoints 200
POST POINT/restore 202
POST POINT/provisionInstantItemRecovery 202
POST POINT/revokeInstantItemRecovery 202
POST POINT/listInstantItemRecoveryOperationResult 200
POST V/backupTriggerValidateOperation 202
GET V/backupValidateOperationResults/{operation} 200|202
GET V/backupValidateOperationsStatuses/{operation} 200
POST V/backupTieringCost/default/fetchTieringCost 200|202
GET V/backupTieringCost/default/operationResults/{operation} 200
GET V/backupTieringCost/default/operationsStatus/{operation} 200
POST V/backupValidateOperation 200
POST POINT/move 202
# Operation status/results
GET ~/operations 200
GET V/backupOperationResults/{operation} 200|202|204
GET V/backupOperations/{operation} 200
# MUA / ResourceGuard proxy, security PIN
GET V/backupResourceGuardProxies/{proxy} 200
PUT V/backupResourceGuardProxies/{proxy} 200
DELETE V/backupResourceGuardProxies/{proxy} 200|204
POST V/backupResourceGuardProxies/{proxy}/unlockDelete 200
GET V/backupResourceGuardProxies 200
POST V/backupSecurityPIN 200
# Backup engines
GET V/backupEngines/{engine} 200
GET V/backupEngines 200
GET V/backupUsageSummaries 200
# Private endpoints
GET V/privateEndpointConnections/{connection} 200
PUT V/privateEndpointConnections/{connection} 200|201
DELETE V/privateEndpointConnections/{connection} 200|202|204
GET V/privateEndpointConnections/{connection}/operationsStatus/{operation} 200
# Cross Region Restore
GET S/locations/{location}/backupAadProperties 200
POST S/locations/{location}/backupCrrJob 200
POST S/locations/{location}/backupCrrJobs 200
GET V/backupProtectedItems/ 200
GET V/backupstorageconfig/vaultstorageconfig 200
PUT V/backupstorageconfig/vaultstorageconfig 200
PATCH V/backupstorageconfig/vaultstorageconfig 204
GET V/backupUsageSummaries 200
POST S/locations/{location}/backupCrossRegionRestore 200|202
GET S/locations/{location}/backupCrrOperationResults/{operation} 200|202
GET S/locations/{location}/backupCrrOperationsStatus/{operation} 200
GET ITEM/recoveryPoints/ 200
GET POINT 200
POST POINT/accessToken 200
"""


@dataclass(frozen=True, slots=True)
class OfAzure:
    """`accepted`: the statuses that clients take."""

    verb: str
    template: str
    accepted: frozenset[int]


def _read(row: str) -> OfAzure:
    verb, path, codes = row.split()
    short, slash, rest = path.partition("/")
    return OfAzure(verb, f"{_SHORT[short]}{slash}{rest}", frozenset(map(int, codes.split("|"))))


AZURE = [_read(row) for row in _ROWS.strip().splitlines() if not row.startswith("#")]
