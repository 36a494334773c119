# SPDX-License-Identifier: Apache-2.0
"""What the bodies of requests look like, as JSON Schema, by the names of their operations.

They describe what Keepstone reads; whatever else is sent is kept, or does not matter. An operation that is not here
takes any object, or no body.
"""

from __future__ import annotations

from typing import Any

from keepstone.disks.writing import FORMATS
from keepstone.vault.properties import SOFT_DELETE_DAYS

__all__ = ["BODIES", "schema"]

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_PASSWORD: Schema = {"type": "string", "minLength": 12, "maxLength": 256, "writeOnly": True}
_MOMENT: Schema = {"type": "string", "format": "date-time"}


def _object(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    schema: Schema = {"type": "object", "properties": properties}
    return schema | ({"required": list(required)} if required else {})


def _one_of(*words: str) -> Schema:
    return {"type": "string", "enum": list(words)}


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of}


def _properties(of: Schema) -> Schema:
    return _object(("properties",), properties=of)


_TAGS: Schema = {"type": "object", "additionalProperties": _TEXT}
_SWITCH = _one_of("Enabled", "Disabled")
_VAULT = _object(
    publicNetworkAccess=_SWITCH,
    securitySettings=_object(
        softDeleteSettings=_object(
            softDeleteState=_one_of("Enabled", "Disabled", "AlwaysON"),
            enhancedSecurityState=_one_of("Enabled", "Disabled", "AlwaysON"),
            softDeleteRetentionPeriodInDays={
                "type": "integer",
                "minimum": SOFT_DELETE_DAYS.start,
                "maximum": SOFT_DELETE_DAYS.stop - 1,
            },
        ),
        immutabilitySettings=_object(
            state=_one_of("Disabled", "Unlocked", "Locked"),
            configuration=_object(type=_one_of("AsPerPolicy", "TimeBased")),
        ),
    ),
    monitoringSettings=_object(
        azureMonitorAlertSettings=_object(alertsForAllJobFailures=_SWITCH),
        classicAlertSettings=_object(alertsForCriticalOperations=_SWITCH),
    ),
    redundancySettings=_object(
        standardTierStorageRedundancy=_one_of("LocallyRedundant"), crossRegionRestore=_one_of("Disabled")
    ),
)
_IDENTITY = _object(
    type=_one_of("None", "SystemAssigned", "UserAssigned", "SystemAssigned, UserAssigned"),
    userAssignedIdentities={"type": "object"},
)

_DAYS = _list(_one_of("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"))
_DURATION = _object(
    ("count", "durationType"),
    count={"type": "integer", "minimum": 1, "maximum": 9999},
    durationType=_one_of("Days", "Weeks", "Months", "Years"),
)
_TIMES: Schema = _list(_MOMENT) | {"minItems": 1, "maxItems": 24}
_HOURLY = _object(
    interval={"type": "integer"}, scheduleWindowStartTime=_MOMENT, scheduleWindowDuration={"type": "integer"}
)
_SCHEDULE: Schema = {
    "oneOf": [
        _object(
            ("schedulePolicyType", "scheduleRunFrequency", "scheduleRunTimes"),
            schedulePolicyType=_one_of("SimpleSchedulePolicy"),
            scheduleRunFrequency=_one_of("Daily", "Weekly"),
            scheduleRunDays=_DAYS,
            scheduleRunTimes=_TIMES,
            scheduleWeeklyFrequency={"type": "integer", "minimum": 0},
        ),
        _object(
            ("schedulePolicyType", "scheduleRunFrequency"),
            schedulePolicyType=_one_of("SimpleSchedulePolicyV2"),
            scheduleRunFrequency=_one_of("Daily", "Weekly", "Hourly"),
            hourlySchedule=_HOURLY,
            dailySchedule=_object(scheduleRunTimes=_TIMES),
            weeklySchedule=_object(scheduleRunDays=_DAYS, scheduleRunTimes=_TIMES),
        ),
        _object(
            ("schedulePolicyType", "scheduleFrequencyInMins"),
            schedulePolicyType=_one_of("LogSchedulePolicy"),
            scheduleFrequencyInMins={"type": "integer", "minimum": 5},
        ),
    ]
}
_FORMAT: dict[str, Schema] = {
    "retentionScheduleFormatType": _one_of("Daily", "Weekly"),
    "retentionScheduleDaily": _object(daysOfTheMonth=_list(_object(date={"type": "integer"}, isLast=_FLAG))),
    "retentionScheduleWeekly": _object(
        daysOfTheWeek=_DAYS, weeksOfTheMonth=_list(_one_of("First", "Second", "Third", "Fourth", "Last"))
    ),
    "retentionTimes": _TIMES,
    "retentionDuration": _DURATION,
}
_RETENTION: Schema = {
    "oneOf": [
        _object(
            ("retentionPolicyType", "retentionDuration"),
            retentionPolicyType=_one_of("SimpleRetentionPolicy"),
            retentionDuration=_DURATION,
        ),
        _object(
            ("retentionPolicyType",),
            retentionPolicyType=_one_of("LongTermRetentionPolicy"),
            dailySchedule=_object(("retentionDuration",), retentionTimes=_TIMES, retentionDuration=_DURATION),
            weeklySchedule=_object(
                ("daysOfTheWeek", "retentionDuration"),
                daysOfTheWeek=_DAYS,
                retentionTimes=_TIMES,
                retentionDuration=_DURATION,
            ),
            monthlySchedule=_object((), **_FORMAT),
            yearlySchedule=_object((), monthsOfYear=_list(_TEXT), **_FORMAT),
        ),
    ]
}
_PART = _object(
    ("policyType", "schedulePolicy", "retentionPolicy"),
    policyType=_one_of("Full", "Differential", "Incremental", "Log"),
    schedulePolicy=_SCHEDULE,
    retentionPolicy=_RETENTION,
)
_POLICY: Schema = {
    "oneOf": [
        _object(
            ("backupManagementType", "schedulePolicy", "retentionPolicy"),
            backupManagementType=_one_of("AzureIaasVM", "MAB"),
            schedulePolicy=_SCHEDULE,
            retentionPolicy=_RETENTION,
            timeZone=_TEXT,
            instantRpRetentionRangeInDays={"type": "integer", "minimum": 1, "maximum": 30},
        ),
        _object(
            ("backupManagementType", "subProtectionPolicy"),
            backupManagementType=_one_of("AzureWorkload"),
            workLoadType=_one_of("SQLDataBase", "SAPHanaDatabase"),
            settings=_object(timeZone=_TEXT, issqlcompression=_FLAG, isCompression=_FLAG),
            subProtectionPolicy=_list(_PART),
        ),
    ]
}
_ITEM = _object(
    ("protectedItemType",),
    protectedItemType=_one_of("MabFileFolderProtectedItem", "Microsoft.Compute/virtualMachines"),
    policyId=_TEXT,
    protectionState=_one_of("ProtectionStopped", "BackupsSuspended"),
    isRehydrate=_FLAG,
    sourceResourceId=_TEXT,
    sourcePath=_TEXT,
    exclude=_list(_TEXT),
    include=_list(_TEXT),
    oneFileSystem=_FLAG,
    excludeCaches=_FLAG,
)
_RESTORE = _object(
    ("objectType", "recoveryType"),
    objectType=_one_of("FilesRestoreRequest", "ImageRestoreRequest", "IaasVMRestoreRequest"),
    recoveryType=_one_of("OriginalLocation", "AlternateLocation", "RestoreDisks"),
    storageAccountId=_TEXT,
    targetVirtualMachineId=_TEXT,
    virtualNetworkId=_TEXT,
    restoreDiskLunList=_list({"type": "integer"}),
    keepstone=_object(targetPath=_TEXT, format=_one_of(*FORMATS), disks=_list(_TEXT), safetyPoint=_FLAG),
    targetPath=_TEXT,
    paths=_list(_TEXT),
    guestPath=_TEXT,
    conflict=_one_of("overwrite", "skip", "keep-both"),
    delete=_FLAG,
    format=_one_of(*FORMATS),
)

BODIES: dict[str, Schema] = {
    "resource_groups.create_or_update": _object(("location",), location=_TEXT, tags=_TAGS),
    "resource_groups.update": _object(tags=_TAGS),
    "vaults.begin_create_or_update": _object(
        ("location",),
        location=_TEXT,
        tags=_TAGS,
        sku=_object(name=_one_of("Standard", "RS0")),
        identity=_IDENTITY,
        properties=_VAULT,
    ),
    "vaults.begin_update": _object(tags=_TAGS, identity=_IDENTITY, properties=_VAULT),
    "deleted_vaults.begin_undelete": _properties(_object(("recoveryResourceGroupId",), recoveryResourceGroupId=_TEXT)),
    "protection_policies.create_or_update": _properties(_POLICY),
    "protection_policies.what_if": _properties(_POLICY),
    "keepstone.policy_runs_foreseen": _properties(_POLICY),
    "protection_containers.begin_register": _properties(
        _object(("containerType",), containerType=_one_of("Windows"), friendlyName=_TEXT)
    ),
    "protected_items.begin_create_or_update": _properties(_ITEM),
    "backups.trigger": _object(properties=_object(objectType=_TEXT, recoveryPointExpiryTimeInUTC=_MOMENT)),
    "restores.begin_trigger": _properties(_RESTORE),
    "keepstone.mount": _properties(
        _object(
            ("targetPath",), targetPath=_TEXT, allowOther=_FLAG, targetInfo=_object(("containerId",), containerId=_TEXT)
        )
    ),
    "keepstone.unmount": _object(properties=_object(targetInfo=_object(("containerId",), containerId=_TEXT))),
    "backup_resource_vault_configs.update": _properties(
        _object(
            softDeleteFeatureState=_one_of("Enabled", "Disabled", "AlwaysON"),
            softDeleteRetentionPeriodInDays={"type": "integer", "minimum": 14, "maximum": 180},
            enhancedSecurityState=_SWITCH,
        )
    ),
    "keepstone.notification_targets_put": _properties(
        _object(("url",), url={"type": "string", "minLength": 1, "maxLength": 4096, "writeOnly": True})
    ),
    "role_assignments.create": _properties(
        _object(
            ("roleDefinitionId", "principalId"),
            roleDefinitionId=_TEXT,
            principalId=_TEXT,
            principalType=_TEXT,
            description={"type": "string", "maxLength": 1024},
        )
    ),
    "keepstone.users_put": _properties(
        _object(displayName=_TEXT, password=_PASSWORD, roleName=_TEXT, roleScope=_TEXT),
    ),
    "keepstone.users_set_password": _object(password=_PASSWORD),
    "keepstone.users_set_own_password": _object(
        ("password", "currentPassword"), password=_PASSWORD, currentPassword=_TEXT | {"writeOnly": True}
    ),
    **{
        f"management_locks.create_or_update_at_{level}_level": _properties(
            _object(("level",), level=_one_of("CanNotDelete", "ReadOnly"), notes=_TEXT)
        )
        for level in ("subscription", "resource_group", "resource")
    },
}


def schema(operation: str, verb: str) -> Schema | None:
    """The schema of a body; None for a verb that takes none."""
    if verb not in ("PUT", "PATCH", "POST"):
        return None
    return BODIES.get(operation, {"type": "object"})
