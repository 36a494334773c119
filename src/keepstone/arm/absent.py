# SPDX-License-Identifier: Apache-2.0
"""Kinds of resources of which there are none: their lists are empty, and no name leads to one. What makes them comes
with a later version; `later` says so to those who try.

To delete one that is not there is no failure (Azure Resource Manager, "Resource API reference", delete: 204).
"""

from __future__ import annotations

from collections.abc import Callable

from keepstone.arm.actions import action_of
from keepstone.arm.answers import page
from keepstone.arm.filters import filter_of
from keepstone.arm.lro import CONTAINER, FABRIC, ITEM
from keepstone.arm.named import check_named
from keepstone.arm.table import GROUP, SUBSCRIPTION, VAULT, Answer, Call, Table
from keepstone.errors import NotFound

__all__ = ["GUARD", "table"]

table = Table()
_PROVIDER = "/providers/Microsoft.DataProtection/resourceGuards"
GUARD = f"{GROUP}{_PROVIDER}/{{guard}}"
_INTENT = f"{FABRIC}/backupProtectionIntent/{{intent}}"
_PROXY = f"{VAULT}/backupResourceGuardProxies/{{proxy}}"
_LINK = f"{VAULT}/privateLinkResources/{{link}}"
_CONNECTION = f"{VAULT}/privateEndpointConnections/{{connection}}"
_STORAGE = f"{VAULT}/backupstorageconfig/vaultstorageconfig"
# what a second person agrees to: the segment of the path, and within the names of the SDK's methods
_REQUESTS = {
    "deleteResourceGuardProxyRequests": "delete_resource_guard_proxy",
    "disableSoftDeleteRequests": "disable_soft_delete",
    "updateProtectedItemRequests": "update_protected_item",
    "updateProtectionPolicyRequests": "update_protection_policy",
    "deleteProtectedItemRequests": "delete_protected_item",
    "getBackupSecurityPINRequests": "backup_security_pin",
}
# the commands of az that ask first whether a second person has to agree
_GUARDED = (
    "backup vault create", "backup vault update", "backup vault delete", "backup vault backup-properties set",
    "backup vault encryption update", "backup vault resource-guard-mapping update",
    "backup vault resource-guard-mapping delete", "backup policy set", "backup item set-policy",
    "backup protection disable", "backup protection resume", "backup protection reconfigure",
    "backup restore restore-disks", "backup restore restore-azurefileshare", "backup restore restore-azurefiles",
    "backup restore restore-azurewl",
)  # fmt: skip

# verb, template, name, the keys of $filter, the commands of az
_LISTS: tuple[tuple[str, ...], ...] = (
    ("GET", f"{VAULT}/backupEngines", "backup_engines.list", "backupManagementType friendlyName expand"),
    ("GET", f"{VAULT}/backupProtectionIntents", "backup_protection_intent.list",
     "backupManagementType itemType itemName parentName", "backup protection auto-disable-for-azurewl"),
    ("GET", f"{VAULT}/backupResourceGuardProxies", "resource_guard_proxies.get", "", *_GUARDED),
    ("GET", f"{VAULT}/privateLinkResources", "private_link_resources.list", ""),
    ("GET", f"{VAULT}/replicationUsages", "replication_usages.list", ""),
    ("GET", f"{CONTAINER}/items", "backup_workload_items.list",
     "backupManagementType workloadItemType workloadType protectionStatus", "backup recoveryconfig show"),
    ("POST", f"{ITEM}/recoveryPointsRecommendedForMove", "recovery_points_recommended_for_move.list", "",
     "backup recoverypoint list --recommended-for-archive"),
    ("GET", f"{SUBSCRIPTION}{_PROVIDER}", "resource_guards.get_resources_in_subscription", "",
     "dataprotection resource-guard list"),
    ("GET", f"{GROUP}{_PROVIDER}", "resource_guards.get_resources_in_resource_group", "",
     "dataprotection resource-guard list -g"),
)  # fmt: skip

# verb, template, name, what it would be, the commands of az
_ONES: tuple[tuple[str, ...], ...] = (
    ("GET", f"{VAULT}/backupEngines/{{engine}}", "backup_engines.get", "backup engine"),
    ("GET", _INTENT, "protection_intent.get", "protection intent"),
    ("DELETE", _INTENT, "protection_intent.delete", "protection intent", "backup protection auto-disable-for-azurewl"),
    ("GET", _PROXY, "resource_guard_proxy.get", "resource guard proxy", "backup vault resource-guard-mapping show"),
    ("DELETE", _PROXY, "resource_guard_proxy.delete", "resource guard proxy",
     "backup vault resource-guard-mapping delete"),
    ("GET", _LINK, "private_link_resources.get", "private link resource"),
    ("GET", _CONNECTION, "private_endpoint_connection.get", "private endpoint connection"),
    ("DELETE", _CONNECTION, "private_endpoint_connection.begin_delete", "private endpoint connection"),
    ("GET", f"{_STORAGE}/operationResults/{{operation}}", "bms_prepare_data_move_operation_result.get", "data move"),
    ("GET", f"{VAULT}/backupValidateOperationResults/{{operation}}", "validate_operation_results.get", "validation"),
    ("GET", f"{VAULT}/backupTieringCost/default/operationResults/{{operation}}",
     "get_tiering_cost_operation_result.get", "calculation of costs"),
    ("GET", f"{FABRIC}/getRPExtendedInfoOperationResult/{{operation}}", "get_rp_extended_info_operation_result.get",
     "calculation about recovery points"),
    ("GET", GUARD, "resource_guards.get", "resource guard", "dataprotection resource-guard show"),
    ("DELETE", GUARD, "resource_guards.delete", "resource guard", "dataprotection resource-guard delete"),
    *(("GET", f"{GUARD}/{kind}", f"resource_guards.get_{name}_requests_objects", "resource guard")
      for kind, name in _REQUESTS.items()),
    *(("GET", f"{GUARD}/{kind}/{{request}}", f"resource_guards.get_default_{name}_requests_object", "resource guard")
      for kind, name in _REQUESTS.items()),
)  # fmt: skip


def _empty(keys: str) -> Callable[[Call], Answer]:
    def run(call: Call) -> Answer:
        """A list of nothing, of something that is there."""
        filter_of(call, keys.split())
        with call.plane.look() as connection:
            check_named(call, connection)
        return page([])

    return run


def _nowhere(what: str) -> Callable[[Call], Answer]:
    def run(call: Call) -> Answer:
        """`NotFound`, of what it would be in first."""
        with call.plane.look() as connection:
            check_named(call, connection)
        asked_for = call.names.get("guard") or list(call.names.values())[-1]
        raise NotFound(f"There is no {what} '{asked_for}'; this version makes none")

    return run


def _gone(call: Call) -> Answer:
    """It is not there, so it need not go."""
    with call.plane.look() as connection:
        check_named(call, connection)
    return Answer(status=204)


@table("GET", f"{VAULT}/backupJobs/operationResults/{{operation}}", "export_jobs_operation_results.get",
       action="Microsoft.RecoveryServices/Vaults/backupJobs/operationResults/read")  # fmt: skip
def export(call: Call) -> Answer:
    """Of jobs that were exported: no path as others are, so neither is its action."""
    return _nowhere("export of jobs")(call)


for verb, template, name, keys, *az in _LISTS:
    table(verb, template, name, action=action_of(verb, template), az=tuple(az))(_empty(keys))
for verb, template, name, what, *az in _ONES:
    run = _gone if verb == "DELETE" else _nowhere(what)
    table(verb, template, name, action=action_of(verb, template), az=tuple(az))(run)
