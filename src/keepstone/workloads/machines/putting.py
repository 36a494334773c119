# SPDX-License-Identifier: Apache-2.0
"""What putting the disks of a point back into a machine is, whichever hypervisor has it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from keepstone.disks.nbd import NbdSink, NbdSource
from keepstone.env import Env
from keepstone.errors import NotFound
from keepstone.workloads.images import Lost, restore_image
from keepstone.workloads.machines.root import Disk
from keepstone.workloads.machines.view import OneDisk, PointOfMachine
from keepstone.workloads.progress import Progress

__all__ = ["Put", "Replaced", "check_names", "half_done", "put_disk"]


@dataclass(frozen=True, slots=True)
class Put:
    """A disk that was put back. `changed`: how many bytes differed; `lost`: what the store could not give."""

    disk: Disk
    changed: int
    lost: list[Lost]


@dataclass(frozen=True, slots=True)
class Replaced:
    """What was done. `left`: disks of the machine that were left as they are; `running`: whether it runs again."""

    disks: list[Put]
    left: list[str]
    running: bool


def check_names(point: PointOfMachine, names: Collection[str]) -> None:
    """`NotFound` where the point has no such disk."""
    unknown = sorted(set(names) - {disk.name for disk, _ in point.disks})
    if unknown:
        known = ", ".join(disk.name for disk, _ in point.disks) or "none"
        raise NotFound(f"the point has no disk {', '.join(unknown)}; it has {known}")


def put_disk(
    env: Env, reader: OneDisk, size: int, sink: NbdSink, existing: NbdSource, progress: Progress
) -> list[Lost]:
    """Write what differs of this disk of `size` bytes, and zeros behind its end; what is lost of it. `existing` reads
    what `sink` writes to. What `restore_image` raises."""
    for extent in existing.extents():
        begin = max(extent.offset, size)
        if begin < extent.end and not extent.zero:
            sink.zero(begin, extent.end - begin)
    return restore_image(env, reader, sink, progress, existing=existing)


def half_done(half: Collection[str], whole: Collection[str], how: str) -> str:
    """How things are after a failure in the middle, for people; `how` it is with the machine."""
    return (
        f"{how}: {', '.join(half) or 'no disk'} is neither what it was nor the point"
        + (f", {', '.join(sorted(whole))} is put back" if whole else "")
        + ". Run the same again: it writes what still differs, and starts the machine if it ran"
    )
