# SPDX-License-Identifier: Apache-2.0
"""Policies, of one vault or of all: when each makes points and how long it keeps them."""

from __future__ import annotations

from keepstone.portal.actions.policies import create
from keepstone.portal.places import across, name_of, vaults
from keepstone.portal.policies import words
from keepstone.portal.speech import later
from keepstone.portal.visit import Answer, Page, Views, Visit

__all__ = ["views"]

views = Views()
KINDS = {"": later("everything"), **words.KINDS}


@views("GET", "/policies")
def policies(visit: Visit) -> Answer:
    """Page by page, as the filter says."""
    known = vaults(visit)
    vault, kind = visit.text("vault"), visit.text("kind")
    within = [one["id"] for one in known if not vault or one["id"] == vault]
    wanted = {"$filter": f"backupManagementType eq '{kind}'"} if kind in words.KINDS else {}
    found, following = across(visit, within, "backupPolicies", **wanted)
    runs = {}
    for identity in dict.fromkeys(name_of(one["id"]).vault_id for one in found):
        for one in visit.client.every(f"{identity}/backupPolicyRuns"):
            runs[identity, one["name"]] = one["properties"]["nextRuns"]
    rows = [(one, runs.get((name_of(one["id"]).vault_id, one["name"]), [])) for one in found]
    may = [one for one in known if (not vault or one["id"] == vault) and create(visit, one)]
    shown = {"rows": rows, "following": following, "vaults": known, "kinds": KINDS, "vault": vault, "kind": kind}
    return Page("policies.html", shown | {"may": may, "words": words}, part="list")
