# SPDX-License-Identifier: Apache-2.0
"""Settings: people, vaults, and what somebody may change of himself."""

from __future__ import annotations

from keepstone.errors import KeepstoneError
from keepstone.portal.actions import people, vaults
from keepstone.portal.actions.known import ACTIONS
from keepstone.portal.actions.offered import Offer, offer
from keepstone.portal.api import Document, Request
from keepstone.portal.kits import KEY, kits, may_take
from keepstone.portal.places import named, subscription
from keepstone.portal.places import vaults as known
from keepstone.portal.rendering import at
from keepstone.portal.visit import Answer, Page, Views, Visit

__all__ = ["views"]

views = Views()


@views("GET", "/settings")
def settings(visit: Visit) -> Answer:
    """What he may see of them."""
    users: list[Document] | None = None
    if visit.client.allows(Request("GET", people.USERS)):
        users = list(visit.client.every(people.USERS))
    kept = kits(visit)
    shown = {
        "mine": _begin(visit, "own-password", Request("POST", people.USERS.replace("users", "ownPassword"))),
        "users": None if users is None else [(one, people.offered(visit, one)) for one in users],
        "new_user": _begin(visit, "create-user", Request("PUT", f"{people.USERS}/somebody")),
        "vaults": [(one, kept.get(one["id"].casefold())) for one in known(visit)],
        "deleted": vaults.deleted(visit),
        "new_vault": _begin(visit, "create-vault", Request("PUT", f"{subscription(visit)}/resourceGroups/some")),
        "begins": may_take(visit),
        "key": _begin(visit, "download-key", Request("POST", f"{KEY}/download")),
    }
    return Page("settings.html", shown)


@views("GET", "/settings/vault")
def vault(visit: Visit) -> Answer:
    """Of one vault: its properties, its recovery kit, and who has which role for it. `NotFound`."""
    name = named(visit, "vault")
    found = visit.client.get(name.vault_id)
    kit = kits(visit).get(name.vault_id.casefold())
    kit_offers: list[Offer] = []
    if kit is not None:
        for action, verb in (("download-kit", "download"), ("confirm-kit", "confirm")):
            kit_offers += offer(visit, ACTIONS[action], Request("POST", f"{kit['id']}/{verb}"), name.vault_id)
        kit_offers += _begin(visit, "download-key", Request("POST", f"{KEY}/download"))
    shown = {
        "vault": found,
        "name": name,
        "actions": vaults.offered(visit, found),
        "kit": kit,
        "kit_offers": kit_offers,
        "roles": _roles(visit, name.vault_id),
        "give": offer(
            visit, ACTIONS["give-role"], Request("PUT", f"{name.vault_id}/{people.ASSIGNMENTS}/some"), name.vault_id
        ),
    }
    return Page("vault_settings.html", shown)


def _roles(visit: Visit, scope: str) -> list[Document] | None:
    """Who has a role that holds there; None where he may not see that."""
    try:
        found = list(visit.client.every(f"{scope}/{people.ASSIGNMENTS}"))
        definitions = visit.client.every(f"{subscription(visit)}/providers/Microsoft.Authorization/roleDefinitions")
        roles = {one["name"]: at(one, "properties.roleName") for one in definitions}
    except KeepstoneError:
        return None
    names: dict[str, str] = {}
    if visit.client.allows(Request("GET", people.USERS)):
        names = {at(one, "properties.principalId"): one["name"] for one in visit.client.every(people.USERS)}
    shown: list[Document] = []
    for one in found:
        properties = one["properties"]
        shown.append(
            {
                "who": names.get(properties["principalId"], properties["principalId"]),
                "role": roles.get(properties["roleDefinitionId"].rpartition("/")[2], properties["roleDefinitionId"]),
                "scope": properties["scope"],
                "offers": offer(visit, ACTIONS["take-role"], Request("DELETE", one["id"]), one["id"]),
            }
        )
    return shown


def _begin(visit: Visit, action: str, request: Request) -> list[Offer]:
    """One that is about nothing that there is already."""
    return offer(visit, ACTIONS[action], request, "")
