# SPDX-License-Identifier: Apache-2.0
"""The policies that a new vault has. The first three are Azure's, value by value; the last one is for files, for which
Azure's service has none."""

from __future__ import annotations

from datetime import datetime
from typing import Any

__all__ = ["default_policies"]


def default_policies(created: datetime) -> dict[str, dict[str, Any]]:
    """Their properties by name. `created`: the day of the vault; only the times of the day count."""
    day = f"{created:%Y-%m-%d}T"
    afternoon, morning = f"{day}16:00:00Z", f"{day}08:00:00Z"

    def daily(at: str) -> dict[str, Any]:
        return {
            "schedulePolicyType": "SimpleSchedulePolicy",
            "scheduleRunFrequency": "Daily",
            "scheduleRunTimes": [at],
            "scheduleWeeklyFrequency": 0,
        }

    def kept(at: str) -> dict[str, Any]:
        duration = {"count": 30, "durationType": "Days"}
        return {
            "retentionPolicyType": "LongTermRetentionPolicy",
            "dailySchedule": {"retentionTimes": [at], "retentionDuration": duration},
        }

    virtual_machine = {
        "backupManagementType": "AzureIaasVM",
        "instantRPDetails": {},
        "instantRpRetentionRangeInDays": 2,
        "timeZone": "UTC",
    }
    window = {"interval": 4, "scheduleWindowStartTime": morning, "scheduleWindowDuration": 12}
    return {
        "DefaultPolicy": virtual_machine | {"schedulePolicy": daily(afternoon), "retentionPolicy": kept(afternoon)},
        "EnhancedPolicy": virtual_machine
        | {
            "policyType": "V2",
            "schedulePolicy": {
                "schedulePolicyType": "SimpleSchedulePolicyV2",
                "scheduleRunFrequency": "Hourly",
                "hourlySchedule": window,
            },
            "retentionPolicy": kept(morning),
        },
        "HourlyLogBackup": {
            "backupManagementType": "AzureWorkload",
            "workLoadType": "SQLDataBase",
            "settings": {"timeZone": "UTC", "issqlcompression": False, "isCompression": False},
            "subProtectionPolicy": [
                {"policyType": "Full", "schedulePolicy": daily(afternoon), "retentionPolicy": kept(afternoon)},
                {
                    "policyType": "Log",
                    "schedulePolicy": {"schedulePolicyType": "LogSchedulePolicy", "scheduleFrequencyInMins": 60},
                    "retentionPolicy": {
                        "retentionPolicyType": "SimpleRetentionPolicy",
                        "retentionDuration": {"count": 30, "durationType": "Days"},
                    },
                },
            ],
        },
        "FilesPolicy": {
            "backupManagementType": "MAB",
            "schedulePolicy": daily(afternoon),
            "retentionPolicy": kept(afternoon),
            "timeZone": "UTC",
        },
    }
