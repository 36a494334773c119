# SPDX-License-Identifier: Apache-2.0
"""Vaults: making and deleting them, and the settings that guard what is in them."""

from __future__ import annotations

from keepstone.errors import InvalidRequest, NotFound
from keepstone.portal.actions.action import Actions, Choice, Command, Field, Plan
from keepstone.portal.actions.offered import Offer, offer
from keepstone.portal.actions.radius import radius_of
from keepstone.portal.api import Document, Request
from keepstone.portal.places import PROVIDER, Name, named, subscription
from keepstone.portal.rendering import at, link
from keepstone.portal.speech import _
from keepstone.portal.visit import Visit

__all__ = ["actions", "deleted", "offered"]

actions = Actions()
_SOFT = "properties.securitySettings.softDeleteSettings"
_IMMUTABLE = "properties.securitySettings.immutabilitySettings.state"
_AZ = {"Enabled": "Enable", "Disabled": "Disable", "AlwaysON": "AlwaysON"}


def _new(visit: Visit) -> list[Field]:
    return [
        Field(name="group", label=_("Resource group"), required=True, help=_("One that there is, or a new one")),
        Field(name="vault", label=_("Vault"), required=True, help=_("2 to 50 letters, digits and hyphens")),
        Field(name="days", label=_("Soft delete, in days"), kind="number", default="14",
              help=_("How long something deleted can be taken back: 14 to 180")),
    ]  # fmt: skip


@actions("create-vault", "Make a vault", "With a store, keys and a recovery kit of its own.", fields=_new)
def create_vault(visit: Visit) -> Plan:
    """In a group, which is made first where there is none."""
    group, vault = visit.text("group").strip() or "GROUP", visit.text("vault").strip() or "VAULT"
    days = _days(visit)
    location = visit.plane.place.location
    home = f"{subscription(visit)}/resourceGroups/{group}"
    path = f"{home}/{PROVIDER}/vaults/{vault}"
    if vault != "VAULT" and _is_there(visit, path):
        raise InvalidRequest(
            _("there is a vault %(vault)s in %(group)s already; choose another name", vault=vault, group=group),
            target="vault",
        )
    soft = {"securitySettings": {"softDeleteSettings": {"softDeleteRetentionPeriodInDays": days}}}
    made: list[Request] = []
    commands: list[Command] = []
    if not _is_there(visit, home):
        made = [Request("PUT", home, {"location": location})]
        commands = [("group", "create", "-n", group, "-l", location)]
    body = {"location": location, "properties": soft}
    soft_on = ("--soft-delete-feature-state", "Enable", "--soft-delete-duration", str(days))
    kept = ("backup", "vault", "backup-properties", "set", "-g", group, "-n", vault, *soft_on)
    return Plan(
        before=made,
        request=Request("PUT", path, body),
        az=[*commands, ("backup", "vault", "create", "-g", group, "-n", vault, "-l", location), kept],
        keepstone=[
            *(("group", "create", "-n", group) for one in made),
            ("vault", "create", "-g", group, "-n", vault, "--soft-delete-duration", str(days)),
        ],
        then=link("/settings/vault", id=path),
        notice=_("The vault %(vault)s is made. Take its recovery kit now.", vault=vault),
    )


def _is_there(visit: Visit, path: str) -> bool:
    try:
        visit.client.get(path)
    except NotFound:
        return False
    return True


@actions(
    "delete-vault", "Delete the vault", "Only an empty one: its items go first.", destroys=True,
)  # fmt: skip
def delete_vault(visit: Visit) -> Plan:
    """It can be taken back for as long as its soft delete says."""
    name = named(visit, "vault")
    radius = radius_of(visit, name.vault_id)
    return Plan(
        request=Request("DELETE", name.vault_id),
        az=[("backup", "vault", "delete", *_at(name), "--yes")],
        keepstone=[("vault", "delete", *_at(name), "--yes")],
        radius=radius.lines,
        refused=radius.refused,
        then=link("/settings"),
        notice=_("The vault %(vault)s is deleted.", vault=name.vault),
    )


def _home(visit: Visit) -> list[Field]:
    groups = [Choice(one["name"], one["name"]) for one in visit.client.every(f"{subscription(visit)}/resourceGroups")]
    path = str(at(visit.client.get(visit.needed("id")), "properties.vaultId", ""))
    return [Field(name="group", label=_("Into the resource group"), kind="choice", choices=groups, required=True,
                  default=path.split("/")[4] if path.count("/") > 4 else "")]  # fmt: skip


@actions(
    "undelete-vault", "Take its deletion back", "Brings the vault back with its name and its settings.", fields=_home,
)  # fmt: skip
def undelete_vault(visit: Visit) -> Plan:
    """As long as its soft delete says."""
    path = visit.needed("id")
    was = str(at(visit.client.get(path), "properties.vaultId", ""))
    group = visit.text("group") or was.split("/")[4]
    home = f"{subscription(visit)}/resourceGroups/{group}"
    name = was.rpartition("/")[2]
    return Plan(
        request=Request("POST", f"{path}/undelete", {"properties": {"recoveryResourceGroupId": home}}),
        az=[("backup", "deleted-vault", "undelete", "--ids", path)] if home.casefold() in was.casefold() else (),
        then=link("/settings/vault", id=f"{home}/{PROVIDER}/vaults/{name}"),
        notice=_("The vault %(name)s is back.", name=name),
    )


def deleted(visit: Visit) -> list[tuple[Document, list[Offer]]]:
    """The vaults whose deletion can be taken back, each with what does it; none for who may not see them."""
    path = f"{subscription(visit)}/{PROVIDER}/locations/{visit.plane.place.location}/deletedVaults"
    if not visit.client.allows(Request("GET", path)):
        return []
    undelete = {one.name: one for one in actions}["undelete-vault"]
    return [
        (one, offer(visit, undelete, Request("POST", f"{one['id']}/undelete"), one["id"]))
        for one in visit.client.every(path)
    ]


def _soft(visit: Visit) -> list[Field]:
    vault = _vault(visit)[1]
    states = (
        Choice("Enabled", _("on")),
        Choice("AlwaysON", _("always on: nobody can ever turn it off again")),
        Choice("Disabled", _("off: what is deleted is gone at once")),
    )
    return [
        Field(name="state", label=_("Soft delete"), kind="choice", choices=states,
              default=at(vault, f"{_SOFT}.softDeleteState")),
        Field(name="days", label=_("Days"), kind="number",
              help=_("How long something deleted can be taken back: 14 to 180"),
              default=str(at(vault, f"{_SOFT}.softDeleteRetentionPeriodInDays"))),
    ]  # fmt: skip


@actions(
    "soft-delete", "Change soft delete", "What is deleted can be taken back for so long. Always on is for ever.",
    fields=_soft,
)  # fmt: skip
def soft_delete(visit: Visit) -> Plan:
    """On, off, or on for ever; and for how long."""
    name, vault = _vault(visit)
    before = at(vault, f"{_SOFT}.softDeleteState")
    state = visit.text("state") or before
    days = _days(visit, at(vault, f"{_SOFT}.softDeleteRetentionPeriodInDays"))
    settings = {"softDeleteState": state, "softDeleteRetentionPeriodInDays": days}
    word = _AZ.get(state, state)
    shown = ("--soft-delete-feature-state", word, "--soft-delete-duration", str(days))
    radius: list[tuple[str, object]] = []
    if state != before and state == "AlwaysON":
        radius = [(_("from then on"), _("soft delete can never be turned off, and its days only rise")),
                  (_("can be taken back"), _("no, by nobody"))]  # fmt: skip
    elif state != before and state == "Disabled":
        radius = [
            (_("from then on"), _("what anybody deletes is gone at once")),
            (_("can be taken back"), _("yes, until then")),
        ]
    return Plan(
        request=Request("PATCH", name.vault_id, {"properties": {"securitySettings": {"softDeleteSettings": settings}}}),
        az=[("backup", "vault", "backup-properties", "set", *_at(name), *shown)],
        keepstone=[("vault", "update", *_at(name), "--soft-delete-state", word, *shown[2:])],
        radius=radius,
        then=_page(name),
        notice=_("Soft delete is changed."),
    )


def _states(visit: Visit) -> list[Field]:
    vault = _vault(visit)[1]
    states = (
        Choice("Disabled", _("off")),
        Choice("Unlocked", _("on, and it can be turned off again")),
        Choice("Locked", _("locked: nobody can ever turn it off again")),
    )
    return [
        Field(name="state", label=_("Immutability"), kind="choice", choices=states, default=at(vault, _IMMUTABLE)),
    ]


@actions(
    "immutability", "Change immutability",
    "While it is on, no point goes before its time, and no policy shortens the time of one that there is.",
    fields=_states,
)  # fmt: skip
def immutability(visit: Visit) -> Plan:
    """Off, on, or locked for ever."""
    name, vault = _vault(visit)
    before = at(vault, _IMMUTABLE)
    state = visit.text("state") or before
    radius: list[tuple[str, object]] = []
    if state == "Locked" != before:
        held = dict(radius_of(visit, name.vault_id).lines)
        radius = [
            (
                _("from then on"),
                _("every point stays until its time is over, whoever asks; the store grows accordingly"),
            ),
            (_("items"), held.get("items", "0")),
            (_("points"), held.get("points", "0")),
            (_("the vault"), _("cannot be deleted while it has points whose time is not over")),
            (_("can be taken back"), _("no, by nobody")),
        ]
    settings = {"securitySettings": {"immutabilitySettings": {"state": state}}}
    return Plan(
        request=Request("PATCH", name.vault_id, {"properties": settings}),
        az=[("backup", "vault", "update", *_at(name), "--immutability-state", state)],
        keepstone=[("vault", "update", *_at(name), "--immutability-state", state, *_yes(state == "Locked"))],
        radius=radius,
        then=_page(name),
        notice=_("Immutability is changed."),
    )


def _tags(visit: Visit) -> list[Field]:
    vault = _vault(visit)[1]
    kept = "\n".join(f"{key}={value}" for key, value in (vault.get("tags") or {}).items())
    return [Field(name="tags", label=_("Tags"), kind="lines", default=kept, help=_("One a line: name=value"))]


@actions("vault-tags", "Change its tags", "Words to find it by; they mean nothing to the service.", fields=_tags)
def vault_tags(visit: Visit) -> Plan:
    """All of them anew."""
    name, vault = _vault(visit)
    tags: dict[str, str] = dict(vault.get("tags") or {})
    if visit.texts("tags"):
        lines = [line.strip() for line in visit.text("tags").splitlines() if line.strip()]
        if any("=" not in line or line.startswith("=") for line in lines):
            raise InvalidRequest(_("write a tag as name=value, one a line"), target="tags")
        tags = {key.strip(): value.strip() for key, value in (line.partition("=")[::2] for line in lines)}
    shown = [f"{key}={value}" for key, value in tags.items()] or [""]
    return Plan(
        request=Request("PATCH", name.vault_id, {"tags": tags}),
        az=[("backup", "vault", "update", *_at(name), "--tags", *shown)],
        keepstone=[("vault", "update", *_at(name), "--tags", " ".join(shown))],
        then=_page(name),
        notice=_("Its tags are changed."),
    )


def offered(visit: Visit, vault: Document) -> list[Offer]:
    """What he may do with a vault."""
    known = {one.name: one for one in actions}
    path = vault["id"]
    found: list[Offer] = []
    for action in ("soft-delete", "immutability", "vault-tags"):
        found += offer(visit, known[action], Request("PATCH", path), path)
    return found + offer(visit, known["delete-vault"], Request("DELETE", path), path)


def _days(visit: Visit, default: int = 14) -> int:
    """As given. `InvalidRequest` for what is no number."""
    given = visit.text("days").strip() or str(default)
    if not given.isascii() or not given.isdecimal():
        raise InvalidRequest(_("soft delete lasts 14 to 180 days"), target="days")
    return int(given)


def _vault(visit: Visit) -> tuple[Name, Document]:
    name = named(visit, "vault")
    return name, visit.client.get(name.vault_id)


def _at(name: Name) -> tuple[str, ...]:
    return "-g", name.group, "-n", name.vault


def _yes(needed: bool) -> tuple[str, ...]:
    return ("--yes",) if needed else ()


def _page(name: Name) -> str:
    return link("/settings/vault", id=name.vault_id)
