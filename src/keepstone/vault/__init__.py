# SPDX-License-Identifier: Apache-2.0
"""The domain of a vault in plain Python: what is kept, when it is made, and what may be done about it."""

from __future__ import annotations

from keepstone.vault.policy import BackupType, Management, Part, Policy
from keepstone.vault.retention import Days, Duration, Kept, Reason, Retention, Rule, Unit, WeekDays, judge
from keepstone.vault.schedule import Daily, Hourly, Interval, Schedule, Weekly
from keepstone.vault.whatif import Change, WhatIf, what_if
from keepstone.vault.zones import zone

__all__ = [
    "BackupType",
    "Change",
    "Daily",
    "Days",
    "Duration",
    "Hourly",
    "Interval",
    "Kept",
    "Management",
    "Part",
    "Policy",
    "Reason",
    "Retention",
    "Rule",
    "Schedule",
    "Unit",
    "WeekDays",
    "Weekly",
    "WhatIf",
    "judge",
    "what_if",
    "zone",
]
