# SPDX-License-Identifier: Apache-2.0
"""Whom to tell of a vault's alerts. These are Keepstone's own: Azure routes alerts by rules around all vaults.

Who may change a vault may say where the service is to send messages; Azure's roles that see alerts see where they go.
"""

from __future__ import annotations

from typing import Any

from keepstone.arm.answers import moment, page
from keepstone.arm.table import VAULT, Answer, Call, Table
from keepstone.arm.vaults import find
from keepstone.control import courier, targets
from keepstone.control.postman import try_out
from keepstone.control.targets import Target
from keepstone.errors import InvalidRequest
from keepstone.vault import Vault

__all__ = ["table"]

table = Table()
_TARGETS = f"{VAULT}/notificationTargets"
_READ = "Microsoft.RecoveryServices/Vaults/monitoringConfigurations/read"
_WRITE = "Microsoft.RecoveryServices/Vaults/write"


@table("GET", _TARGETS, "keepstone.notification_targets_list", action=_READ)
def listing(call: Call) -> Answer:
    """All of a vault."""
    with call.plane.look() as connection:
        vault = find(call, connection)
        found = targets.listing(connection, vault)
        waiting = targets.waiting(connection, [one.id for one in found])
    return page([_document(vault, one, waiting.get(one.id, 0)) for one in found])


@table("GET", f"{_TARGETS}/{{target}}", "keepstone.notification_targets_get", action=_READ)
def get(call: Call) -> Answer:
    """`NotFound`."""
    with call.plane.look() as connection:
        vault = find(call, connection)
        found = targets.find(connection, vault, call.names["target"])
        waiting = targets.waiting(connection, [found.id])
    return Answer(body=_document(vault, found, waiting.get(found.id, 0)))


@table("PUT", f"{_TARGETS}/{{target}}", "keepstone.notification_targets_put", action=_WRITE)
def put(call: Call) -> Answer:
    """201 for a new one. Its address comes back but for what could be a secret in it."""
    with call.plane.look() as connection:
        find(call, connection)
    url = call.part("properties").get("url")
    if not isinstance(url, str) or not url:
        raise InvalidRequest("properties.url is missing; it says where to send messages", target="properties.url")
    shown = courier.shown(url)
    with call.plane.change() as change:
        vault = find(call, change.connection)
        made, new = targets.put(change, vault, call.names["target"], url, shown)
        waiting = targets.waiting(change.connection, [made.id])
    return Answer(status=201 if new else 200, body=_document(vault, made, waiting.get(made.id, 0)))


@table("DELETE", f"{_TARGETS}/{{target}}", "keepstone.notification_targets_delete", action=_WRITE)
def delete(call: Call) -> Answer:
    """204 where there is none."""
    with call.plane.change() as change:
        removed = targets.remove(change, find(call, change.connection), call.names["target"])
    return Answer(status=200 if removed else 204)


@table("POST", f"{_TARGETS}/{{target}}/test", "keepstone.notification_targets_test", action=_WRITE)
def test(call: Call) -> Answer:
    """Send it a message now, and say what became of that."""
    with call.plane.look() as connection:
        vault = find(call, connection)
        found = targets.find(connection, vault, call.names["target"])
    error = try_out(call.plane, found, vault.name)
    return Answer(body={"delivered": error is None, "error": error})


def _document(vault: Vault, target: Target, waiting: int) -> dict[str, Any]:
    return {
        "id": f"{vault.path}/notificationTargets/{target.name}",
        "name": target.name,
        "type": "Microsoft.RecoveryServices/vaults/notificationTargets",
        "properties": {
            "address": target.shown,
            "createdTime": moment(target.created),
            "lastDeliveryTime": moment(target.delivered),
            "waiting": waiting,
            "failures": target.failures,
            "lastFailureTime": moment(target.failed),
            "lastError": target.error,
            "nextAttemptTime": moment(target.due) if target.failures and waiting else None,
        },
    }
