# SPDX-License-Identifier: Apache-2.0
"""Operations that a later version will answer. Until then each says what is missing, and what to do instead.

What their paths name has to be there all the same: a vault that is not is a 404 here as elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable

from keepstone.arm.absent import GUARD
from keepstone.arm.actions import action_of
from keepstone.arm.lro import FABRIC, ITEM, POINT
from keepstone.arm.named import check_named
from keepstone.arm.table import PROVIDER, SUBSCRIPTION, VAULT, Answer, Call, Table
from keepstone.errors import Unsupported

__all__ = ["table"]

table = Table()
_LOCATION = f"{SUBSCRIPTION}{PROVIDER}/locations/{{location}}"
_STORAGE = f"{VAULT}/backupstorageconfig/vaultstorageconfig"
_PROXY = f"{VAULT}/backupResourceGuardProxies/{{proxy}}"

_REGIONS = (
    "cross-region restore is not part of this version: the vault's store lies in one place. Restore from its own "
    "recovery points, without --use-secondary-region"
)
_ARCHIVE = "there is no archive tier in this version: all recovery points are in the vault's store and can be restored"
_GUARDS = (
    "resource guards are not part of this version; a lock protects the vault from deletion (`az lock create`), and "
    "soft delete that is always on protects its data"
)
_VALIDATION = "a restore is validated when it is asked for; POST it to …/recoveryPoints/<point>/restore"
_MOVE = "the data of a vault cannot be moved into another vault in this version; protect the items there anew"
_EXPORT = "jobs are not exported into a storage account; take them from `az backup job list -o json`"
_INTENTS = "databases of SQL Server are not part of this version, and nothing else is protected automatically"
_NETWORK = "private endpoints are not part of this version; bind the service to the address that clients are to reach"
_SCAN = "recovery points are not scanned for threats in this version"
_RESTORES = tuple(
    f"backup restore {name} --use-secondary-region"
    for name in ("restore-disks", "restore-azurefileshare", "restore-azurefiles", "restore-azurewl")
)

# verb, template, name, what is missing, the commands of az
_LATER: tuple[tuple[str, ...], ...] = (
    ("POST", f"{_STORAGE}/prepareDataMove", "backup_client.begin_bms_prepare_data_move", _MOVE),
    ("POST", f"{_STORAGE}/triggerDataMove", "backup_client.begin_bms_trigger_data_move", _MOVE),
    ("POST", f"{VAULT}/backupJobsExport", "jobs.export", _EXPORT),
    ("POST", f"{VAULT}/backupTriggerValidateOperation", "validate_operation.begin_trigger", _VALIDATION),
    ("POST", f"{VAULT}/backupValidateOperation", "operation.validate", _VALIDATION),
    ("POST", f"{VAULT}/backupTieringCost/default/fetchTieringCost", "fetch_tiering_cost.begin_post", _ARCHIVE),
    ("PUT", f"{VAULT}/privateEndpointConnections/{{connection}}", "private_endpoint_connection.begin_put", _NETWORK),
    ("PUT", f"{FABRIC}/backupProtectionIntent/{{intent}}", "protection_intent.create_or_update", _INTENTS,
     "backup protection auto-enable-for-azurewl"),
    ("POST", f"{FABRIC}/getRPExtendedInfo", "get_rp_extended_info.begin_post", _ARCHIVE),
    ("POST", f"{ITEM}/configureSourceScan", "configure_source_scan.begin_execute", _SCAN,
     "backup item source-scan-configuration set"),
    ("POST", f"{POINT}/move", "backup_client.begin_move_recovery_point", _ARCHIVE, "backup recoverypoint move"),
    # guards
    ("POST", f"{VAULT}/backupSecurityPIN", "security_pins.get", _GUARDS),
    ("PUT", _PROXY, "resource_guard_proxy.put", _GUARDS, "backup vault resource-guard-mapping update"),
    ("POST", f"{_PROXY}/unlockDelete", "resource_guard_proxy.unlock_delete", _GUARDS, "backup vault delete --force",
     "backup vault resource-guard-mapping update", "backup vault resource-guard-mapping delete",
     "backup protection disable --delete-backup-data"),
    ("PUT", GUARD, "resource_guards.put", _GUARDS, "dataprotection resource-guard create"),
    ("PATCH", GUARD, "resource_guards.patch", _GUARDS, "dataprotection resource-guard update"),
    # the secondary region; its lists are told from the primary's by the slash at their end
    ("GET", f"{VAULT}/backupProtectedItems/", "backup_protected_items_crr.list", _REGIONS,
     "backup item list --use-secondary-region"),
    ("GET", f"{ITEM}/recoveryPoints/", "recovery_points_crr.list", _REGIONS,
     "backup recoverypoint list --use-secondary-region"),
    ("POST", f"{POINT}/accessToken", "recovery_points.get_access_token", _REGIONS, *_RESTORES),
    ("GET", f"{_LOCATION}/backupAadProperties", "aad_properties.get", _REGIONS, *_RESTORES),
    ("POST", f"{_LOCATION}/backupCrrJob", "backup_crr_job_details.get", _REGIONS,
     "backup job show --use-secondary-region", "backup job wait --use-secondary-region"),
    ("POST", f"{_LOCATION}/backupCrrJobs", "backup_crr_jobs.list", _REGIONS, "backup job list --use-secondary-region"),
    ("POST", f"{_LOCATION}/backupCrossRegionRestore", "cross_region_restore.begin_trigger", _REGIONS, *_RESTORES),
    ("GET", f"{_LOCATION}/backupCrrOperationResults/{{operation}}", "crr_operation_results.get", _REGIONS),
    ("GET", f"{_LOCATION}/backupCrrOperationsStatus/{{operation}}", "crr_operation_status.get", _REGIONS, *_RESTORES),
)  # fmt: skip


def _refuse(missing: str) -> Callable[[Call], Answer]:
    def run(call: Call) -> Answer:
        """`Unsupported`; `NotFound` first."""
        with call.plane.look() as connection:
            check_named(call, connection)
        raise Unsupported(missing)

    return run


for verb, template, name, missing, *az in _LATER:
    table(verb, template, name, action=action_of(verb, template), az=tuple(az), since="")(_refuse(missing))
