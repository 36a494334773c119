# SPDX-License-Identifier: Apache-2.0
"""Alerts: what people have to know, what they did about it, and who is told."""

from __future__ import annotations

from keepstone.portal.actions.alerts import ALERTS, offered, path_of
from keepstone.portal.api import Document, Request
from keepstone.portal.places import subscription, vaults
from keepstone.portal.severities import SEVERITIES
from keepstone.portal.speech import later
from keepstone.portal.visit import Answer, Page, Views, Visit

__all__ = ["views"]

views = Views()
STATES = {"": later("any state"), "New": later("new"), "Acknowledged": later("acknowledged"), "Closed": later("closed")}
CONDITIONS = {"": later("still so or not"), "Fired": later("still so"), "Resolved": later("well again")}
_SEVERITIES = {"": later("any severity")} | {name: one.title for name, one in SEVERITIES.items()}
_PAGE = "100"


@views("GET", "/alerts")
def alerts(visit: Visit) -> Answer:
    """Those of the last 30 days that he may see, the newest first, as the filter says."""
    known = vaults(visit)
    vault = next((one["id"] for one in known if one["id"] == visit.text("vault")), "")
    choices = {"severity": _SEVERITIES, "state": STATES, "condition": CONDITIONS}
    chosen = {name: visit.text(name) if visit.text(name) in each else "" for name, each in choices.items()}
    asked = {"severity": chosen["severity"], "alertState": chosen["state"], "monitorCondition": chosen["condition"]}
    found, following = visit.client.page(
        f"{vault or subscription(visit)}/{ALERTS}",
        visit.text("from"),
        includeContext="true",
        timeRange="30d",
        pageCount=_PAGE,
        **{key: value for key, value in asked.items() if value},
    )
    shown = {"alerts": found, "following": following, "vaults": known, "vault": vault, "choices": choices}
    told = [(one, _targets(visit, one)) for one in known if vault in ("", one["id"])]
    return Page("alerts.html", shown | {"chosen_": chosen, "severities": SEVERITIES, "targets": told}, part="list")


@views("GET", "/alert")
def alert(visit: Visit) -> Answer:
    """`NotFound`."""
    found = visit.client.get(path_of(visit))
    about = found["properties"]
    job = ""
    if about["context"]["jobId"] and about["essentials"]["targetResourceGroup"]:
        job = f"{about['essentials']['targetResource']}/backupJobs/{about['context']['jobId']}"
    shown = {"alert": found, "severities": SEVERITIES, "job": job, "actions": offered(visit, found)}
    return Page("alert.html", shown)


def _targets(visit: Visit, vault: Document) -> list[Document] | None:
    """Who is told of a vault's alerts; None where he may not know."""
    path = f"{vault['id']}/notificationTargets"
    return list(visit.client.every(path)) if visit.client.allows(Request("GET", path)) else None
