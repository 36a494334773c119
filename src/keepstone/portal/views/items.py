# SPDX-License-Identifier: Apache-2.0
"""Protected items, of one vault or of all."""

from __future__ import annotations

from keepstone.portal.places import across, vaults
from keepstone.portal.policies import words
from keepstone.portal.speech import later
from keepstone.portal.visit import Answer, Page, Views, Visit

__all__ = ["views"]

views = Views()
KINDS = {"": later("all kinds"), **{kind: words.KINDS[kind] for kind in ("AzureIaasVM", "MAB")}}
STATES = {
    "": later("any health"),
    "Healthy": later("healthy"),
    "Unhealthy": later("unhealthy"),
    "IRPending": later("waiting for a first point"),
}


@views("GET", "/items")
def items(visit: Visit) -> Answer:
    """Page by page, as the filter says."""
    known = vaults(visit)
    vault, kind, health = visit.text("vault"), visit.text("kind"), visit.text("health")
    within = [one["id"] for one in known if not vault or one["id"] == vault]
    parts = {"backupManagementType": kind, "healthState": health}
    wanted = " and ".join(f"{name} eq '{value}'" for name, value in parts.items() if value)
    found, following = across(visit, within, "backupProtectedItems", **({"$filter": wanted} if wanted else {}))
    shown = {"items": found, "following": following, "vaults": known, "kinds": KINDS, "states": STATES}
    return Page("items.html", shown | {"vault": vault, "kind": kind, "health": health}, part="list")
