# SPDX-License-Identifier: Apache-2.0
"""What stands around a vault: virtual machines, storage accounts, networks. Keepstone keeps what it is told of them;
clients look them up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from keepstone.catalogue import every, first, resources
from keepstone.control import groups, locks
from keepstone.control.plane import Change
from keepstone.errors import NotFound
from keepstone.vault import Resource, folded

__all__ = ["delete", "find", "listing", "put"]


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


def put(
    change: Change,
    subscription: str,
    group: str,
    kind: str,
    name: str,
    location: str,
    properties: Mapping[str, Any],
    tags: Mapping[str, Any],
) -> tuple[Resource, bool]:
    """Write a resource; and whether it is new."""
    home = groups.find(change.connection, subscription, group)
    made = Resource(
        subscription=home.subscription,
        group_name=home.name,
        type=kind,
        name=name,
        location=location or home.location,
        created=change.now,
        properties=dict(properties),
        tags=dict(tags),
    )
    locks.check_write(change.connection, made.path)
    there = first(change.connection, Resource, resources.c.key == folded(made.path))
    if there is not None:
        made = replace(made, created=there.created, name=there.name, type=there.type)
    change.save(made)
    return made, there is None


def delete(change: Change, resource: Resource) -> None:
    """Remove it."""
    locks.check_delete(change.connection, resource.path)
    change.remove(resource)
