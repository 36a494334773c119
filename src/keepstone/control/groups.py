# SPDX-License-Identifier: Apache-2.0
"""Resource groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from keepstone.catalogue import assignments, every, first, groups, resources, vaults
from keepstone.control import locks
from keepstone.control.plane import Change
from keepstone.errors import GroupNotFound, InvalidRequest, NotEmpty
from keepstone.vault import Group, Resource, RoleAssignment, Vault, folded

__all__ = ["delete", "find", "listing", "put"]


def find(connection: sa.Connection, subscription: str, name: str) -> Group:
    """`GroupNotFound`."""
    group = first(connection, Group, groups.c.subscription == folded(subscription), groups.c.key == folded(name))
    if group is None:
        raise GroupNotFound(f"Resource group '{name}' could not be found.")
    return group


def listing(connection: sa.Connection, subscription: str) -> list[Group]:
    """All of a subscription, by name."""
    return every(connection, Group, groups.c.subscription == folded(subscription), order=groups.c.key)


def put(change: Change, subscription: str, name: str, location: str, tags: Mapping[str, Any]) -> tuple[Group, bool]:
    """Make a group, or change the tags of the one that there is; and whether it is new."""
    try:
        there = find(change.connection, subscription, name)
    except GroupNotFound:
        group = Group(
            subscription=folded(subscription), name=name, location=location, created=change.now, tags=dict(tags)
        )
        change.insert(group)
        return group, True
    if folded(there.location) != folded(location):
        raise InvalidRequest(
            f"Resource group '{name}' is in '{there.location}' and cannot move to '{location}'; keep its location",
            target="location",
            code="InvalidResourceGroupLocation",
        )
    locks.check_write(change.connection, there.path)
    group = replace(there, tags=dict(tags))
    change.save(group)
    return group, False


def delete(change: Change, group: Group) -> None:
    """Remove a group with the resources in it. A vault in it is no resource that goes by the way: `NotEmpty`."""
    locks.check_delete(change.connection, group.path)
    key = folded(group.name)
    living = vaults.c.subscription == group.subscription, vaults.c.group_key == key, vaults.c.deleted.is_(None)
    vault = first(change.connection, Vault, *living)
    if vault is not None:
        raise NotEmpty(
            f"Resource group '{group.name}' has the vault '{vault.name}'; delete the vault first with "
            f"`az backup vault delete -g {group.name} -n {vault.name}`"
        )
    for resource in every(
        change.connection, Resource, resources.c.subscription == group.subscription, resources.c.group_key == key
    ):
        change.remove(resource)
    scopes = sa.or_(
        sa.func.lower(assignments.c.scope) == folded(group.path),
        sa.func.lower(assignments.c.scope).startswith(f"{folded(group.path)}/", autoescape=True),
    )
    for given in every(change.connection, RoleAssignment, scopes):  # else they would hold for the next of this name
        change.remove(given)
    change.remove(group)
