# SPDX-License-Identifier: Apache-2.0
"""Jobs, of one vault or of all, the newest first."""

from __future__ import annotations

from datetime import timedelta

from keepstone.portal.places import across, vaults
from keepstone.portal.speech import later
from keepstone.portal.visit import Answer, Page, Views, Visit

__all__ = ["views"]

views = Views()
STATES = {
    "": later("any state"),
    "InProgress": later("in progress"),
    "Failed": later("failed"),
    "CompletedWithWarnings": later("completed with warnings"),
    "Completed": later("completed"),
    "Cancelled": later("cancelled"),
}
TIMES = {"": later("any time"), "day": later("the last 24 hours"), "week": later("the last 7 days")}
_DAYS = {"day": 1, "week": 7}


@views("GET", "/jobs")
def jobs(visit: Visit) -> Answer:
    """Page by page, as the filter says."""
    known = vaults(visit)
    vault, state = visit.text("vault"), visit.text("status")
    within = [one["id"] for one in known if not vault or one["id"] == vault]
    since = visit.text("since") if visit.text("since") in TIMES else ""
    parts = [f"status eq '{state}'"] if state else []
    if since:
        begin = visit.plane.env.utc() - timedelta(days=_DAYS[since])
        parts.append(f"startTime eq '{begin:%Y-%m-%d %H:%M:%S}'")
    wanted = {"$filter": " and ".join(parts)} if parts else {}
    found, following = across(visit, within, "backupJobs", **wanted)
    if not following and not visit.text("from") and len(within) > 1:
        found.sort(key=lambda job: str(job["properties"]["startTime"]), reverse=True)
    shown = {"jobs": found, "following": following, "vaults": known, "states": STATES, "vault": vault, "state_": state}
    return Page("jobs.html", shown | {"times": TIMES, "since": since}, part="list")
