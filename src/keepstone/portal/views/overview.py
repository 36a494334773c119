# SPDX-License-Identifier: Apache-2.0
"""What is protected, at a look: tiles that lead to the lists that they count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from keepstone.portal.api import Document
from keepstone.portal.kits import unconfirmed
from keepstone.portal.navigation import ENTRIES
from keepstone.portal.places import PROVIDER, subscription, vaults
from keepstone.portal.rendering import at, link, octets
from keepstone.portal.severities import SEVERITIES
from keepstone.portal.speech import _, counted
from keepstone.portal.states import word
from keepstone.portal.views.welcome import is_due
from keepstone.portal.visit import Answer, Page, Redirect, Views, Visit

__all__ = ["Tile", "views"]

views = Views()
_LEVELS = ("None", "Minimum", "Adequate", "Maximum")


@dataclass(frozen=True, slots=True)
class Tile:
    """A figure, and the page that has what it counts. `tone`: good, bad, or neither."""

    title: str
    figure: str
    says: str
    path: str
    tone: str = ""


@views("GET", "/")
def overview(visit: Visit) -> Answer:
    """Over all vaults that he may see."""
    found = vaults(visit)
    if not visit.part and is_due(visit, found):
        return Redirect(link("/welcome"))
    shown = {"vaults": found, "unconfirmed": unconfirmed(visit), **figures(visit, found)}
    return Page("overview.html", shown, part="tiles")


def figures(visit: Visit, known: list[Document]) -> dict[str, Any]:
    """What is counted, of the vault that the address names or of all."""
    vault = visit.text("vault")
    chosen = next((one["id"] for one in known if one["id"] == vault), "")
    if not known:
        return {"vault": "", "drills": None, "groups": ()}
    scope = chosen or f"{subscription(visit)}/{PROVIDER}"
    told = visit.client.get(f"{scope}/overview")["properties"]
    groups = (
        (_("Protected items"), list(_items(told, chosen))),
        (_("Jobs of the last 24 hours"), list(_jobs(told["jobs"], chosen))),
        (_("Alerts"), list(_alerts(told["alerts"], chosen))),
        (_("Storage"), list(_storage(told, chosen))),
        (_("Security"), [_security([one for one in known if not chosen or one["id"] == chosen])]),
    )
    return {"vault": chosen, "drills": told["drills"], "groups": groups}


def _items(overview: Document, vault: str) -> Iterator[Tile]:
    number, rpo, machines = overview["items"], overview["rpo"], overview["virtualMachines"]

    def tile(health: str, title: str, says: str, tone: str) -> Tile:
        return Tile(
            title,
            f"{number[health]:,}",
            says,
            link("/items", vault=vault, health=health),
            tone if number[health] else "",
        )

    yield tile("Unhealthy", _("Unhealthy"), _("two runs of their policy made no point"), "bad")
    yield tile("Healthy", _("Healthy"), _("they have the points that their policy wants"), "good")
    yield tile("IRPending", _("Waiting"), _("for their first point"), "warning")
    asked = rpo["met"] + rpo["missed"]
    share = f"{100 * rpo['met'] // asked} %" if asked else "–"
    says = counted(
        "%(met)s of %(number)s item has a point of the last run",
        "%(met)s of %(number)s items have a point of the last run",
        asked,
        met=rpo["met"],
    )
    yield Tile(_("RPO met"), share, says, link("/reports", kind="rpo", vault=vault), "warning" if rpo["missed"] else "")
    listed = any(entry.path == "/protectable" for entry in ENTRIES)
    yield Tile(
        _("Machines without protection"),
        f"{machines['unprotected']:,}",
        _("protected: %(number)s", number=machines["protected"]),
        link("/protectable" if listed else "/items", kind="" if listed else "AzureIaasVM"),
        "warning" if machines["unprotected"] else "",
    )


def _jobs(number: Document, vault: str) -> Iterator[Tile]:
    for status, title, says, tone in (
        ("Failed", _("Failed"), _("their pages say why"), "bad"),
        ("CompletedWithWarnings", _("With warnings"), _("something was left out"), "warning"),
        ("InProgress", _("In progress"), _("or waiting for their turn, since whenever"), ""),
        ("Completed", _("Completed"), _("without a warning"), ""),
    ):
        count = number.get(status, 0)
        since = "" if status == "InProgress" else "day"
        address = link("/jobs", vault=vault, status=status, since=since)
        yield Tile(title, f"{count:,}", says, address, tone if count else "")


def _alerts(number: Document, vault: str) -> Iterator[Tile]:
    for severity, known in SEVERITIES.items():
        if severity in number:
            address = link("/alerts", vault=vault, severity=severity, condition="Fired")
            yield Tile(_(known.title), f"{number[severity]:,}", _("not closed, and still so"), address, known.tone)
    if not number:
        yield Tile(_("None"), "0", _("nothing is wrong that anybody has to know"), link("/alerts", vault=vault), "good")


def _security(known: list[Document]) -> Tile:
    """The least of their levels."""
    found = [str(at(one, "properties.secureScore", _LEVELS[0])) for one in known]
    least = min(found, key=lambda level: _LEVELS.index(level) if level in _LEVELS else 0)
    says = counted(
        "of %(number)s vault: soft delete and immutability",
        "the least of %(number)s vaults: soft delete and immutability",
        len(found),
    )
    tone = "warning" if least in _LEVELS[:2] else "good"
    return Tile(_("Security level"), word(least), says, link("/security"), tone)


def _storage(overview: Document, vault: str) -> Iterator[Tile]:
    address, disk = link("/reports", kind="growth", vault=vault), overview["disk"]
    number = overview["recoveryPointCount"]
    says = counted("for %(count)s point", "for %(count)s points", number, count=f"{number:,}")
    yield Tile(_("Stored"), octets(overview["storedBytes"]), says, address)
    says = _("for points of the last 30 days")
    yield Tile(_("Growth"), f"+ {octets(overview['storedBytesLast30Days'])}", says, address)
    says = _("of %(total)s on the disk of the data folder", total=octets(disk["totalBytes"]))
    low = disk["freeBytes"] * 20 < disk["totalBytes"]
    yield Tile(_("Free"), octets(disk["freeBytes"]), says, address, "warning" if low else "")
