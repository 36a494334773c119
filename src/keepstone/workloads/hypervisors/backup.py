# SPDX-License-Identifier: Apache-2.0
"""A backup of a machine that is known by a document."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec

from keepstone.env import Env
from keepstone.store import Writer
from keepstone.workloads.hypervisors.address import LibvirtAddress, address_of
from keepstone.workloads.hypervisors.discovery import disks_of
from keepstone.workloads.images import Report
from keepstone.workloads.kvm import Fleecing, Keep, Qemu, backup_qemu
from keepstone.workloads.libvirt import Virsh, backup_domain, unread
from keepstone.workloads.machines import Room
from keepstone.workloads.progress import Progress

__all__ = ["Chosen", "backup_vm"]


class Chosen(msgspec.Struct, frozen=True):
    """Which data disks are taken, by their names: only these (`only`), or all but these. The disk of the system, which
    is the first one, is always taken, and so is what firmware keeps."""

    names: list[str] = []
    only: bool = False

    def left_out(self, disks: Collection[str]) -> list[str]:
        """What of these disks, the system's first, is not taken."""
        return [name for name in list(disks)[1:] if (name in self.names) is not self.only]


def backup_vm(
    env: Env,
    writer: Writer,
    source: Mapping[str, Any],
    progress: Progress,
    *,
    owner: str,
    snapshots: Path | None = None,
    keep: Keep | None = None,
    readable: Callable[[Path], object] = unread,
) -> Report:
    """Make a recovery point of the machine of an item and commit it. `source`: its address, and `disks`, which are
    chosen (`Chosen`). `snapshots`: the folder of those that stay, `keep` as `backup_qemu` has it; `readable` is for
    machines of libvirt only. `owner`, `readable` and what is raised as in `backup_qemu` and `backup_domain`;
    `UsageError`."""
    address = address_of(source)
    exclude: list[str] = []
    if source.get("disks"):
        chosen = msgspec.convert(source["disks"], Chosen)
        exclude = chosen.left_out([disk.name for disk in disks_of(env, address)])
    folder = None
    if snapshots is not None and keep is not None and keep.days:
        if _has_room(env, snapshots):
            folder = snapshots
        else:
            progress.warn(b"", f"no snapshot is kept: there is no folder {snapshots}, or no room in it")
            keep = None
    if isinstance(address, LibvirtAddress):
        return backup_domain(
            env,
            writer,
            Virsh(address.connect),
            address.uuid,
            progress,
            owner=owner,
            fleecing=Room(env, address.fleece),
            exclude=exclude,
            readable=readable,
            keep=keep,
            snapshots=None if folder is None else Room(env, folder),
        )
    machine, fleecing = Qemu(address.monitor, address.agent), Fleecing(folder or address.fleece)
    return backup_qemu(env, writer, machine, progress, owner=owner, fleecing=fleecing, exclude=exclude, keep=keep)


def _has_room(env: Env, folder: Path) -> bool:
    try:
        return Room(env, folder).spare() > 0
    except OSError:
        return False
