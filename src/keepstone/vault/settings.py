# SPDX-License-Identifier: Apache-2.0
"""Settings that Azure shows beneath a vault as resources of their own: soft delete, redundancy, encryption. They are
kept once, in the vault's properties; here is how the one is read from the other.

Source: Microsoft.RecoveryServices, backup API 2024-04-01, BackupResourceVaultConfig, BackupResourceConfig and
BackupResourceEncryptionConfig. What such a document does not name stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keepstone.errors import InvalidRequest, Unsupported
from keepstone.vault.properties import SOFT_DELETE_DAYS

__all__ = [
    "EXTENDED",
    "check_encryption",
    "extended",
    "from_security",
    "from_storage",
    "shown_encryption",
    "shown_security",
    "shown_storage",
]

Document = dict[str, Any]

EXTENDED = ("integrityKey", "encryptionKey", "encryptionKeyThumbprint", "algorithm")
"""What an older client may keep with a vault. Keepstone itself has no use for it."""
_LONGEST = 8192
_SWITCH = ("Enabled", "Disabled")
_STATES = (*_SWITCH, "AlwaysON")
_REDUNDANCY = ("LocallyRedundant", "GeoRedundant", "ZoneRedundant", "ReadAccessGeoZoneRedundant")


def shown_security(properties: Mapping[str, Any]) -> Document:
    """backupconfig/vaultconfig. None of it is ever null: clients do not look before they use it."""
    settings = properties["securitySettings"]["softDeleteSettings"]
    always = settings["softDeleteState"] == "AlwaysON"
    return {
        "softDeleteFeatureState": settings["softDeleteState"],
        "softDeleteRetentionPeriodInDays": settings["softDeleteRetentionPeriodInDays"],
        # this document's word has no third value
        "enhancedSecurityState": "Disabled" if settings["enhancedSecurityState"] == "Disabled" else "Enabled",
        "isSoftDeleteFeatureStateEditable": not always,
    }


def from_security(sent: Mapping[str, Any], properties: Mapping[str, Any]) -> Document:
    """What to lay over the vault's properties for a vaultconfig that was sent. `InvalidRequest`."""
    settings: Document = {}
    state = _word(sent, "softDeleteFeatureState", _STATES)
    if state is not None:
        settings["softDeleteState"] = state
    enhanced = _word(sent, "enhancedSecurityState", _STATES)
    if enhanced is not None and enhanced != shown_security(properties)["enhancedSecurityState"]:
        settings["enhancedSecurityState"] = enhanced
    days = sent.get("softDeleteRetentionPeriodInDays")
    if days is not None:
        if not isinstance(days, int) or days not in SOFT_DELETE_DAYS:
            target = "properties.softDeleteRetentionPeriodInDays"
            raise InvalidRequest(f"{target} is {days!r}; soft delete lasts 14 to 180 days", target=target)
        settings["softDeleteRetentionPeriodInDays"] = days
    return {"securitySettings": {"softDeleteSettings": settings}}


def shown_storage(properties: Mapping[str, Any]) -> Document:
    """backupstorageconfig/vaultstorageconfig. The type is never locked: it may change while there are items."""
    settings = properties["redundancySettings"]
    return {
        "storageModelType": settings["standardTierStorageRedundancy"],
        "storageType": settings["standardTierStorageRedundancy"],
        "storageTypeState": "Unlocked",
        "crossRegionRestoreFlag": settings["crossRegionRestore"] == "Enabled",
        "dedupState": "Enabled",
        "xcoolState": "Disabled",
    }


def from_storage(sent: Mapping[str, Any]) -> Document:
    """What to lay over the vault's properties for a vaultstorageconfig that was sent. `InvalidRequest`, `Unsupported`.

    Of the two words for the type the model is the newer one and goes first. `dedupState` is not looked at: how a store
    lies on its storage is no setting.
    """
    settings: Document = {}
    kind = _word(sent, "storageType", _REDUNDANCY)
    kind = _word(sent, "storageModelType", _REDUNDANCY) or kind
    if kind is not None:  # the vault's properties know no fourth word, and all but the first claim the same
        settings["standardTierStorageRedundancy"] = "GeoRedundant" if kind == _REDUNDANCY[3] else kind
    flag = sent.get("crossRegionRestoreFlag")
    if flag is not None:
        if not isinstance(flag, bool):
            target = "properties.crossRegionRestoreFlag"
            raise InvalidRequest(f"{target} is {flag!r}; it has to be true or false", target=target)
        settings["crossRegionRestore"] = "Enabled" if flag else "Disabled"
    if _word(sent, "xcoolState", _SWITCH) == "Enabled":
        raise Unsupported("there is no archive tier in this version; leave properties.xcoolState Disabled")
    return {"redundancySettings": settings}


def shown_encryption() -> Document:
    """backupEncryptionConfigs/backupResourceEncryptionConfig: every vault is encrypted under a key of its own, which
    the service keeps. `MicrosoftManaged` is Azure's only word for that."""
    return {
        "encryptionAtRestType": "MicrosoftManaged",
        "lastUpdateStatus": "NotEnabled",
        "infrastructureEncryptionState": "Disabled",
        "useSystemAssignedIdentity": True,
    }


def check_encryption(sent: Mapping[str, Any]) -> None:
    """`Unsupported` for anything else than what there is, `InvalidRequest`."""
    kind = _word(sent, "encryptionAtRestType", ("MicrosoftManaged", "CustomerManaged"))
    if kind == "CustomerManaged" or sent.get("keyUri"):
        raise Unsupported(
            "keys in a key vault are not part of this version; the vault is encrypted under a key of its own, which "
            "`keepstone store key` rotates"
        )
    if _word(sent, "infrastructureEncryptionState", _SWITCH) == "Enabled":
        raise Unsupported(
            "the vault is encrypted once, by Keepstone; for a second time below it use an encrypted volume, and leave "
            "properties.infrastructureEncryptionState Disabled"
        )


def extended(sent: Mapping[str, Any]) -> Document:
    """The extended information that was sent. `InvalidRequest`."""
    kept: Document = {}
    for key, value in sent.items():
        target = f"properties.{key}"
        if key not in EXTENDED:
            raise InvalidRequest(f"{target} is not known; there may be {', '.join(EXTENDED)}", target=target)
        if value is None:
            continue
        if not isinstance(value, str) or len(value) > _LONGEST:
            raise InvalidRequest(f"{target} has to be a text of at most {_LONGEST} characters", target=target)
        kept[key] = value
    return kept


def _word(sent: Mapping[str, Any], key: str, words: tuple[str, ...]) -> str | None:
    """A word as Azure spells it; None where it is not sent. `InvalidRequest` where it is none."""
    value = sent.get(key)
    if value is None:
        return None
    for word in words:
        if isinstance(value, str) and value.casefold() == word.casefold():
            return word
    target = f"properties.{key}"
    raise InvalidRequest(f"{target} is {value!r}; choose one of {', '.join(words)}", target=target)
