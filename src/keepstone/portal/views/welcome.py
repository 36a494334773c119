# SPDX-License-Identifier: Apache-2.0
"""The first start: from a password that was shown once to a first point that was made, in four steps.

What is done is asked of the service each time, so the steps go on where they were left, by whomever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

from keepstone.control import logins
from keepstone.errors import NotFound
from keepstone.portal.actions.action import Equivalent, equivalents
from keepstone.portal.actions.first import item_of
from keepstone.portal.actions.known import ACTIONS
from keepstone.portal.actions.people import USERS
from keepstone.portal.api import Document
from keepstone.portal.kits import kits, may_take
from keepstone.portal.places import vaults
from keepstone.portal.rendering import at, link
from keepstone.portal.speech import _, later
from keepstone.portal.views.security import INSTALLATION
from keepstone.portal.visit import Answer, Page, Redirect, Views, Visit

__all__ = ["is_due", "views"]

views = Views()
STEPS = (later("Administrator"), later("Where data lies"), later("Keys and recovery kit"), later("First item"))


@dataclass(frozen=True, slots=True)
class Begun:
    """How far it is. `vault`: the one that this is about; `item`: the first thing in it."""

    done: tuple[bool, ...]
    vault: Document | None
    kit: Document | None
    item: Document | None


def is_due(visit: Visit, known: Sequence[Document]) -> bool:
    """Whether there is nothing yet to have an overview of, and he is the one to begin. `known`: the vaults that he
    sees."""
    return not known and may_take(visit)


@views("GET", "/welcome")
def welcome(visit: Visit) -> Answer:
    """The first step that is not done, or the one that is asked for."""
    if not may_take(visit):
        return Redirect(link("/"))
    begun = _begun(visit)
    first = next((number for number, done in enumerate(begun.done, 1) if not done), len(STEPS))
    asked = visit.text("step")
    step = int(asked) if asked in map(str, range(1, len(STEPS) + 1)) else first
    if begun.vault is None:
        step = min(step, 2)
    installation = visit.client.get(INSTALLATION)["properties"]
    shown = {
        "steps": [(_(title), done) for title, done in zip(STEPS, begun.done, strict=True)],
        "step": step,
        "all_done": all(begun.done),
        "installation": installation,
        "vault": begun.vault,
        "kit": begun.kit,
        "item": begun.item,
        "demo": _demo(visit, begun.vault, installation),
        "equivalents": _equivalents(visit, step, begun),
        "forms": [logins.random_text(visit.plane) for number in range(3)],
        "back": link("/welcome"),
    }
    return Page("welcome.html", shown)


def _begun(visit: Visit) -> Begun:
    me = visit.client.get(f"{USERS}/{visit.client.who.client}") if visit.client.who.kind == "user" else {}
    known, kept = vaults(visit), kits(visit)
    chosen = visit.text("vault")
    behind = [one for one in known if not _confirmed(kept.get(one["id"].casefold()))]
    named = [one for one in known if one["id"].casefold() == chosen.casefold()]
    vault = next(chain(named, behind, known), None)
    kit = None if vault is None else kept.get(vault["id"].casefold())
    items, _ = ([], "") if vault is None else visit.client.page(f"{vault['id']}/backupProtectedItems")
    item = next((one for one in items if at(one, "properties.lastRecoveryPoint")), next(iter(items), None))
    backed_up = item is not None and bool(at(item, "properties.lastRecoveryPoint"))
    changed = bool(at(me, "properties.passwordChangedTime")) or not me
    return Begun((changed, vault is not None, _confirmed(kit), backed_up), vault, kit, item)


def _confirmed(kit: Document | None) -> bool:
    return kit is not None and bool(kit["properties"]["isConfirmed"])


def _demo(visit: Visit, vault: Document | None, installation: Document) -> str:
    """The folder for a first try, where it is there and no item yet."""
    folder = str(installation.get("demoFolder") or "")
    if vault is None or not folder:
        return ""
    try:
        visit.client.get(item_of(vault["id"], folder))
    except NotFound:
        return folder
    return ""


def _equivalents(visit: Visit, step: int, begun: Begun) -> list[Equivalent]:
    """The same by a program, as far as it is known before anything is given."""
    given: dict[str, list[str]] = {}
    if begun.vault is not None:
        given = {"id": [begun.vault["id"]]}
    action = {1: "own-password", 2: "create-vault", 3: "confirm-kit", 4: "first-item"}[step]
    if step == 4:
        given["path"] = [str(visit.text("path") or "/srv/data")]
    return equivalents(ACTIONS[action].plan(replace(visit, query=given)), visit.client.base)
