# SPDX-License-Identifier: Apache-2.0
"""Restore drills: the machines and disks that can be started, and how far each came when somebody tried."""

from __future__ import annotations

from typing import Any

from keepstone.errors import InvalidRequest, NotFound
from keepstone.portal.actions.known import ACTIONS
from keepstone.portal.actions.offered import Offer, offer
from keepstone.portal.api import Document, Request
from keepstone.portal.places import PROVIDER, Name, across, named, subscription, vaults
from keepstone.portal.speech import _
from keepstone.portal.visit import Answer, Download, Page, Views, Visit

__all__ = ["views"]

views = Views()


@views("GET", "/drills")
def drills(visit: Visit) -> Answer:
    """Each machine with its newest drill, page by page."""
    known = vaults(visit)
    vault = next((one["id"] for one in known if one["id"] == visit.text("vault")), "")
    within = [one["id"] for one in known if vault in ("", one["id"])]
    allowed = [one for one in within if visit.client.allows(Request("GET", f"{one}/drills"))]
    found, following = across(visit, allowed, "drills")
    figures = None
    if known:
        scope = vault or f"{subscription(visit)}/{PROVIDER}"
        figures = visit.client.get(f"{scope}/overview")["properties"]["drills"]
    shown = {"machines": found, "following": following, "vaults": known, "vault": vault, "figures": figures}
    return Page("drills.html", shown, part="list")


@views("GET", "/drill")
def drill(visit: Visit) -> Answer:
    """All that is known of one. `NotFound`."""
    name, key = _named(visit)
    found = next((one for one in visit.client.every(f"{name.item_id}/drills") if one["name"] == key), None)
    if found is None:
        raise NotFound(_("there is no drill '%(key)s' of this item; its newest ones are kept", key=key))
    item = visit.client.get(name.item_id)
    shown: dict[str, Any] = {"drill": found, "item": item, "name": name, "actions": _again(visit, name, found)}
    return Page("drill.html", shown)


@views("GET", "/drill/screenshot")
def screenshot(visit: Visit) -> Answer:
    """The picture of its screen. `NotFound`."""
    name, key = _named(visit)
    return Download(visit.client.send(Request("GET", f"{name.item_id}/drills/{key}/screenshot")))


def _named(visit: Visit) -> tuple[Name, str]:
    """The item, and the drill's name. `InvalidRequest`."""
    name = named(visit, "item")
    kind, key = name.id.removeprefix(f"{name.item_id}/").partition("/")[::2]
    if kind.casefold() != "drills" or not key or "/" in key:
        raise InvalidRequest(_("%(id)s is no id of a drill", id=repr(name.id)), target="id")
    return name, key


def _again(visit: Visit, name: Name, found: Document) -> list[Offer]:
    """To start the same point once more, where it is there still and he may."""
    point = f"{name.item_id}/recoveryPoints/{found['properties']['recoveryPoint']}"
    try:
        visit.client.get(point)
    except NotFound:
        return []
    return offer(visit, ACTIONS["drill"], Request("POST", f"{point}/drill"), point) if "drill" in ACTIONS else []
