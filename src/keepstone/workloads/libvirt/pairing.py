# SPDX-License-Identifier: Apache-2.0
"""What of a point goes where in a domain, and whether it can. Nothing is done here."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from keepstone.env import Env
from keepstone.errors import NotFound, SourceFailed, Unsupported, UsageError
from keepstone.workloads.libvirt.definition import state_file
from keepstone.workloads.libvirt.domains import Domain, DomainDisk, lasting
from keepstone.workloads.libvirt.virsh import Virsh
from keepstone.workloads.libvirt.writable import check_image
from keepstone.workloads.machines import Disk, OneDisk, PointOfMachine, Role
from keepstone.workloads.machines.putting import check_names

__all__ = ["Pair", "Pairing", "paired"]


@dataclass(frozen=True, slots=True)
class Pair:
    """A disk of the point, and that of the domain."""

    disk: Disk
    reader: OneDisk
    image: DomainDisk


@dataclass(frozen=True, slots=True)
class Pairing:
    """`disks`: what goes where; `beside`: what firmware and TPM keep; `left`: the targets that stay as they are."""

    disks: list[Pair]
    beside: list[tuple[Disk, OneDisk]]
    left: list[str]


def paired(
    env: Env,
    virsh: Virsh,
    domain: Domain,
    point: PointOfMachine,
    names: Collection[str],
    description: str,
    allowed: Callable[[Path], object],
    readable: Callable[[Path], object],
) -> Pairing:
    """These disks of the point, or all. `description`: the XML of the domain at its next start; `allowed` raises of a
    file that must not be written, `readable` of a backing file that must not be read. `NotFound`, `UsageError`,
    `Unsupported`, `SourceFailed`, `AccessDenied` where it cannot be."""
    if not domain.persistent:
        raise Unsupported(
            f"{domain.name} is not persistent, it is gone when it is off; define it, or restore its disks by --target"
        )
    check_names(point, names)
    later = lasting(description)
    there = {disk.target: disk for disk in domain.disks}
    found = Pairing([], [], [])
    for disk, reader in point.disks:
        if names and disk.name not in names:
            continue
        if disk.role is not Role.DISK:
            if (path := state_file(virsh, domain, disk)) is not None:
                allowed(path)
            found.beside.append((disk, reader))
            continue
        image = there.pop(disk.name, None)
        if image is None:
            known = ", ".join(one.name for one, _ in point.disks)
            raise NotFound(
                f"{domain.name} has no disk {disk.name}, which the point has; name those to put back, of {known}"
            )
        after = later.get(disk.name)
        if after is None or _same(after) != _same(image):
            raise UsageError(
                f"{disk.name} of {domain.name} is {image.source} now and is another disk after its next start; make "
                "them the same (virsh edit), or start the machine anew"
            )
        image = replace(image, backing=after.backing, whole=after.whole)
        check_image(env, image, allowed, readable)
        _check_size(disk, image)
        found.disks.append(Pair(disk, reader, image))
    found.left.extend(there)
    return found


def _same(disk: DomainDisk) -> tuple[str, str, str, bool]:
    """What has to be the same now and at the next start. What is beneath it is said in full of a domain that runs, and
    otherwise as far as somebody wrote it down; that of the next start counts."""
    return disk.kind, disk.source, disk.format, disk.read_only


def _check_size(disk: Disk, image: DomainDisk) -> None:
    if image.size is None:
        raise SourceFailed(f"libvirt cannot tell how large {disk.name} ({image.source}) is; look at that image")
    if image.size < disk.size:
        raise UsageError(
            f"{disk.name} has {image.size} bytes in the machine and {disk.size} in the point; make it as large (virsh "
            "blockresize, qemu-img resize), or restore the point elsewhere by --target"
        )
