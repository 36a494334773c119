# SPDX-License-Identifier: Apache-2.0
"""Which points can be started: those of machines, and those of one disk, about which nothing else is known."""

from __future__ import annotations

from keepstone.errors import UsageError
from keepstone.store import Reader
from keepstone.workloads.images import image_size
from keepstone.workloads.machines import KIND, Consistency, Disk, Level, Machine, OneDisk, PointOfMachine, machine_of

__all__ = ["startable"]

_IMAGES = "images"
_DISK = "disk"


def startable(reader: Reader) -> PointOfMachine:
    """The machine in a point, of a disk one that has this disk alone. `UsageError` where the point has no disks,
    `CorruptObject`, `HostileName`."""
    point = reader.point
    if point.kind == KIND:
        return machine_of(reader)
    if point.kind != _IMAGES:
        raise UsageError("the point has no disk to start from; choose one of a machine, an image or a device")
    disk = Disk(_DISK, image_size(reader))
    about = Machine(
        name=point.item,
        moment=point.started,
        consistency=Consistency(Level.CRASH),
        disks=[disk],
        definition={},
    )
    return PointOfMachine(about, [(disk, OneDisk(reader, reader.root()[0]))])
