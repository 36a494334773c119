# SPDX-License-Identifier: Apache-2.0
"""What a job is about: its item, with where the item is; and the job's last transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from keepstone.catalogue import containers, first, vaults
from keepstone.control import items
from keepstone.control.plane import Change, Plane
from keepstone.errors import NotFound
from keepstone.jobs import Context, Status
from keepstone.vault import Container, Item, Vault

__all__ = ["Subject", "ending", "subject"]


@dataclass(frozen=True, slots=True)
class Subject:
    """An item and where it is."""

    vault: Vault
    container: Container
    item: Item


def subject(plane: Plane, context: Context) -> Subject:
    """What the job is about. `NotFound` where it was removed meanwhile."""
    assert context.claim.item is not None
    with plane.look() as connection:
        item = items.get(connection, context.claim.item)
        vault = first(connection, Vault, vaults.c.id == item.vault)
        container = first(connection, Container, containers.c.id == item.container)
    if vault is None or container is None:
        raise NotFound(f"the vault of '{item.friendly}' was removed meanwhile")
    return Subject(vault, container, item)


@contextmanager
def ending(plane: Plane, context: Context, status: Status = Status.COMPLETED) -> Iterator[Change]:
    """The transaction in which the job ends, with whatever else the block changes."""
    with context.ending(status) as connection:
        change = Change(connection, plane)
        yield change
        touched = change.close()
    for vault in touched:
        plane.journal.ship(vault)
