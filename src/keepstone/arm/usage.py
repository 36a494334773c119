# SPDX-License-Identifier: Apache-2.0
"""How much a vault is used. Source: Microsoft.RecoveryServices, Usages 2024-04-01; backup API 2024-04-01,
BackupUsageSummaries."""

from __future__ import annotations

from typing import Any

from keepstone.arm.answers import page
from keepstone.arm.filters import filter_of
from keepstone.arm.table import VAULT, Answer, Call, Table
from keepstone.arm.vaults import find
from keepstone.control import usage
from keepstone.control.usage import Usage
from keepstone.errors import InvalidFilter
from keepstone.vault import folded

__all__ = ["table"]

table = Table()
_ITEMS, _CONTAINERS = "BackupProtectedItemCountSummary", "BackupProtectionContainerCountSummary"


@table("GET", f"{VAULT}/usages", "usages.list_by_vaults", action="Microsoft.RecoveryServices/Vaults/usages/read")
def usages(call: Call) -> Answer:
    """Counts and bytes; nothing has a limit."""
    with call.plane.look() as connection:
        found = usage.of_vault(connection, find(call, connection), call.plane.env.utc())
    return page([_document(one) for one in found])


@table("GET", f"{VAULT}/backupUsageSummaries", "backup_usage_summaries.list",
       action="Microsoft.RecoveryServices/Vaults/backupUsageSummaries/read")  # fmt: skip
def summaries(call: Call) -> Answer:
    """Items or containers by their management, as `$filter` says."""
    kind = filter_of(call, ("type",)).get("type", _ITEMS)
    if folded(kind) not in (folded(_ITEMS), folded(_CONTAINERS)):
        raise InvalidFilter(f"$filter has the type {kind!r}; choose {_ITEMS} or {_CONTAINERS}")
    count = usage.of_items if folded(kind) == folded(_ITEMS) else usage.of_containers
    with call.plane.look() as connection:
        found = count(connection, find(call, connection))
    return page([_document(Usage(name=name, label=name, value=value)) for name, value in found.items()])


def _document(one: Usage) -> dict[str, Any]:
    document: dict[str, Any] = {
        "unit": one.unit,
        "currentValue": one.value,
        "limit": -1,
        "name": {"value": one.name, "localizedValue": one.label},
    }
    if one.period is not None:
        document["quotaPeriod"] = one.period
    return document
