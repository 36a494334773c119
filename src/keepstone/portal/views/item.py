# SPDX-License-Identifier: Apache-2.0
"""An item: its health, its points, and what can be done with it."""

from __future__ import annotations

from datetime import date
from typing import Any

from keepstone.control.overview import PASSED
from keepstone.errors import KeepstoneError
from keepstone.portal.actions.items import offered
from keepstone.portal.api import Document
from keepstone.portal.calendar import calendar
from keepstone.portal.places import Name, named
from keepstone.portal.rendering import at
from keepstone.portal.visit import Answer, Page, Views, Visit

__all__ = ["views"]

views = Views()
_DRILLS = 5
_CHARTED = 400  # days


@views("GET", "/item")
def item(visit: Visit) -> Answer:
    """`NotFound`."""
    name = named(visit, "item")
    found = visit.client.get(name.item_id)
    shown: dict[str, Any] = {"item": found, "name": name}
    try:
        points, following = visit.client.page(f"{name.item_id}/recoveryPoints", visit.text("from"))
        seen = {"points": points, "following": following, "unseen": "", **_history(visit, name, found)}
    except KeepstoneError as error:  # who may see an item may not see its points
        seen = {"points": [], "following": "", "unseen": str(error), "history": None, "calendar": None, "growth": ()}
        seen["drills"], seen["proved"] = (), None
    shown["actions"] = offered(visit, found, snapshots=any(map(_is_near, seen["points"])))
    return Page("item.html", shown | seen)


def _is_near(point: Document) -> bool:
    tiers = at(point, "properties.recoveryPointTierDetails") or ()
    return any(one["type"] == "InstantRP" for one in tiers)


def _history(visit: Visit, name: Name, found: Document) -> dict[str, Any]:
    """What its points tell over time."""
    told = visit.client.get(f"{name.item_id}/history")["properties"]
    drills: list[Document] = []
    if found["properties"]["workloadType"] != "FileFolder":
        drills = visit.client.get(f"{name.item_id}/drills")["value"]
    passed = (one["properties"] for one in drills if one["properties"]["level"] in PASSED)
    today = visit.plane.env.utc().date()
    return {
        "history": told,
        "calendar": calendar(date.fromisoformat(told["begin"]), today, told["days"]),
        "growth": _growth(told["days"]),
        "drills": drills[:_DRILLS],
        "proved": next((about["began"] for about in passed), None),
    }


def _growth(days: list[Document]) -> list[Document]:
    """Of each day with points: what one of them has, and what all until then needed."""
    total, found = 0, []
    for day in days:
        total += day["addedBytes"]
        if day["recoveryPointCount"]:
            found.append({"day": day["day"], "logical": day["logicalBytes"], "stored": total})
    return found[-_CHARTED:]
