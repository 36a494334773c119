# SPDX-License-Identifier: Apache-2.0
"""What points come from: machines with an agent, and hypervisors."""

from __future__ import annotations

from keepstone.portal.actions.infrastructure import actions
from keepstone.portal.actions.offered import Offer, offer
from keepstone.portal.api import Document, Request
from keepstone.portal.places import across, vaults
from keepstone.portal.rendering import at
from keepstone.portal.visit import Answer, Page, Views, Visit

__all__ = ["views"]

views = Views()
_KNOWN = {one.name: one for one in actions}


@views("GET", "/infrastructure")
def infrastructure(visit: Visit) -> Answer:
    """Over all vaults, page by page; virtual machines are no infrastructure."""
    known = vaults(visit)
    vault = visit.text("vault")
    within = [one["id"] for one in known if not vault or one["id"] == vault]
    found, following = across(visit, within, "backupProtectionContainers")
    machines = [one for one in found if at(one, "properties.backupManagementType") == "MAB"]
    hypervisors = [one for one in found if at(one, "properties.containerType") == "GenericContainer"]
    return Page(
        "infrastructure.html",
        {
            "vaults": known,
            "vault": vault,
            "machines": [(one, _of_machine(visit, one)) for one in machines],
            "hypervisors": [(one, _of_hypervisor(visit, one)) for one in hypervisors],
            "following": following,
            "actions": _of_vault(visit, vault or within[0]) if within else [],
        },
        part="list",
    )


def _of_vault(visit: Visit, vault: str) -> list[Offer]:
    asked = {
        "credentials": Request("PUT", f"{vault}/certificates/x"),
        "register-hypervisor": Request("PUT", f"{vault}/backupFabrics/Azure/protectionContainers/x"),
        "find-machines": Request("POST", f"{vault}/backupFabrics/Azure/refreshContainers"),
    }
    return [one for name, request in asked.items() for one in offer(visit, _KNOWN[name], request, vault)]


def _of_machine(visit: Visit, machine: Document) -> list[Offer]:
    identity = machine["id"]
    found = []
    if at(machine, "properties.keepstone") and not at(machine, "properties.keepstone.revoked"):
        vault = identity.partition("/backupFabrics/")[0]
        request = Request("DELETE", f"{vault}/registeredIdentities/{machine['name']}")
        found += offer(visit, _KNOWN["revoke-agent"], request, identity)
    if not at(machine, "properties.protectedItemCount"):
        found += offer(visit, _KNOWN["unregister"], Request("DELETE", identity), identity)
    return found


def _of_hypervisor(visit: Visit, hypervisor: Document) -> list[Offer]:
    identity = hypervisor["id"]
    return offer(visit, _KNOWN["unregister"], Request("DELETE", identity), identity)
