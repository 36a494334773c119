# SPDX-License-Identifier: Apache-2.0
"""What the items of a vault cost. Keepstone's own: Azure has no such operation."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from keepstone.arm.answers import duration, moment, paged, skip_token
from keepstone.arm.table import VAULT, Answer, Call, Table
from keepstone.arm.vaults import find
from keepstone.control import footprint
from keepstone.control.footprint import Cost, Count, Found, ItemCost, PolicyCost
from keepstone.errors import InvalidRequest
from keepstone.vault import Vault

__all__ = ["table"]

table = Table()
_PAGE = 1000


@table("GET", f"{VAULT}/usages/byItem", "keepstone.usage", action="Microsoft.RecoveryServices/Vaults/usages/read")
def by_item(call: Call) -> Answer:
    """Bytes of each item, each policy and the vault, as they were last counted; 202 where that is still to be done."""
    with call.plane.look() as connection:
        vault = find(call, connection)
    found = footprint.newest(call.plane, vault, call.correlation)
    count = found.count
    if count is None:
        address = f"{call.base}{call.path}?api-version={call.query.get('api-version', '')}"
        return Answer(status=202, body=_summary(vault, found), headers={"Location": address, "Retry-After": "1"})
    at = _position(skip_token(call), count)
    rest = list(enumerate(count.items, 1))[at : at + _PAGE + 1]
    answer = paged(
        call, rest, _PAGE, lambda one: f"{one[0]} {count.began.isoformat()}", lambda one: _item(vault, one[1])
    )
    return Answer(body=answer.body | _summary(vault, found))


def _summary(vault: Vault, found: Found) -> dict[str, Any]:
    """What stands beside the items."""
    count = found.count
    properties: dict[str, Any] = {"jobId": None if found.job is None else str(found.job)}
    if count is not None:
        properties |= {
            "countedAt": moment(count.began),
            "duration": duration(timedelta(seconds=count.seconds)),
            "vault": {
                "recoveryPointCount": count.points,
                "logicalBytes": count.logical,
                "referencedBytes": count.referenced,
                "sharedBytes": count.shared,
                "deadBytes": count.dead,
                "overheadBytes": count.overhead,
                "storedBytes": count.referenced + count.dead + count.overhead,
            },
            "policies": [_policy(vault, one) for one in count.policies],
            "unknownItems": None if count.stray is None else _cost(count.stray),
            "damage": count.damage,
        }
    return {"properties": properties}


def _item(vault: Vault, one: ItemCost) -> dict[str, Any]:
    container = f"{vault.path}/backupFabrics/Azure/protectionContainers/{one.container}"
    about = {
        "friendlyName": one.friendly,
        "containerName": one.container,
        "policyName": one.policy,
        "isScheduledForDeferredDelete": one.deleted,
    }
    return {
        "id": f"{container}/protectedItems/{one.name}",
        "name": one.name,
        "type": "Microsoft.RecoveryServices/vaults/backupFabrics/protectionContainers/protectedItems",
        "properties": about | _cost(one),
    }


def _policy(vault: Vault, one: PolicyCost) -> dict[str, Any]:
    return {
        "id": f"{vault.path}/backupPolicies/{one.name}",
        "name": one.name,
        "type": "Microsoft.RecoveryServices/vaults/backupPolicies",
        "properties": {"protectedItemsCount": one.items} | _cost(one),
    }


def _cost(one: Cost) -> dict[str, int]:
    return {
        "recoveryPointCount": one.points,
        "logicalBytes": one.logical,
        "referencedBytes": one.referenced,
        "uniqueBytes": one.unique,
        "sharedBytes": one.referenced - one.unique,
    }


def _position(token: str, count: Count) -> int:
    """How many items earlier pages had. `InvalidRequest` where those were of another count."""
    if not token:
        return 0
    position, _, began = token.partition(" ")
    if began != count.began.isoformat() or not position.isdecimal():
        raise InvalidRequest(
            "the vault was counted anew since the page before; ask again from the first page", target="$skipToken"
        )
    return int(position)
