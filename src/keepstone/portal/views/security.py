# SPDX-License-Identifier: Apache-2.0
"""Security: the level of each vault as Azure's Business Continuity Center tells it, and what would mend it.

Maximum wants multi-user authorisation as well, which is not part of this version: so Adequate is the most that a vault
reaches, and the page says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from keepstone.errors import KeepstoneError
from keepstone.portal.actions.known import ACTIONS
from keepstone.portal.actions.offered import Offer, offer
from keepstone.portal.actions.people import USERS
from keepstone.portal.api import Document, Request
from keepstone.portal.kits import kits, unconfirmed
from keepstone.portal.navigation import ENTRIES
from keepstone.portal.places import vaults
from keepstone.portal.rendering import ago, at, link, moment_of
from keepstone.portal.speech import _, counted
from keepstone.portal.visit import Answer, Page, Views, Visit

__all__ = ["INSTALLATION", "views"]

views = Views()
INSTALLATION = "/providers/Keepstone.Service/installation"
_SECURITY = "properties.securitySettings"
_OLD = timedelta(days=365)  # of a password
_SOON = timedelta(days=30)  # before a certificate ends
_EVERYTHING = "/"


@dataclass(frozen=True, slots=True)
class Check:
    """`tone`: good, warning or bad. `state`: in a word; `says`: what it means. `command`: mends it at a terminal, where
    no action of the portal does."""

    title: str
    tone: str
    state: str
    says: str
    offers: list[Offer]
    command: str = ""


@views("GET", "/security")
def security(visit: Visit) -> Answer:
    """Of all vaults that he may see, and of the service."""
    kept = kits(visit)
    found = [(one, list(_of_vault(visit, one, kept.get(one["id"].casefold())))) for one in vaults(visit)]
    installation = {}
    if visit.client.allows(Request("GET", INSTALLATION)):
        installation = visit.client.get(INSTALLATION)["properties"]
    service = list(_of_service(visit, installation))
    every = [check for one in found for check in one[1]] + service
    shown = {
        "vaults": found,
        "service": service,
        "good": sum(check.tone == "good" for check in every),
        "all": len(every),
        "release": installation.get("release"),
        "unconfirmed": unconfirmed(visit),
    }
    return Page("security.html", shown)


def _of_vault(visit: Visit, vault: Document, kit: Document | None) -> Iterator[Check]:
    path = vault["id"]
    patch = Request("PATCH", path)
    soft = at(vault, f"{_SECURITY}.softDeleteSettings.softDeleteState", "Disabled")
    days = at(vault, f"{_SECURITY}.softDeleteSettings.softDeleteRetentionPeriodInDays", 0)
    tone, state, says = {
        "AlwaysON": (
            "good",
            _("Always on"),
            _("What is deleted can be taken back for %(days)s days, for ever so.", days=days),
        ),
        "Enabled": (
            "warning",
            _("On"),
            _("What is deleted can be taken back for %(days)s days. It can be turned off.", days=days),
        ),
    }.get(soft, ("bad", _("Off"), _("What anybody deletes is gone at once.")))
    yield Check(_("Soft delete"), tone, state, says, offer(visit, ACTIONS["soft-delete"], patch, path))
    immutable = at(vault, f"{_SECURITY}.immutabilitySettings.state", "Disabled")
    tone, state, says = {
        "Locked": ("good", _("Locked"), _("No point goes before its time, and nobody can change that.")),
        "Unlocked": ("warning", _("On"), _("No point goes before its time. It can be turned off.")),
    }.get(immutable, ("warning", _("Off"), _("Points can be deleted before their time, by who may delete them.")))
    yield Check(_("Immutability"), tone, state, says, offer(visit, ACTIONS["immutability"], patch, path))
    if kit is not None:
        yield _of_kit(visit, path, kit)
    yield from _of_targets(visit, vault)


def _of_kit(visit: Visit, path: str, kit: Document) -> Check:
    if kit["properties"]["isConfirmed"]:
        then = ago(kit["properties"]["confirmedTime"], visit.plane.env.utc())
        says = _("By %(who)s, %(ago)s.", who=kit["properties"]["confirmedBy"], ago=then)
        return Check(_("Recovery kit"), "good", _("Confirmed"), says, [])
    says = _("Nobody said that it is kept elsewhere: if this machine is lost, so is everything in the vault.")
    confirm = offer(visit, ACTIONS["confirm-kit"], Request("POST", f"{kit['id']}/confirm"), path)
    take = offer(visit, ACTIONS["download-kit"], Request("POST", f"{kit['id']}/download"), path)
    return Check(_("Recovery kit"), "bad", _("Not confirmed"), says, take + confirm)


def _of_targets(visit: Visit, vault: Document) -> Iterator[Check]:
    try:
        count = len(list(visit.client.every(f"{vault['id']}/notificationTargets")))
    except KeepstoneError:  # who sees a vault does not always see whom it tells
        return
    alerts = [Offer(_("Alerts"), link("/alerts"), False)] if any(entry.path == "/alerts" for entry in ENTRIES) else []
    if count:
        told = counted("%(number)s target", "%(number)s targets", count)
        yield Check(_("Who is told of alerts"), "good", told, "", alerts)
        return
    group = vault["id"].split("/")[4]
    command = f"keepstone alert target add -g {group} -v {vault['name']}"
    yield Check(
        _("Who is told of alerts"), "bad", _("Nobody"), _("Nobody hears of a backup that fails."), alerts, command
    )


def _of_service(visit: Visit, installation: Document) -> Iterator[Check]:
    """Of passwords and the certificate; what he may see of them."""
    if visit.client.allows(Request("GET", USERS)):
        for user in visit.client.every(USERS):
            if any(_administers(given) for given in at(user, "properties.roles", [])):
                yield _of_password(visit, user)
    ends = moment_of(installation.get("certificateEnds"))
    if ends is not None:
        yield _of_certificate(visit, installation, ends)


def _administers(given: dict[str, Any]) -> bool:
    return bool(given["roleName"] == "Owner" and given["scope"] == _EVERYTHING)


def _of_password(visit: Visit, user: Document) -> Check:
    now = visit.plane.env.utc()
    title = _("Password of %(name)s", name=user["name"])
    changed = moment_of(at(user, "properties.passwordChangedTime"))
    if user["name"] == visit.client.who.client:
        mend = offer(visit, ACTIONS["own-password"], Request("POST", USERS.replace("users", "ownPassword")), "")
    else:
        mend = offer(visit, ACTIONS["reset-password"], Request("POST", f"{user['id']}/password"), user["id"])
    if changed is None:
        return Check(
            title, "bad", _("Never changed"), _("It is the one from the beginning, which was shown once."), mend
        )
    state = _("Changed %(ago)s", ago=ago(changed, now))
    if now - changed > _OLD:
        return Check(title, "warning", state, _("It is older than a year."), mend)
    return Check(title, "good", state, "", mend)


def _of_certificate(visit: Visit, found: Document, ends: datetime) -> Check:
    now = visit.plane.env.utc()
    begun, over = ago(found.get("certificateBegins"), now), ago(ends, now)
    state = _("Made %(begun)s, ends %(over)s", begun=begun, over=over)
    if ends - now < _SOON:
        says = _("A start of the service renews it.")
        return Check(_("Certificate of the service"), "warning", state, says, [], "keepstone down && keepstone up")
    return Check(_("Certificate of the service"), "good", state, "", [])
