# SPDX-License-Identifier: Apache-2.0
"""A policy: what it says, when it runs next, which items have it."""

from __future__ import annotations

from keepstone.portal.actions.policies import offered
from keepstone.portal.places import named
from keepstone.portal.policies import words
from keepstone.portal.visit import Answer, Page, Views, Visit

__all__ = ["views"]

views = Views()


@views("GET", "/policy")
def policy(visit: Visit) -> Answer:
    """`NotFound`."""
    name = named(visit, "policy")
    found = visit.client.get(name.id)
    by_name = {"$filter": f"policyName eq '{found['name']}'"}
    (runs,) = visit.client.get(f"{name.vault_id}/backupPolicyRuns", **by_name)["value"]
    items, following = visit.client.page(f"{name.vault_id}/backupProtectedItems", visit.text("from"), **by_name)
    shown = {"policy": found, "name": name, "facts": words.said(found["properties"]), "runs": runs["properties"]}
    return Page("policy.html", shown | {"items": items, "following": following, "actions": offered(visit, found),
                                        "span": words.span})  # fmt: skip
