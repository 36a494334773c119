# SPDX-License-Identifier: Apache-2.0
"""Actions where they can be begun: a link for each that somebody may do."""

from __future__ import annotations

from dataclasses import dataclass

from keepstone.portal.actions.action import Action
from keepstone.portal.api import Request
from keepstone.portal.rendering import link
from keepstone.portal.speech import _
from keepstone.portal.visit import Visit

__all__ = ["Offer", "offer"]


@dataclass(frozen=True, slots=True)
class Offer:
    """`title`: what it does. `address`: its page. `destroys`: whether something may be lost by it."""

    title: str
    address: str
    destroys: bool


def offer(visit: Visit, action: Action, request: Request, identity: str, **given: str) -> list[Offer]:
    """The action on what `identity` names, where he may ask for `request`; else nothing."""
    if not visit.client.allows(request):
        return []
    return [Offer(_(action.title), link(f"/do/{action.name}", id=identity, **given), action.destroys)]
