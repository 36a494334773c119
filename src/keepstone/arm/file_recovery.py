# SPDX-License-Identifier: Apache-2.0
"""Recovery of files out of a point's disks by a script, Azure's instant item recovery. Source: backup API 2024-04-01,
ItemLevelRecoveryConnections; 2026-08-01, listInstantItemRecoveryOperationResult, which is how newer clients get the
script. Older ones read it out of the operation's status (OperationStatusProvisionILRExtendedInfo).

There is one script, of Linux: Windows has no client of the protocol that the disks are served by.
"""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import urlsplit

from keepstone.arm.items import path as item_path
from keepstone.arm.lro import POINT, taken_on
from keepstone.arm.points import found_point
from keepstone.arm.table import Answer, Call, Table
from keepstone.control import file_recovery, operations
from keepstone.control.attaching import EXTENSION
from keepstone.control.plane import Change
from keepstone.errors import InvalidRequest
from keepstone.vault import Item, RecoveryPoint, folded

__all__ = ["table"]

table = Table()
_ACTION = "Microsoft.RecoveryServices/Vaults/backupFabrics/protectionContainers/protectedItems/recoveryPoints"
_REQUEST = "IaasVMILRRegistrationRequest"


@table("POST", f"{POINT}/provisionInstantItemRecovery", "item_level_recovery_connections.provision",
       action=f"{_ACTION}/provisionInstantItemRecovery/action", az=("backup restore files mount-rp",))  # fmt: skip
def provision(call: Call) -> Answer:
    """The operation is over when the disks are served."""
    with call.plane.change() as change:
        vault, held, item, point = found_point(call, change.connection)
        kind = str(call.part("properties").get("objectType", ""))
        if folded(kind) != folded(_REQUEST):
            raise InvalidRequest(f"properties.objectType is {kind!r}; write {_REQUEST}", target="properties.objectType")
        job = file_recovery.begin(change, vault, held, item, point, call.correlation)
        operation = operations.record(change, vault.id, job=job, wait=True)
    return taken_on(call, operation, item_path(vault, held, item))


@table("POST", f"{POINT}/listInstantItemRecoveryOperationResult",
       "item_level_recovery_connections.list_instant_item_recovery_operation_result",
       action=f"{_ACTION}/provisionInstantItemRecovery/action", az=("backup restore files mount-rp",))  # fmt: skip
def result(call: Call) -> Answer:
    """A new script. `NotFound` where the point is not served, `Conflict` where it is not yet."""
    with call.plane.change() as change:
        vault, _, item, point = found_point(call, change.connection)
        operations.find(change.connection, call.text("provisionInstantItemRecoveryOperationId"), vault.id)
        return Answer(body={"clientScripts": [_script(call, change, item, point)]})


@table("POST", f"{POINT}/revokeInstantItemRecovery", "item_level_recovery_connections.revoke",
       action=f"{_ACTION}/revokeInstantItemRecovery/action", az=("backup restore files unmount-rp",))  # fmt: skip
def revoke(call: Call) -> Answer:
    """The operation is over when nobody gets anything of it any more. Where nothing is served there is nothing to
    do."""
    with call.plane.change() as change:
        vault, held, item, point = found_point(call, change.connection)
        ended = file_recovery.revoke(change, item, point)
        operation = operations.record(change, vault.id, job=ended[0] if ended else None, wait=bool(ended))
    return taken_on(call, operation, item_path(vault, held, item))


def _script(call: Call, change: Change, item: Item, point: RecoveryPoint) -> dict[str, Any]:
    host = urlsplit(call.base).hostname or "localhost"
    authority = (call.plane.root / "tls" / "ca.pem").read_bytes()
    made = file_recovery.issue(change, item, point, host, authority)
    return {
        "osType": "Linux",
        "scriptExtension": EXTENSION,
        "scriptNameSuffix": made.suffix,
        "scriptContent": base64.b64encode(made.content.encode()).decode(),
        "url": None,
    }
