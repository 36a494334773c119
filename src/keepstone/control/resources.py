# SPDX-License-Identifier: Apache-2.0
"""What stands around a vault: virtual machines, storage accounts, networks. Keepstone keeps what it is told of them;
clients look them up. A vault is a resource as well, where all of a group or of the subscription are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from keepstone.catalogue import every, first, resources, vaults
from keepstone.control import groups, locks
from keepstone.control.naming import check_name
from keepstone.control.plane import Change
from keepstone.errors import InvalidRequest, NotFound
from keepstone.vault import Resource, Vault, folded

__all__ = ["IDENTITY", "MACHINE", "NETWORK", "STORAGE", "delete", "everything", "find", "listing", "put", "spelled"]

MACHINE = "Microsoft.Compute/virtualMachines"
STORAGE = "Microsoft.Storage/storageAccounts"
NETWORK = "Microsoft.Network/virtualNetworks"
IDENTITY = "Microsoft.ManagedIdentity/userAssignedIdentities"


def find(connection: sa.Connection, path: str) -> Resource:
    """The resource of this id. `NotFound`."""
    resource = first(connection, Resource, resources.c.key == folded(path))
    if resource is None:
        parts = path.strip("/").split("/")
        kind, name, group = "/".join(parts[5:-1]), parts[-1], parts[3] if len(parts) > 3 else ""
        raise NotFound(
            f"The Resource '{kind}/{name}' under resource group '{group}' was not found. For more details please go to "
            "https://aka.ms/ARMResourceNotFoundFix"
        )
    return resource


def listing(
    connection: sa.Connection, subscription: str, *, group: str | None = None, kind: str | None = None
) -> list[Resource]:
    """The resources of a subscription, or of a group; of one type, or of all."""
    where = [resources.c.subscription == folded(subscription)]
    if group is not None:
        where.append(resources.c.group_key == folded(group))
    found = every(connection, Resource, *where, order=resources.c.key)
    return [one for one in found if kind is None or folded(one.type) == folded(kind)]


def everything(connection: sa.Connection, subscription: str, *, group: str | None = None) -> list[Resource | Vault]:
    """The resources and the vaults of a subscription, or of a group, by their ids. `GroupNotFound`."""
    living = [vaults.c.subscription == folded(subscription), vaults.c.deleted.is_(None)]
    if group is not None:
        living.append(vaults.c.group_key == folded(groups.find(connection, subscription, group).name))
    found: list[Resource | Vault] = [
        *listing(connection, subscription, group=group),
        *every(connection, Vault, *living),
    ]
    return sorted(found, key=lambda one: folded(one.path))


def spelled(connection: sa.Connection, subscription: str) -> dict[str, str]:
    """The ids of a subscription and of all that is in it, by the folded ones."""
    paths = [f"/subscriptions/{subscription}"]
    paths += [group.path for group in groups.listing(connection, subscription)]
    paths += [one.path for one in everything(connection, subscription)]
    return {folded(path): path for path in paths}


def put(
    change: Change,
    subscription: str,
    group: str,
    kind: str,
    name: str,
    location: str,
    properties: Mapping[str, Any],
    tags: Mapping[str, Any],
    beside: Mapping[str, Any] | None = None,
) -> tuple[Resource, bool]:
    """Write a resource, with the properties that it has from now on; and whether it is new. `beside`: what stands
    beside the properties of some, `sku`, `kind` and `zones`. `GroupNotFound`;
    `InvalidRequest` for another region than this one; `Conflict` under a lock."""
    check_name(name)
    home, region = groups.find(change.connection, subscription, group), change.plane.place.location
    if location and folded(location).replace(" ", "") != folded(region):
        raise InvalidRequest(
            f"there is no region '{location}' here; choose '{region}'",
            target="location",
            code="LocationNotAvailableForResourceType",
        )
    made = Resource(
        subscription=home.subscription,
        group_name=home.name,
        type=kind,
        name=name,
        location=region,
        created=change.now,
        properties=dict(properties),
        tags=dict(tags),
        **(beside or {}),
    )
    locks.check_write(change.connection, made.path)
    there = first(change.connection, Resource, resources.c.key == folded(made.path))
    if kind == IDENTITY:
        made.properties.update(_identity(change, there))
    if there is not None:
        made = replace(made, created=there.created, name=there.name)
    change.save(made)
    return made, there is None


def _identity(change: Change, there: Resource | None) -> dict[str, Any]:
    """What an identity is called, which nobody chooses and which stays the same."""
    keys = ("principalId", "clientId")
    before = {} if there is None else there.properties
    made = {key: before.get(key) or str(change.plane.new_id()) for key in keys}
    return {"tenantId": change.plane.place.tenant, **made}


def delete(change: Change, resource: Resource) -> None:
    """Remove it."""
    locks.check_delete(change.connection, resource.path)
    change.remove(resource)
