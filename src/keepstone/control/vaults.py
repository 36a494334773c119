# SPDX-License-Identifier: Apache-2.0
"""Vaults: each has a store of its own, keys of its own and a journal in its store.

Deleting a vault keeps it for as long as its soft delete says, without a name; it can be taken back until then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from keepstone.catalogue import assignments, every, first, items, one, outbox, vaults
from keepstone.catalogue.judging import outdate
from keepstone.control import alerts, groups, locks
from keepstone.control.plane import Change, Plane
from keepstone.errors import Conflict, InvalidRequest, KeepstoneError, NotEmpty, NotFound
from keepstone.identity import is_beneath
from keepstone.vault import Item, RoleAssignment, StoredPolicy, Vault, default_policies, folded
from keepstone.vault.alerts import Kind
from keepstone.vault.properties import check_name, is_immutable, merged, new_properties, soft_delete

__all__ = [
    "create",
    "delete",
    "deleted",
    "each",
    "find",
    "find_deleted",
    "listing",
    "lookup",
    "purge",
    "undelete",
    "update",
]

_log = logging.getLogger(__name__)


def lookup(connection: sa.Connection, subscription: str, group: str, name: str) -> Vault | None:
    """The vault of this name; None where there is none."""
    keys = {"subscription": folded(subscription), "group_key": folded(group), "key": folded(name)}
    return one(connection, Vault, **keys, deleted=None)


def find(connection: sa.Connection, subscription: str, group: str, name: str) -> Vault:
    """`NotFound`."""
    vault = lookup(connection, subscription, group, name)
    if vault is None:
        raise NotFound(
            f"The Resource 'Microsoft.RecoveryServices/vaults/{name}' under resource group '{group}' was not found. "
            "For more details please go to https://aka.ms/ARMResourceNotFoundFix"
        )
    return vault


def listing(connection: sa.Connection, subscription: str, group: str | None = None) -> list[Vault]:
    """The vaults of a subscription, or of a group in it, by name."""
    where = [vaults.c.subscription == folded(subscription), vaults.c.deleted.is_(None)]
    if group is not None:
        where.append(vaults.c.group_key == folded(groups.find(connection, subscription, group).name))
    return every(connection, Vault, *where, order=(vaults.c.key, vaults.c.id))


def create(
    plane: Plane,
    subscription: str,
    group: str,
    name: str,
    location: str,
    properties: Mapping[str, Any],
    *,
    sku: Mapping[str, Any],
    tags: Mapping[str, Any],
    identity: Mapping[str, Any] | None = None,
) -> Vault:
    """A new vault with its store and its policies. `Conflict` where there is one, `GroupNotFound`, `InvalidRequest`."""
    check_name(name)
    wanted = new_properties(properties)
    if folded(location) != folded(plane.place.location):
        raise InvalidRequest(
            f"there is no region '{location}' here; choose '{plane.place.location}'",
            target="location",
            code="LocationNotAvailableForResourceType",
        )
    with plane.look() as connection:
        home = groups.find(connection, subscription, group)
        locks.check_write(connection, home.path)
        _check_free(lookup(connection, subscription, group, name))
    now = plane.env.utc()
    vault = Vault(
        id=plane.new_id(),
        subscription=home.subscription,
        group_name=home.name,
        name=name,
        location=plane.place.location,
        created=now,
        changed=now,
        properties=wanted,
        sku=dict(sku) or {"name": "Standard"},
        tags=dict(tags),
    )
    plane.stores.create(vault.id, f"vault {vault.path}")
    try:
        with plane.change() as change:
            _check_free(lookup(change.connection, subscription, group, name))  # somebody else may have been faster
            groups.find(change.connection, subscription, group)
            vault = replace(vault, identity=_identity(change, vault, identity))
            change.insert(vault)
            for title, document in default_policies(now).items():
                change.insert(
                    StoredPolicy(
                        id=plane.new_id(),
                        vault=vault.id,
                        name=title,
                        management=document["backupManagementType"],
                        workload=document.get("workLoadType"),
                        properties=document,
                        changed=now,
                    )
                )
    except BaseException:
        plane.stores.remove(vault.id)
        raise
    return vault


def update(
    change: Change,
    vault: Vault,
    *,
    properties: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
    identity: Mapping[str, Any] | None = None,
) -> Vault:
    """Lay what is given over what the vault has. `InvalidRequest`, `GuardRefused`, `Conflict` under a lock."""
    locks.check_write(change.connection, vault.path)
    current = first(change.connection, Vault, vaults.c.id == vault.id)
    if current is None or current.deleted is not None:
        raise NotFound(f"the vault '{vault.name}' was deleted meanwhile")
    changed = replace(
        current,
        properties=merged(current.properties, properties or {}),
        tags=current.tags if tags is None else dict(tags),
        identity=_identity(change, current, identity),
        changed=change.now,
    )
    change.save(changed)
    if is_immutable(changed.properties) != is_immutable(current.properties):
        outdate(change.connection, items.c.vault == vault.id)
    alerts.of_change(change, current, changed)
    return changed


def delete(change: Change, vault: Vault) -> Vault:
    """Delete an empty vault; it can be taken back for a while. `NotEmpty` names what is in it."""
    locks.check_delete(change.connection, vault.path)
    on_the_way_out = items.c.purge <= change.now  # a worker removes them, whether the vault lives or not
    mine = sa.and_(items.c.vault == vault.id, sa.or_(items.c.purge.is_(None), sa.not_(on_the_way_out)))
    count = change.connection.execute(sa.select(sa.func.count()).where(mine)).scalar_one()
    if count:
        some = every(change.connection, Item, mine, order=items.c.key, limit=5)
        names = ", ".join(f"'{item.friendly}'" + (" (soft-deleted)" if item.deleted else "") for item in some)
        more = f" and {count - len(some)} more" if count > len(some) else ""
        raise NotEmpty(
            f"Vault cannot be deleted as there are existing resources within the vault: {names}{more}. Stop their "
            "protection and delete their backup data first; soft-deleted items go when their time has passed."
        )
    now = change.now
    gone = replace(vault, deleted=now, purge=now + timedelta(days=soft_delete(vault.properties).days), changed=now)
    change.save(gone)
    until = (
        f"it can be taken back until {gone.purge:%Y-%m-%d %H:%M} UTC" if gone.purge != now else "it is gone for good"
    )
    alerts.security(change, gone, Kind.VAULT_DELETED, f"vault '{vault.name}' was deleted; {until}")
    return gone


def deleted(connection: sa.Connection, subscription: str, location: str) -> list[Vault]:
    """Vaults that can be taken back."""
    mine = vaults.c.subscription == folded(subscription), vaults.c.deleted.is_not(None)
    found = every(connection, Vault, *mine, order=(vaults.c.deleted, vaults.c.id))
    return [vault for vault in found if folded(vault.location) == folded(location)]


def find_deleted(connection: sa.Connection, subscription: str, location: str, name: str) -> Vault:
    """A deleted vault by its name or its id. `NotFound`."""
    found = [
        vault
        for vault in deleted(connection, subscription, location)
        if folded(name) in (folded(vault.name), str(vault.id), vault.id.hex)
    ]
    if not found:
        raise NotFound(f"There is no deleted vault '{name}' in '{location}'; `az backup deleted-vault list` shows them")
    return found[-1]


def undelete(change: Change, vault: Vault, group: str) -> Vault:
    """Take a deleted vault back, into this group. `Conflict` where its name is taken."""
    home = groups.find(change.connection, vault.subscription, group)
    _check_free(lookup(change.connection, vault.subscription, group, vault.name))
    back = replace(vault, group_name=home.name, deleted=None, purge=None, changed=change.now)
    change.save(back)
    alerts.undeleted(change, back)
    return back


def each(plane: Plane, what: str, work: Callable[[Vault], object]) -> None:
    """Do something for every living vault. Where it fails for one, the log says `what` that was, and it is the next
    one's turn: a store that is away is no reason to neglect the others."""
    with plane.look() as connection:
        living = every(connection, Vault, vaults.c.deleted.is_(None))
    for vault in living:
        try:
            work(vault)
        except KeepstoneError as error:
            _log.error("vault '%s': %s is left for the next time: %s", vault.name, what, error)


def purge(plane: Plane) -> int:
    """Destroy the deleted vaults whose time has passed; how many."""
    with plane.look() as connection:
        over = every(connection, Vault, vaults.c.purge <= plane.env.utc())
    for vault in over:
        with plane.database.change() as connection:
            for kind in ("points", "items", "policies", "containers", "schedules", "jobs"):
                table = vaults.metadata.tables[kind]
                connection.execute(table.delete().where(table.c.vault == vault.id))
            connection.execute(outbox.delete().where(outbox.c.vault == vault.id))
            connection.execute(vaults.delete().where(vaults.c.id == vault.id))
            _release(connection, vault)
        plane.stores.remove(vault.id)
    return len(over)


def _release(connection: sa.Connection, vault: Vault) -> None:
    """Take away the roles that people had at a vault which is no more; they stay where another one has its path."""
    others = every(connection, Vault, vaults.c.subscription == vault.subscription, vaults.c.key == folded(vault.name))
    if any(folded(one.path) == folded(vault.path) for one in others):
        return
    for given in every(connection, RoleAssignment):
        if is_beneath(given.scope, vault.path):
            connection.execute(assignments.delete().where(assignments.c.id == given.id))


def _check_free(vault: Vault | None) -> None:
    if vault is not None:
        raise Conflict(
            f"there is a vault '{vault.name}' in '{vault.group_name}' already; update it, or choose another name"
        )


_IDENTITIES = ("SystemAssigned", "UserAssigned")


def _identity(change: Change, vault: Vault, wanted: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The managed identity after a change: its ids are the vault's own and stay the same."""
    if wanted is None:
        return vault.identity
    kinds = [kind for kind in _IDENTITIES if folded(kind) in folded(str(wanted.get("type", "None")))]
    if not kinds:
        return None
    before = vault.identity or {}
    made: dict[str, Any] = {"type": ", ".join(kinds)}
    if "SystemAssigned" in kinds:
        made["principalId"] = before.get("principalId") or str(change.plane.new_id())
        made["tenantId"] = change.plane.place.tenant
    chosen = dict(before.get("userAssignedIdentities") or {})
    for path, value in (wanted.get("userAssignedIdentities") or {}).items():
        if value is None:
            chosen.pop(path, None)
        else:
            chosen.setdefault(path, {"principalId": str(change.plane.new_id()), "clientId": str(change.plane.new_id())})
    if "UserAssigned" in kinds:
        made["userAssignedIdentities"] = chosen
    return made
