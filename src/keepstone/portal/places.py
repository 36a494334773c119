# SPDX-License-Identifier: Apache-2.0
"""Where things are: the vaults that somebody may see, and the names in a resource's id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from keepstone.errors import InvalidRequest
from keepstone.portal.api import Document
from keepstone.portal.speech import _, later
from keepstone.portal.visit import Visit

__all__ = ["PROVIDER", "Name", "across", "name_of", "named", "subscription", "trail", "vaults"]

PROVIDER = "providers/Microsoft.RecoveryServices"


@dataclass(frozen=True, slots=True)
class Name:
    """The names in the id of something in a vault; those that it does not have are empty."""

    id: str
    group: str
    vault: str
    container: str = ""
    item: str = ""
    point: str = ""
    policy: str = ""
    job: str = ""

    @property
    def vault_id(self) -> str:
        """The id of the vault."""
        return "/".join(self.id.split("/")[:9])

    @property
    def item_id(self) -> str:
        """The id of the item, for one in it."""
        return "/".join(self.id.split("/")[:15])

    @property
    def at(self) -> tuple[str, ...]:
        """The options of commands that name the vault."""
        return "-g", self.group, "-v", self.vault

    @property
    def held(self) -> tuple[str, ...]:
        """The options that name the item too."""
        return *self.at, "-c", self.container, "-i", self.item


_PARTS = {
    "resourcegroups": "group",
    "vaults": "vault",
    "protectioncontainers": "container",
    "protecteditems": "item",
    "recoverypoints": "point",
    "backuppolicies": "policy",
    "backupjobs": "job",
}


_WHAT = {
    "vault": later("vault"),
    "container": later("container"),
    "item": later("item"),
    "point": later("point"),
    "policy": later("policy"),
    "job": later("job"),
}


def name_of(identity: str) -> Name:
    """The names in an id. `InvalidRequest` for one that names no vault."""
    parts = identity.split("/")
    found = {_PARTS[kind.casefold()]: name for kind, name in pairwise(parts) if kind.casefold() in _PARTS}
    if not identity.startswith("/subscriptions/") or "group" not in found or "vault" not in found:
        raise InvalidRequest(_("%(identity)s is no id of something in a vault", identity=repr(identity)), target="id")
    return Name(identity, **found)


def named(visit: Visit, what: str = "") -> Name:
    """The names in the id that was given. `InvalidRequest` where it lacks that of `what`."""
    name = name_of(visit.needed("id"))
    if what and not getattr(name, what):
        raise InvalidRequest(_("%(id)s is no id of a %(what)s", id=repr(name.id), what=_(_WHAT[what])), target="id")
    return name


def trail(identity: str) -> str:
    """Where something is, by the names that people know: group, vault, and what is in it. Anything else by its last
    name."""
    parts = identity.split("/")
    if len(parts) < 9 or parts[7].casefold() != "vaults":
        return parts[-1]
    is_item = parts[9:10] == ["backupFabrics"]
    return " / ".join((parts[4], parts[8], *parts[12 if is_item else 10 :: 2]))


def subscription(visit: Visit) -> str:
    """The id of the only one."""
    return f"/subscriptions/{visit.plane.place.subscription}"


def vaults(visit: Visit) -> list[Document]:
    """Those that he may see, by name."""
    return list(visit.client.every(f"{subscription(visit)}/{PROVIDER}/vaults"))


def across(visit: Visit, within: Sequence[str], kind: str, **query: str) -> tuple[list[Document], str]:
    """A page of what all these vaults have of a kind, one vault after the other, from where the address says (`from`);
    and where the next one begins, empty where there is none. A page ends with a vault that has more than one page."""
    begin, token = visit.text("from", "0").partition(" ")[::2]
    at = int(begin) if begin.isdecimal() else 0
    found: list[Document] = []
    for number, vault in _from(within, at):
        shown, token = visit.client.page(f"{vault}/{kind}", token, **query)
        found += shown
        if token:
            return found, f"{number} {token}"
        if len(found) >= _ENOUGH and number + 1 < len(within):
            return found, f"{number + 1}"
    return found, ""


_ENOUGH = 100


def _from(within: Sequence[str], at: int) -> Iterator[tuple[int, str]]:
    yield from ((number, vault) for number, vault in enumerate(within) if number >= at)
