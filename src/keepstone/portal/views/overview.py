# SPDX-License-Identifier: Apache-2.0
"""What is protected, at a look: tiles that lead to the lists that they count."""

from __future__ import annotations

from dataclasses import dataclass

from keepstone.portal.kits import unconfirmed
from keepstone.portal.places import vaults
from keepstone.portal.rendering import link
from keepstone.portal.views.welcome import is_due
from keepstone.portal.visit import Answer, Page, Redirect, Views, Visit

__all__ = ["views"]

views = Views()


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
    if is_due(visit, found):
        return Redirect(link("/welcome"))
    return Page("overview.html", {"vaults": found, "tiles": [], "unconfirmed": unconfirmed(visit)})
