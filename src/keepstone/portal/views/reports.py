# SPDX-License-Identifier: Apache-2.0
"""Reports: usage, growth, RPO and cost, each as a page and as a file for spreadsheets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keepstone.portal.api import Document
from keepstone.portal.places import PROVIDER, across, subscription, vaults
from keepstone.portal.rendering import at
from keepstone.portal.reports import usage as counts
from keepstone.portal.sheets import Cell, sheet
from keepstone.portal.speech import later
from keepstone.portal.visit import Answer, Page, Views, Visit

__all__ = ["views"]

views = Views()
KINDS = {"usage": later("Usage"), "growth": later("Growth"), "rpo": later("RPO"), "cost": later("Cost")}
DAYS = {"30": later("30 days"), "90": later("90 days"), "365": later("a year")}
_BY = {"item": later("items"), "policy": later("policies"), "vault": later("vaults")}


@views("GET", "/reports")
def reports(visit: Visit) -> Answer:
    """The one that the address names."""
    kind = visit.text("kind")
    kind = kind if kind in KINDS else "usage"
    known = vaults(visit)
    chosen = _chosen(visit, known)
    shown: dict[str, Any] = {"kind": kind, "kinds": KINDS, "vaults": known, "vault": chosen["id"] if chosen else ""}
    if kind == "growth":
        told = _growth(visit, chosen)
        return Page("report_growth.html", shown | {"found": told, "days": _days(visit), "choices": DAYS}, part="report")
    if kind == "rpo":
        within = [one["id"] for one in known if chosen in (None, one)]
        rows, following = across(visit, within, "rpo")
        return Page("report_rpo.html", shown | {"items": rows, "following": following}, part="report")
    by = _by(visit)
    price = counts.price_of(visit) if kind == "cost" else None
    within = _within(known, chosen, by)
    found = [counts.counted(visit, vault, by, visit.text("from")) for vault in within]
    if by != "vault" and within:
        shown["vault"] = within[0]["id"]
    shown |= {"found": found, "by": by, "choices": _BY, "price": price, "given": visit.text("price").strip()}
    return Page("report_usage.html", shown | {"label": visit.text("label").strip()}, part="report")


@views("GET", "/reports/usage.csv")
def usage_sheet(visit: Visit) -> Answer:
    """Bytes by item, policy or vault."""
    by = _by(visit)
    heading = ("vault", by, *(("policy",) if by == "item" else ()), *counts.COLUMNS)

    def rows() -> Iterator[list[Cell]]:
        for vault, row in _counted(visit, by):
            yield [vault["name"], row.title, *((row.policy,) if by == "item" else ()), *row.cells]

    return sheet(f"usage-by-{by}", heading, rows())


@views("GET", "/reports/cost.csv")
def cost_sheet(visit: Visit) -> Answer:
    """The same with what it costs in a month: what each alone needs, by the price that was given. `InvalidRequest`."""
    visit.needed("price")
    by, price = _by(visit), counts.price_of(visit)
    assert price is not None
    heading = ("vault", by, *counts.COLUMNS[-2:], "cost a month of what it alone needs", "currency")

    def rows() -> Iterator[list[Cell]]:
        for vault, row in _counted(visit, by):
            yield [vault["name"], row.title, row.unique, row.shared, round(price.of(row.unique), 6), price.label]

    return sheet(f"cost-by-{by}", heading, rows())


@views("GET", "/reports/growth.csv")
def growth_sheet(visit: Visit) -> Answer:
    """Bytes by day."""
    found = _growth(visit, _chosen(visit, vaults(visit)))
    keys = ("day", "recoveryPointCount", "addedBytes", "storedBytes")
    heading = ("day", "points", "added bytes", "stored bytes")
    return sheet("growth", heading, ([day[key] for key in keys] for day in found["days"]))


@views("GET", "/reports/rpo.csv")
def rpo_sheet(visit: Visit) -> Answer:
    """How items kept to their policies."""
    known = vaults(visit)
    chosen = _chosen(visit, known)
    heading = ("vault", "item", "policy", "health", "newest point", "since", "runs", "runs with a point in time", "%")

    def rows() -> Iterator[list[Cell]]:
        for vault in known:
            if chosen not in (None, vault):
                continue
            for one in visit.client.every(f"{vault['id']}/rpo"):
                about, kept = one["properties"], one["properties"]["compliance"] or {}
                expected = kept.get("expected")
                share = round(100 * kept["kept"] / expected, 2) if expected else None
                yield [
                    vault["name"], about["friendlyName"], about["policyName"], about["protectionStatus"],
                    about["lastRecoveryPoint"], kept.get("since"), expected, kept.get("kept"), share,
                ]  # fmt: skip

    return sheet("rpo", heading, rows())


def _chosen(visit: Visit, known: list[Document]) -> Document | None:
    """The vault that the address names; None for all."""
    return next((one for one in known if one["id"] == visit.text("vault")), None)


def _within(known: list[Document], chosen: Document | None, by: str) -> list[Document]:
    """Items and policies of one vault at a time: the first one, where none is named."""
    if chosen is not None:
        return [chosen]
    return known if by == "vault" else known[:1]


def _counted(visit: Visit, by: str) -> Iterator[tuple[Document, counts.Row]]:
    known = vaults(visit)
    chosen = _chosen(visit, known)
    for vault in known:
        if chosen in (None, vault):
            yield from ((vault, row) for row in counts.everything(visit, vault, by))


def _by(visit: Visit) -> str:
    return visit.text("by") if visit.text("by") in _BY else "item"


def _days(visit: Visit) -> str:
    return visit.text("days") if visit.text("days") in DAYS else "90"


def _growth(visit: Visit, chosen: Document | None) -> Document:
    scope = chosen["id"] if chosen is not None else f"{subscription(visit)}/{PROVIDER}"
    found: Document = at(visit.client.get(f"{scope}/growth", days=_days(visit)), "properties")
    return found
