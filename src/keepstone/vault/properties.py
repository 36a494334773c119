# SPDX-License-Identifier: Apache-2.0
"""The properties of a vault, as ARM has them: what a new one has, what may be set, and which changes are refused.

Words are told without regard to case and kept as Azure spells them; what Keepstone does not know is kept as it is. Two
settings only ever go one way: soft delete that is always on, and immutability that is locked (Microsoft Learn,
"Secure by default with Azure Backup" and "Immutable vault for Azure Backup").

Wider than Azure: redundancy may change while there are items. Narrower, for now: a store lies in one place, so a vault
is LocallyRedundant, and what would claim more is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from keepstone.errors import GuardRefused, InvalidRequest, Unsupported

__all__ = ["SOFT_DELETE_DAYS", "SoftDelete", "check_name", "is_immutable", "merged", "new_properties", "soft_delete"]

Document = dict[str, Any]

SOFT_DELETE_DAYS = range(14, 181)
_SWITCH = ("Enabled", "Disabled")
_SOFT_DELETE = ("securitySettings", "softDeleteSettings")
_IMMUTABILITY = ("securitySettings", "immutabilitySettings")

_DEFAULTS: Document = {
    "publicNetworkAccess": "Enabled",
    "monitoringSettings": {
        "azureMonitorAlertSettings": {
            "alertsForAllJobFailures": "Enabled",
            "alertsForAllReplicationIssues": "Enabled",
            "alertsForAllFailoverIssues": "Enabled",
        },
        "classicAlertSettings": {
            "alertsForCriticalOperations": "Enabled",
            "emailNotificationsForSiteRecovery": "Enabled",
        },
    },
    "securitySettings": {
        "immutabilitySettings": {"state": "Disabled"},
        "softDeleteSettings": {
            "softDeleteState": "Enabled",
            "enhancedSecurityState": "Enabled",
            "softDeleteRetentionPeriodInDays": 14,
        },
        "sourceScanConfiguration": {"state": "Disabled"},
    },
    "redundancySettings": {"standardTierStorageRedundancy": "LocallyRedundant", "crossRegionRestore": "Disabled"},
    "restoreSettings": {"crossSubscriptionRestoreSettings": {"crossSubscriptionRestoreState": "Enabled"}},
    "costManagementSettings": {"granularityLevel": "VaultLevel"},
}

_WORDS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("publicNetworkAccess",): _SWITCH,
    ("monitoringSettings", "azureMonitorAlertSettings", "alertsForAllJobFailures"): _SWITCH,
    ("monitoringSettings", "azureMonitorAlertSettings", "alertsForAllReplicationIssues"): _SWITCH,
    ("monitoringSettings", "azureMonitorAlertSettings", "alertsForAllFailoverIssues"): _SWITCH,
    ("monitoringSettings", "classicAlertSettings", "alertsForCriticalOperations"): _SWITCH,
    ("monitoringSettings", "classicAlertSettings", "emailNotificationsForSiteRecovery"): _SWITCH,
    (*_IMMUTABILITY, "state"): ("Disabled", "Unlocked", "Locked"),
    (*_IMMUTABILITY, "configuration", "type"): ("AsPerPolicy", "TimeBased"),
    (*_SOFT_DELETE, "softDeleteState"): ("Enabled", "Disabled", "AlwaysON"),
    (*_SOFT_DELETE, "enhancedSecurityState"): ("Enabled", "Disabled", "AlwaysON"),
    ("securitySettings", "sourceScanConfiguration", "state"): _SWITCH,
    ("redundancySettings", "standardTierStorageRedundancy"): ("LocallyRedundant", "GeoRedundant", "ZoneRedundant"),
    ("redundancySettings", "crossRegionRestore"): _SWITCH,
    ("restoreSettings", "crossSubscriptionRestoreSettings", "crossSubscriptionRestoreState"): (
        *_SWITCH,
        "PermanentlyDisabled",
    ),
    ("costManagementSettings", "granularityLevel"): (
        "VaultLevel",
        "ProtectedItemLevel",
        "ProtectedItemWithParentTag",
    ),
}
# What the service alone says.
_READ_ONLY = (
    "provisioningState",
    "upgradeDetails",
    "privateEndpointConnections",
    "privateEndpointStateForBackup",
    "privateEndpointStateForSiteRecovery",
    "moveState",
    "moveDetails",
    "backupStorageVersion",
    "secureScore",
    "bcdrSecurityLevel",
    "resourceGuardOperationRequests",
)


class SoftDelete:
    """What a vault's settings say of soft delete. `days`: how long something that was deleted can be taken back."""

    def __init__(self, properties: Mapping[str, Any]) -> None:
        settings = properties["securitySettings"]["softDeleteSettings"]
        self.state: str = settings["softDeleteState"]
        self.days: int = settings["softDeleteRetentionPeriodInDays"] if self.state != "Disabled" else 0


def soft_delete(properties: Mapping[str, Any]) -> SoftDelete:
    """Of these properties."""
    return SoftDelete(properties)


def is_immutable(properties: Mapping[str, Any]) -> bool:
    """Whether points stay until their time is over, whoever asks; locked for good or not."""
    return bool(properties["securitySettings"]["immutabilitySettings"]["state"] != "Disabled")


def new_properties(sent: Mapping[str, Any]) -> Document:
    """The properties of a vault that is made with these. `InvalidRequest`, `Unsupported`.

    Clients ask for soft delete that is always on for every vault, and expect a service that is free to discard it:
    here a vault begins with what can be taken back, and it is made irreversible by a change that says so.
    """
    properties = merged(_DEFAULTS, sent)
    settings = properties["securitySettings"]["softDeleteSettings"]
    for key in ("softDeleteState", "enhancedSecurityState"):
        if settings[key] == "AlwaysON":
            settings[key] = "Enabled"
    return properties


def merged(old: Mapping[str, Any], sent: Mapping[str, Any]) -> Document:
    """The properties `old` with what was sent laid over them. `InvalidRequest`, `Unsupported`; `GuardRefused` for a
    step back from what only goes one way."""
    new = _laid_over(deepcopy(dict(old)), {key: value for key, value in sent.items() if key not in _READ_ONLY}, "")
    for path, words in _WORDS.items():
        _spell(new, path, words)
    days = _get(new, (*_SOFT_DELETE, "softDeleteRetentionPeriodInDays"))
    if isinstance(days, bool) or not isinstance(days, int) or days not in SOFT_DELETE_DAYS:
        raise InvalidRequest(
            f"soft delete lasts 14 to 180 days, not {days!r}",
            target="properties.securitySettings.softDeleteSettings.softDeleteRetentionPeriodInDays",
        )
    _check_one_way(old, new)
    redundancy = new["redundancySettings"]
    if (
        redundancy["standardTierStorageRedundancy"] != "LocallyRedundant"
        or redundancy["crossRegionRestore"] == "Enabled"
    ):
        raise Unsupported(
            "the vault's store lies in one place, so it is LocallyRedundant without cross-region restore; copies in "
            "other places are not part of this version"
        )
    if _get(new, ("encryption", "keyVaultProperties", "keyUri")):
        raise Unsupported(
            "keys in a key vault are not part of this version; the vault is encrypted under a key of its own, which "
            "`keepstone store key` rotates"
        )
    return new


def check_name(name: str) -> None:
    """`InvalidRequest` for what is no name of a vault: 2 to 50 letters, digits and hyphens, the first one a letter."""
    letters = name.isascii() and all(one.isalnum() or one == "-" for one in name)
    if not (2 <= len(name) <= 50 and letters and name[0].isalpha()):
        raise InvalidRequest(
            f"'{name}' is no name for a vault; take 2 to 50 letters, digits and hyphens, beginning with a letter",
            target="name",
            code="InvalidResourceName",
        )


def _check_one_way(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    for path, last, what in (
        ((*_SOFT_DELETE, "softDeleteState"), "AlwaysON", "soft delete is always on in this vault, and stays so"),
        ((*_SOFT_DELETE, "enhancedSecurityState"), "AlwaysON", "enhanced security is always on, and stays so"),
        ((*_IMMUTABILITY, "state"), "Locked", "immutability is locked in this vault, and stays so"),
    ):
        if _get(old, path) == last and _get(new, path) != last:
            raise GuardRefused(f"{what}; leave properties.{'.'.join(path)} as it is")
    days = (*_SOFT_DELETE, "softDeleteRetentionPeriodInDays")
    if _get(old, (*_SOFT_DELETE, "softDeleteState")) == "AlwaysON" and _get(new, days) < _get(old, days):
        raise GuardRefused("soft delete is always on in this vault, and its days only rise")


def _laid_over(old: Document, sent: Mapping[str, Any], path: str) -> Document:
    for key, value in sent.items():
        place = f"{path}.{key}"
        if isinstance(value, Mapping):
            below = old.get(key)
            old[key] = _laid_over(below if isinstance(below, dict) else {}, value, place)
        elif isinstance(old.get(key), dict) and value is not None:
            raise InvalidRequest(f"properties{place} has to be an object", target=f"properties{place}")
        elif value is not None:
            old[key] = deepcopy(value)
    return old


def _get(document: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = document
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _spell(document: Document, path: tuple[str, ...], words: tuple[str, ...]) -> None:
    """Write a word as Azure does. `InvalidRequest` where it is none."""
    holder = _get(document, path[:-1])
    if not isinstance(holder, dict) or holder.get(path[-1]) is None:
        return
    value = holder[path[-1]]
    for word in words:
        if isinstance(value, str) and value.casefold() == word.casefold():
            holder[path[-1]] = word
            return
    place = "properties." + ".".join(path)
    raise InvalidRequest(f"{place} is {value!r}; choose one of {', '.join(words)}", target=place)
