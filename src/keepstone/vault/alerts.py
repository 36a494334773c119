# SPDX-License-Identifier: Apache-2.0
"""Alerts: what people have to know, how bad it is, and when it is over.

    New -----people-----> Acknowledged -----people-----> Closed        what people did about it
    Fired ------------- its cause is gone -------------> Resolved      whether it is still so

The two do not depend on one another. Nothing is told twice: while an alert goes on, the same again (`Subject.key`) only
counts it up. One that was resolved or closed is over, and the same again is another alert; but what is found by looking
(`Rule.lasting`) is one alert for as long as it is found.

Names, severities and what raises them are Azure's (Microsoft Learn, "Azure Monitor based alerts for Azure Backup",
azure-docs 05c577bd), where Azure has them: security is critical, a job that failed is an error. Azure raises no alert
where data is deleted without soft delete, and none for immutability; Keepstone does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

__all__ = [
    "RULES",
    "Alert",
    "Category",
    "Condition",
    "Kind",
    "Rule",
    "Severity",
    "State",
    "Subject",
    "changed",
    "wanted",
]


class Severity(StrEnum):
    """Azure's, the worst first."""

    CRITICAL = "Sev0"
    ERROR = "Sev1"
    WARNING = "Sev2"
    INFORMATIONAL = "Sev3"
    VERBOSE = "Sev4"


class State(StrEnum):
    """What people did about it."""

    NEW = "New"
    ACKNOWLEDGED = "Acknowledged"
    CLOSED = "Closed"


class Condition(StrEnum):
    """Whether it is still so."""

    FIRED = "Fired"
    RESOLVED = "Resolved"


class Category(StrEnum):
    """What turns it off: for `SECURITY` and `JOBS` a setting of the vault each, for `HEALTH` nothing."""

    SECURITY = "Security"
    JOBS = "Jobs"
    HEALTH = "Health"


class Kind(StrEnum):
    """What can be wrong."""

    BACKUP_FAILURE = "BackupFailure"
    RESTORE_FAILURE = "RestoreFailure"
    JOB_FAILURE = "JobFailure"
    DATA_DELETED = "DeleteBackupData"
    DATA_UNDELETED = "UndeleteBackupData"
    PURGE_UPCOMING = "UpcomingPurge"
    PURGE_COMPLETE = "PurgeComplete"
    SOFT_DELETE_DISABLED = "SoftDeleteDisabled"
    IMMUTABILITY_WEAKENED = "ImmutabilityWeakened"
    ALERTS_DISABLED = "AlertsDisabled"
    VAULT_DELETED = "VaultDeleted"
    ITEM_UNHEALTHY = "ItemUnhealthy"
    STORE_DAMAGED = "StoreDamaged"
    JOURNAL_LAGGING = "JournalLagging"
    CERTIFICATE_ENDING = "CertificateEnding"


@dataclass(frozen=True, slots=True)
class Rule:
    """`name`: for people, Azure's where it has one. `todo`: what to do next. `lasting`: it is found by looking."""

    name: str
    category: Category
    severity: Severity
    todo: str
    lasting: bool = False


_AGAIN = "see why with `keepstone job show`; the alert ends with the next one that succeeds"
_WHO = "make sure that it was meant"

RULES = {
    Kind.BACKUP_FAILURE: Rule("Backup Failure", Category.JOBS, Severity.ERROR, _AGAIN),
    Kind.RESTORE_FAILURE: Rule("Restore Failure", Category.JOBS, Severity.ERROR, _AGAIN),
    Kind.JOB_FAILURE: Rule("Job Failure", Category.JOBS, Severity.ERROR, _AGAIN),
    Kind.DATA_DELETED: Rule(
        "Delete Backup Data", Category.SECURITY, Severity.CRITICAL,
        f"{_WHO}; `keepstone protection undelete` takes it back while soft delete lasts",
    ),
    Kind.DATA_UNDELETED: Rule(
        "Undelete Backup Data", Category.SECURITY, Severity.INFORMATIONAL,
        "the item is stopped; `keepstone protection resume` protects it again",
    ),
    Kind.PURGE_UPCOMING: Rule(
        "Upcoming Purge", Category.SECURITY, Severity.CRITICAL,
        "`keepstone protection undelete` takes it back until then", lasting=True,
    ),
    Kind.PURGE_COMPLETE: Rule(
        "Purge Complete", Category.SECURITY, Severity.CRITICAL, f"{_WHO}; it cannot be taken back",
    ),
    Kind.SOFT_DELETE_DISABLED: Rule(
        "Soft Delete Disabled for Vault", Category.SECURITY, Severity.CRITICAL,
        f"{_WHO}; what is deleted now is gone at once. `keepstone vault update` turns it on again",
    ),
    Kind.IMMUTABILITY_WEAKENED: Rule(
        "Immutability Weakened", Category.SECURITY, Severity.CRITICAL,
        f"{_WHO}; points can be deleted before their end now. `keepstone vault update` turns it on again",
    ),
    Kind.ALERTS_DISABLED: Rule(
        "Security Alerts Disabled", Category.SECURITY, Severity.CRITICAL,
        f"{_WHO}; nobody is told of deletions in this vault now",
    ),
    Kind.VAULT_DELETED: Rule(
        "Vault Deleted", Category.SECURITY, Severity.CRITICAL,
        f"{_WHO}; `az backup deleted-vault undelete` takes it back while soft delete lasts",
    ),
    Kind.ITEM_UNHEALTHY: Rule(
        "Item Unhealthy", Category.HEALTH, Severity.ERROR,
        "see its jobs with `keepstone job list`, and back it up with `keepstone protection backup-now`", lasting=True,
    ),
    Kind.STORE_DAMAGED: Rule(
        "Store Damaged", Category.HEALTH, Severity.CRITICAL,
        "put the named objects back from a copy; `keepstone store verify --deep` says which points they hit. The alert "
        "ends with a verification that finds nothing",
    ),
    Kind.JOURNAL_LAGGING: Rule(
        "Journal Lagging", Category.HEALTH, Severity.WARNING,
        "see the service's log for why; should the database be lost now, `keepstone vault rebuild` would miss them",
        lasting=True,
    ),
    Kind.CERTIFICATE_ENDING: Rule(
        "Certificate Ending", Category.HEALTH, Severity.WARNING, "`keepstone doctor` says what to do", lasting=True,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What an alert is about. `vault`: None for the service itself. `item`: None for all of the vault. `part`: which of
    several things of this kind: a part of the policy, or an operation."""

    kind: Kind
    vault: UUID | None = None
    item: UUID | None = None
    part: str = ""

    @property
    def key(self) -> str:
        """The same for what is one alert."""
        vault, item = (one.hex if one is not None else "" for one in (self.vault, self.item))
        return f"{self.kind}/{vault}/{item}/{self.part}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Fields mean what the columns of the same name mean (`catalogue/tables/alerts.py`)."""

    id: UUID
    vault: UUID | None
    item: UUID | None
    kind: Kind
    resource: str
    entity: str
    message: str
    state: State
    condition: Condition
    count: int
    raised: datetime
    last: datetime
    changed: datetime
    job: UUID | None = None
    resolved: datetime | None = None
    ended: datetime | None = None
    by: str | None = None

    @property
    def rule(self) -> Rule:
        """What is true of all of its kind."""
        return RULES[self.kind]

    @property
    def path(self) -> str:
        """Its resource id."""
        return f"{self.resource}/providers/Microsoft.AlertsManagement/alerts/{self.id}"


_JOBS = ("monitoringSettings", "azureMonitorAlertSettings", "alertsForAllJobFailures")
_CRITICAL = ("monitoringSettings", "classicAlertSettings", "alertsForCriticalOperations")
_SOFT_DELETE = ("securitySettings", "softDeleteSettings", "softDeleteState")
_IMMUTABILITY = ("securitySettings", "immutabilitySettings", "state")
_STRENGTH = ("Disabled", "Unlocked", "Locked")


def wanted(kind: Kind, properties: Mapping[str, Any]) -> bool:
    """Whether a vault with these properties has alerts of this kind."""
    match RULES[kind].category:
        case Category.JOBS:
            return bool(_get(properties, _JOBS) != "Disabled")
        case Category.SECURITY:
            return bool(_get(properties, _CRITICAL) != "Disabled")
        case _:
            return True


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[Kind, bool]:
    """What a change of a vault's properties means for its protection: True for what is wrong now, False for what is
    well again. Whether anybody is told is for `before` to say: nobody turns alerts off unseen."""
    found: dict[Kind, bool] = {}
    for kind, path in ((Kind.SOFT_DELETE_DISABLED, _SOFT_DELETE), (Kind.ALERTS_DISABLED, _CRITICAL)):
        was, is_ = (_get(one, path) == "Disabled" for one in (before, after))
        if was != is_:
            found[kind] = is_
    was_strong, is_strong = (_STRENGTH.index(_get(one, _IMMUTABILITY) or "Disabled") for one in (before, after))
    if was_strong != is_strong:
        found[Kind.IMMUTABILITY_WEAKENED] = is_strong < was_strong
    return found


def _get(document: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = document
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
