# SPDX-License-Identifier: Apache-2.0
"""The disks of a machine in a point, each as if it were a point of its own.

`OneDisk` is a `Reader` whose root is that of one disk: whatever reads points of images reads it.
"""

from __future__ import annotations

from dataclasses import dataclass

from keepstone.errors import NotFound
from keepstone.store import Reader
from keepstone.workloads.machines.root import Disk, Machine, read_machine
from keepstone.workloads.machines.through import Through

__all__ = ["OneDisk", "PointOfMachine", "disk_of", "machine_of"]


class OneDisk(Through):
    """A `Reader` of one disk of a machine."""

    def __init__(self, reader: Reader, root: int) -> None:
        super().__init__(reader)
        self._root = root

    def root(self) -> list[int]:
        return [self._root]


@dataclass(frozen=True, slots=True)
class PointOfMachine:
    """What a point says of its machine, and its disks with a reader for each, in order."""

    about: Machine
    disks: list[tuple[Disk, OneDisk]]


def machine_of(reader: Reader) -> PointOfMachine:
    """The machine in a point. `CorruptObject`, `HostileName`."""
    about, places = read_machine(reader, reader.root())
    readers = [OneDisk(reader, place) for place in places]
    return PointOfMachine(about, list(zip(about.disks, readers, strict=True)))


def disk_of(reader: Reader, name: str) -> OneDisk:
    """One disk, to be read as a point of an image. `NotFound` where the machine has none of this name."""
    found = machine_of(reader).disks
    for disk, one in found:
        if disk.name == name:
            return one
    names = ", ".join(disk.name for disk, _ in found)
    raise NotFound(f"the machine has no disk {name!r}; it has {names or 'none'}")
