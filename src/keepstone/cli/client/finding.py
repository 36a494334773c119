# SPDX-License-Identifier: Apache-2.0
"""Finding vaults, containers, items and points by what people call them.

Names of the API go without regard to case, and so do those that people gave; where several things differ in nothing but
case, as paths may, the one that is spelled as given is meant.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote

from keepstone.cli.client.output import at
from keepstone.cli.client.session import Session
from keepstone.errors import NotFound, PointNotFound, UsageError

__all__ = [
    "find_container",
    "find_item",
    "find_point",
    "group_path",
    "item_path",
    "named",
    "policy_id",
    "vault_path",
]

Document = dict[str, Any]
_PROVIDER = "providers/Microsoft.RecoveryServices"


def named(path: str, kind: str, name: str) -> str:
    """The id of what lies beneath `path`. A name may hold anything but a slash."""
    if not name or "/" in name or name in (".", ".."):
        raise UsageError(f"{name!r} is no name")
    return f"{path}/{kind}/{quote(name, safe=';')}"


def group_path(session: Session, group: str) -> str:
    """The id of a resource group."""
    return named(session.subscription, "resourceGroups", group)


def vault_path(session: Session, group: str | None, name: str | None) -> str:
    """The id of a vault; without a name, of the only one. `UsageError` where it could be several, `NotFound` where
    there is none."""
    if group is not None and name is not None:
        return named(f"{group_path(session, group)}/{_PROVIDER}", "vaults", name)
    within = session.subscription if group is None else group_path(session, group)
    found = [str(one["id"]) for one in session.arm.every(f"{within}/{_PROVIDER}/vaults")]
    if name is not None:
        found = [path for path in found if path.rpartition("/")[2].casefold() == name.casefold()]
    if len(found) == 1:
        return found[0]
    if not found:
        wanted = f"vault {name!r}" if name is not None else "vault"
        where = f" in group {group!r}" if group is not None else ""
        raise NotFound(f"there is no {wanted}{where} that you may see; `keepstone vault list` shows them all")
    shown = ", ".join(f"{path.rpartition('/')[2]} in {path.split('/')[4]}" for path in found[:5])
    raise UsageError(
        f"there are {len(found)} vaults ({shown}{' …' if len(found) > 5 else ''}); choose one by --vault-name and "
        "--resource-group, or KEEPSTONE_VAULT and KEEPSTONE_GROUP"
    )


def item_path(vault: str, container: str, item: str) -> str:
    """The id of an item, by the service's own names."""
    return named(named(f"{vault}/backupFabrics/Azure", "protectionContainers", container), "protectedItems", item)


def policy_id(vault: str, name: str) -> str:
    """The id of a policy as documents have it: spelled as it is, not as in an address."""
    return unquote(f"{vault}/backupPolicies/{name}")


def find_container(session: Session, vault: str, name: str) -> Document:
    """A container by its name, or by what people call it."""
    found = list(session.arm.every(f"{vault}/backupProtectionContainers"))
    return _one(
        "container", found, [name], lambda one: [one["name"], at(one, "properties.friendlyName")],
        "`keepstone container list` shows those that there are",
    )  # fmt: skip


def find_item(
    session: Session,
    vault: str,
    name: str,
    container: str | None = None,
    *,
    management: str | None = None,
    workload: str | None = None,
) -> Document:
    """An item by its name, or by what people call it: the path of a folder, the name of a machine."""
    where = {"backupManagementType": management, "itemType": workload, "containerName": container}
    wanted = [name, os.path.normpath(session.path(name))]
    address = f"{vault}/backupProtectedItems"
    found = list(session.arm.every(address, {**where, "friendlyName": name}))
    if not found:  # by the service's own name, or in letters whose case the database does not know
        found = list(session.arm.every(address, where))
    return _one(
        "protected item", found, wanted, lambda one: [at(one, "properties.friendlyName"), one["name"]],
        "`keepstone item list` shows those that there are",
    )  # fmt: skip


def find_point(session: Session, item: Document, name: str) -> Document:
    """A recovery point by its name, by the beginning of one, or the newest as `latest`."""
    points = list(session.arm.every(f"{item['id']}/recoveryPoints"))
    friendly = at(item, "properties.friendlyName")
    if name == "latest" and points:
        return points[0]
    found = [one for one in points if one["name"] == name] or [one for one in points if one["name"].startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{len(found)} recovery points of {friendly} begin with {name}; give more of the name")
    raise PointNotFound(
        f"{friendly} has no recovery point {'yet' if name == 'latest' else name}; `keepstone recoverypoint list` shows "
        "those that there are"
    )


def _one(
    kind: str, found: list[Document], wanted: list[str], names: Callable[[Document], list[Any]], instead: str
) -> Document:
    """The one that has the first of the wanted names that anything has. `NotFound`, `UsageError`."""
    for name in wanted:
        chosen = [one for one in found if name in names(one)] or [
            one for one in found if name.casefold() in [str(label).casefold() for label in names(one)]
        ]
        if len(chosen) == 1:
            return chosen[0]
        if chosen:
            shown = ", ".join(
                f"{at(one, 'properties.containerName') or ''} {one['name']}".strip() for one in chosen[:5]
            )
            raise UsageError(f"{len(chosen)} {kind}s are called {name!r} ({shown}); choose one by --container-name")
    raise NotFound(f"there is no {kind} {wanted[0]!r}; {instead}")
