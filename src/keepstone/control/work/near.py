# SPDX-License-Identifier: Apache-2.0
"""A point to read from: from the snapshot that its hypervisor has of it, where that is on this host and still there;
else from the vault, and nobody notices a difference but in time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from keepstone.control import points, snapshots, virtual_machines
from keepstone.control.plane import Plane
from keepstone.control.work.loading import Subject
from keepstone.errors import KeepstoneError
from keepstone.store import Reader
from keepstone.vault import RecoveryPoint

__all__ = ["nearest", "taken"]


@contextmanager
def nearest(plane: Plane, about: Subject, point: RecoveryPoint) -> Iterator[Reader]:
    """Read a point. What `points.opened` raises."""
    store = plane.stores.open(about.vault.id)
    with points.opened(store, point) as reader:
        if not _may_be_near(plane, about, point):
            yield reader
            return
        from keepstone.workloads.hypervisors.near import near_vm

        with near_vm(plane.env, about.item.source, snapshots.owner_of(store, about.item), reader) as near:
            if near is None:
                snapshots.look(plane, about.item)
            yield near or reader


def _may_be_near(plane: Plane, about: Subject, point: RecoveryPoint) -> bool:
    if not virtual_machines.is_running(about.item) or not snapshots.has(plane, about.container, about.item, point.name):
        return False
    try:
        for path in virtual_machines.paths(about.item.source):
            plane.reach.check(path)
    except KeepstoneError:
        return False
    return True


def taken(reader: Reader) -> int | None:
    """How many bytes came from a snapshot so far; None where there is none."""
    told: int | None = getattr(reader, "taken", None)
    return told
