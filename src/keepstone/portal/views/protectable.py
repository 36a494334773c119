# SPDX-License-Identifier: Apache-2.0
"""What could be protected and is not: virtual machines that were found, and paths of machines."""

from __future__ import annotations

from keepstone.portal.actions.offered import offer
from keepstone.portal.actions.protecting import actions
from keepstone.portal.api import Request
from keepstone.portal.places import vaults
from keepstone.portal.visit import Answer, Page, Views, Visit

__all__ = ["views"]

views = Views()


@views("GET", "/protectable")
def protectable(visit: Visit) -> Answer:
    """Of one vault: what another one protects is still to be protected in this one."""
    known = vaults(visit)
    vault = visit.text("vault") or (known[0]["id"] if known else "")
    kinds = {one.name: one for one in actions}
    machines, paths = [], []
    if vault:
        found = visit.client.every(
            f"{vault}/backupProtectableItems", **{"$filter": "backupManagementType eq 'AzureIaasVM'"}
        )
        for one in found:
            item = f"{one['id'].partition('/protectableItems/')[0]}/protectedItems/{one['id'].rpartition('/')[2]}"
            given = {"vm": one["properties"]["virtualMachineId"]}
            machines.append((one, offer(visit, kinds["protect-machine"], Request("PUT", item), vault, **given)))
        sample = f"{vault}/backupFabrics/Azure/protectionContainers/x/protectedItems/x"
        paths = offer(visit, kinds["protect-path"], Request("PUT", sample), vault)
    return Page(
        "protectable.html", {"vaults": known, "vault": vault, "machines": machines, "paths": paths}, part="list"
    )
