# SPDX-License-Identifier: Apache-2.0
"""From a point of a machine to block sinks, one disk after the other."""

from __future__ import annotations

from collections.abc import Callable, Collection

from keepstone.disks import BlockSink
from keepstone.env import Env
from keepstone.errors import NotFound
from keepstone.workloads.images import Lost, image_size, restore_image
from keepstone.workloads.machines.root import Disk
from keepstone.workloads.machines.view import PointOfMachine
from keepstone.workloads.progress import Progress

__all__ = ["restore_disks"]


def restore_disks(
    env: Env,
    machine: PointOfMachine,
    open_sink: Callable[[Disk, int], BlockSink],
    progress: Progress,
    *,
    names: Collection[str] = (),
) -> list[tuple[Disk, list[Lost]]]:
    """Restore these disks, or all, into what `open_sink` gives for each and its size; with each disk, what is lost of
    it. `NotFound` for a name that is none; what the sinks and `restore_image` raise: then those before it are whole.
    """
    unknown = sorted(set(names) - {disk.name for disk, _ in machine.disks})
    if unknown:
        known = ", ".join(disk.name for disk, _ in machine.disks)
        raise NotFound(f"the machine has no disk {', '.join(unknown)}; it has {known or 'none'}")
    wanted = [(disk, one) for disk, one in machine.disks if not names or disk.name in names]
    sizes = [image_size(one) for _, one in wanted]
    progress.expect(sum(sizes))
    told = _Together(progress)
    return [
        (disk, restore_image(env, one, open_sink(disk, size), told))
        for (disk, one), size in zip(wanted, sizes, strict=True)
    ]


class _Together:
    """A `Progress` of several disks, of which it is known how long they are together."""

    def __init__(self, progress: Progress) -> None:
        self.advance = progress.advance
        self.warn = progress.warn

    def expect(self, size: int) -> None:
        """It is expected already."""
