# SPDX-License-Identifier: Apache-2.0
"""What a client asks about something before it protects it: whether it is protected already, and whether it can be."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from keepstone.catalogue import containers, every, first, items, policies, vaults
from keepstone.control import sources, virtual_machines
from keepstone.control.items import PROTECTED
from keepstone.errors import Conflict, InvalidRequest, Unsupported
from keepstone.vault import Container, Item, StoredPolicy, Vault, folded

__all__ = ["Protection", "check", "protection"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """Where a resource has an item. `policy`: None while nothing makes new points. `count`: the items in its
    container."""

    vault: Vault
    container: Container
    item: Item
    policy: StoredPolicy | None
    count: int

    @property
    def active(self) -> bool:
        """Whether new points are made."""
        return self.item.state == PROTECTED


def protection(connection: sa.Connection, subscription: str, resource: str) -> Protection | None:
    """The item of a resource, in whichever vault of the subscription it is; one that is protected before one that is
    not any more. None where there is none, or a soft-deleted one alone. `resource`: its id."""
    living = {
        vault.id: vault
        for vault in every(connection, Vault, vaults.c.deleted.is_(None), vaults.c.subscription == folded(subscription))
    }
    found = [
        item
        for item in every(connection, Item, items.c.deleted.is_(None), order=items.c.created)
        if item.vault in living and folded(str(item.properties.get("sourceResourceId"))) == folded(resource)
    ]
    if not found:
        return None
    item = min(found, key=lambda one: one.state != PROTECTED)
    (container,) = every(connection, Container, containers.c.id == item.container)
    beside = sa.select(sa.func.count()).where(items.c.container == container.id, items.c.deleted.is_(None))
    return Protection(
        vault=living[item.vault],
        container=container,
        item=item,
        policy=None if item.policy is None else first(connection, StoredPolicy, policies.c.id == item.policy),
        count=connection.execute(beside).scalar_one(),
    )


def check(connection: sa.Connection, subscription: str, kind: str, resource: str, vault: Vault) -> None:
    """Whether a resource of this kind (VM …) can be protected in this vault. `Unsupported`, `InvalidRequest`;
    `Conflict` where another vault protects it."""
    if folded(kind) != folded(sources.IMAGES):
        raise Unsupported(
            f"a datasource of type {kind!r} has no resource that could be checked in this version; virtual machines "
            f"({sources.IMAGES}) have one, and folders and files are checked when they are protected"
        )
    machine = virtual_machines.source(connection, {"sourceResourceId": resource}).machine
    assert machine is not None
    if folded(machine.location) != folded(vault.location):
        raise InvalidRequest(
            f"virtual machine '{machine.name}' is in '{machine.location}' and the vault in '{vault.location}'",
            target="resourceId",
        )
    there = protection(connection, subscription, resource)
    if there is not None and there.active and there.vault.id != vault.id:
        raise Conflict(
            f"'{there.item.friendly}' is protected in the vault '{there.vault.path}'; stop its protection there first"
        )
