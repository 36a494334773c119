# SPDX-License-Identifier: Apache-2.0
"""The recovery kits of the vaults, and which of them nobody confirmed to have."""

from __future__ import annotations

from keepstone.errors import NotFound
from keepstone.portal.api import Document, Request
from keepstone.portal.speech import _
from keepstone.portal.visit import Visit

__all__ = ["KEY", "kit_of", "kits", "may_take", "unconfirmed"]

_PROVIDER = "/providers/Keepstone.Recovery"
_KITS = f"{_PROVIDER}/recoveryKits"
KEY = f"{_PROVIDER}/recoveryKey"


def kits(visit: Visit) -> dict[str, Document]:
    """By the ids of their vaults, folded; none for who may not see them."""
    if not visit.client.allows(Request("GET", _KITS)):
        return {}
    return {one["properties"]["vaultId"].casefold(): one for one in visit.client.every(_KITS)}


def kit_of(visit: Visit, vault: str) -> Document:
    """Of one vault. `NotFound`."""
    found = {one["properties"]["vaultId"].casefold(): one for one in visit.client.every(_KITS)}.get(vault.casefold())
    if found is None:
        raise NotFound(_("there is no vault %(vault)s; it was deleted meanwhile", vault=vault.rpartition("/")[2]))
    return found


def may_take(visit: Visit) -> bool:
    """Whether he may take kits and their key."""
    return visit.client.allows(Request("POST", f"{KEY}/download"))


def unconfirmed(visit: Visit) -> list[Document]:
    """The kits that he has to look after: what the portal asks for until it is done."""
    if not may_take(visit):
        return []
    return [one for one in kits(visit).values() if not one["properties"]["isConfirmed"]]
