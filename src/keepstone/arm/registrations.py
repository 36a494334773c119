# SPDX-License-Identifier: Apache-2.0
"""Machines that registered themselves with a vault: how Azure's older clients take one out again. Source:
Microsoft.RecoveryServices, RegisteredIdentities 2024-04-01."""

from __future__ import annotations

from keepstone.arm.table import VAULT, Answer, Call, Table
from keepstone.arm.vaults import find
from keepstone.control import agents, containers
from keepstone.vault import folded

__all__ = ["table"]

table = Table()


@table("DELETE", f"{VAULT}/registeredIdentities/{{container}}", "registered_identities.delete",
       action="Microsoft.RecoveryServices/Vaults/registeredIdentities/delete",
       az=("backup container unregister",))  # fmt: skip
def delete(call: Call) -> Answer:
    """204, also where there is none. A machine is named by its container's name or by its own. One that has items
    loses its agent, and nothing else. `NotEmpty` where it has items and no agent."""
    name = call.names["container"]
    with call.plane.change() as change:
        vault = find(call, change.connection)
        known = containers.listing(change.connection, vault, kind=containers.MACHINE)
        for container in known:
            if folded(name) in (folded(container.name), folded(container.friendly)):
                agents.dismiss(change, vault, container)
    return Answer(status=204)
