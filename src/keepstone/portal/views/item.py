# SPDX-License-Identifier: Apache-2.0
"""An item: its health, its points, and what can be done with it."""

from __future__ import annotations

from keepstone.errors import KeepstoneError
from keepstone.portal.actions.items import offered
from keepstone.portal.places import named
from keepstone.portal.visit import Answer, Page, Views, Visit

__all__ = ["views"]

views = Views()


@views("GET", "/item")
def item(visit: Visit) -> Answer:
    """`NotFound`."""
    name = named(visit, "item")
    found = visit.client.get(name.item_id)
    try:
        points, following = visit.client.page(f"{name.item_id}/recoveryPoints", visit.text("from"))
    except KeepstoneError as error:  # who may see an item may not see its points
        points, following = [], ""
        return Page(
            "item.html",
            {"item": found, "name": name, "points": points, "following": following, "unseen": str(error)}
            | {"actions": offered(visit, found)},
        )
    shown = {"item": found, "name": name, "points": points, "following": following, "unseen": ""}
    return Page("item.html", shown | {"actions": offered(visit, found)})
