# SPDX-License-Identifier: Apache-2.0
"""The domain of a vault in plain Python: what is kept, when it is made, and what may be done about it."""

from __future__ import annotations

from keepstone.vault.defaults import default_policies
from keepstone.vault.health import Health, health, last_runs
from keepstone.vault.policy import BackupType, Management, Part, Policy
from keepstone.vault.policy_document import read_policy
from keepstone.vault.records import (
    Agent,
    Container,
    Credential,
    Group,
    Identity,
    Item,
    Lock,
    RecoveryPoint,
    Resource,
    RoleAssignment,
    StoredPolicy,
    Vault,
    folded,
)
from keepstone.vault.retention import Days, Duration, Kept, Reason, Retention, Rule, Unit, WeekDays, judge
from keepstone.vault.schedule import Daily, Hourly, Interval, Schedule, Weekly
from keepstone.vault.stores import Stores
from keepstone.vault.zones import zone

__all__ = [
    "Agent",
    "BackupType",
    "Container",
    "Credential",
    "Daily",
    "Days",
    "Duration",
    "Group",
    "Health",
    "Hourly",
    "Identity",
    "Interval",
    "Item",
    "Kept",
    "Lock",
    "Management",
    "Part",
    "Policy",
    "Reason",
    "RecoveryPoint",
    "Resource",
    "Retention",
    "RoleAssignment",
    "Rule",
    "Schedule",
    "StoredPolicy",
    "Stores",
    "Unit",
    "Vault",
    "WeekDays",
    "Weekly",
    "default_policies",
    "folded",
    "health",
    "judge",
    "last_runs",
    "read_policy",
    "zone",
]
