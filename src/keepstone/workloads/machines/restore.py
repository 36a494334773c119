# SPDX-License-Identifier: Apache-2.0
"""From a point of a machine to new images, one disk after the other."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from keepstone.disks.writing import Format
from keepstone.env import Env
from keepstone.errors import NotFound
from keepstone.workloads.images import Lost, image_size, restore_into
from keepstone.workloads.machines.root import Disk, Role
from keepstone.workloads.machines.view import PointOfMachine
from keepstone.workloads.progress import Progress, Together

__all__ = ["restore_disks", "wanted_disks"]


def wanted_disks(machine: PointOfMachine, data: Collection[str] | None) -> list[str]:
    """The disk of the system, what firmware keeps, and these data disks, or all. `NotFound` for one that is none."""
    names = [disk.name for disk, _ in machine.disks]
    if data is None:
        return names
    unknown = sorted(set(data) - set(names))
    if unknown:
        raise NotFound(f"the point has no disk {', '.join(unknown)}; it has {', '.join(names) or 'none'}")
    system = next((disk.name for disk, _ in machine.disks if disk.role is Role.DISK), "")
    return [disk.name for disk, _ in machine.disks if disk.role is not Role.DISK or disk.name in (system, *data)]


def restore_disks(
    env: Env,
    machine: PointOfMachine,
    image: Callable[[Disk], tuple[Path, Format]],
    progress: Progress,
    *,
    names: Collection[str] = (),
) -> list[tuple[Disk, list[Lost]]]:
    """Restore these disks, or all, each into the new file and as the format that `image` says; with each disk, what is
    lost of it. `NotFound` for a name that is none; what `restore_into` raises: then those before it are whole."""
    unknown = sorted(set(names) - {disk.name for disk, _ in machine.disks})
    if unknown:
        known = ", ".join(disk.name for disk, _ in machine.disks)
        raise NotFound(f"the machine has no disk {', '.join(unknown)}; it has {known or 'none'}")
    wanted = [(disk, one) for disk, one in machine.disks if not names or disk.name in names]
    progress.expect(sum(image_size(one) for _, one in wanted))
    told = Together(progress)
    return [(disk, restore_into(env, one, *image(disk), told)) for disk, one in wanted]
