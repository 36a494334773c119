# SPDX-License-Identifier: Apache-2.0
"""Points in the tree of a machine. Keepstone's own: Azure's instant item recovery gives a script to be run on a
machine, for points of virtual machines alone. What somebody has to be allowed is the same.
"""

from __future__ import annotations

from typing import Any

from keepstone.arm.items import path as item_path
from keepstone.arm.lro import POINT, taken_on
from keepstone.arm.points import container_of, found_point
from keepstone.arm.table import Answer, Call, Table
from keepstone.control import mounting, operations
from keepstone.errors import InvalidRequest
from keepstone.vault import Vault

__all__ = ["table"]

table = Table()
_ACTION = "Microsoft.RecoveryServices/Vaults/backupFabrics/protectionContainers/protectedItems/recoveryPoints"


@table("POST", f"{POINT}/mount", "keepstone.mount", action=f"{_ACTION}/provisionInstantItemRecovery/action")
def mount(call: Call) -> Answer:
    """A job of a machine's agent mounts the point, and goes on until it is unmounted."""
    properties = call.part("properties")
    with call.plane.change() as change:
        vault, held, item, point = found_point(call, change.connection)
        job = mounting.mount(change, vault, held, item, point, _wanted(vault, properties), call.correlation)
        operation = operations.record(change, vault.id, job=job)
    return taken_on(call, operation, item_path(vault, held, item))


@table("POST", f"{POINT}/unmount", "keepstone.unmount", action=f"{_ACTION}/revokeInstantItemRecovery/action")
def unmount(call: Call) -> Answer:
    """Everywhere, or on the machine of `targetInfo`. `NotFound` where it is not mounted."""
    properties: dict[str, Any] = {} if call.body is None else call.part("properties")
    with call.plane.change() as change:
        vault, held, item, point = found_point(call, change.connection)
        ended = mounting.unmount(change, vault, item, point, container_of(vault, properties))
        operation = operations.record(change, vault.id, job=ended[0])
    body = {"properties": {"jobIds": [str(job) for job in ended]}}
    return taken_on(call, operation, item_path(vault, held, item), body)


def _wanted(vault: Vault, properties: dict[str, Any]) -> mounting.Wanted:
    target, shared = properties.get("targetPath"), properties.get("allowOther", False)
    if not isinstance(target, str) or not target:
        raise InvalidRequest(
            f"properties.targetPath is {target!r}; name a directory of the machine", target="properties.targetPath"
        )
    if not isinstance(shared, bool):
        raise InvalidRequest("properties.allowOther has to be true or false", target="properties.allowOther")
    return mounting.Wanted(target=target, container=container_of(vault, properties), shared=shared)
