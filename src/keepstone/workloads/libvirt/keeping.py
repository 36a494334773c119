# SPDX-License-Identifier: Apache-2.0
"""Snapshots of a domain that stay after its backup: what `workloads.kvm.keeping` says, in the QEMU that libvirt has.

The moment is libvirt's own transaction, and the job's files are libvirt's own. So what the guest writes between the
filters and the moment is not recorded, and there is no file of what it overwrote while the backup read: the snapshot
has the disks as they were when their filters came. Where that is not what the point has, its reader finds out, chunk by
chunk, and has it from the vault (`machines.near`).

libvirt knows nothing of the filters: it speaks of the disks by their own nodes and of devices by their own names.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import msgspec

from keepstone.env import Env
from keepstone.errors import KeepstoneError
from keepstone.workloads.kvm.drives import Drive, drives
from keepstone.workloads.kvm.keeping import Keep, Keeping, settle
from keepstone.workloads.kvm.kept import collect, end_reading
from keepstone.workloads.kvm.monitor import Monitor, Refused
from keepstone.workloads.kvm.sweep import TURN, sweep
from keepstone.workloads.libvirt import monitor as through
from keepstone.workloads.libvirt.domains import Domain, DomainDisk
from keepstone.workloads.libvirt.markup import parsed
from keepstone.workloads.libvirt.virsh import Virsh
from keepstone.workloads.machines import Room

__all__ = ["Snapshots", "clear", "snapshots"]


class Snapshots:
    """What a backup does with them: `prepare`, `enter` right before the moment, `finish` when there is a point, and
    `clear`, whatever comes."""

    def __init__(self, env: Env, monitor: Monitor, prefix: str, keep: Keep | None, keeping: Keeping | None) -> None:
        self._env, self._monitor, self._prefix = env, monitor, prefix
        self._keep, self._keeping = keep, keeping

    @property
    def stamp(self) -> int:
        """That of the snapshot of this point; 0 for none."""
        return 0 if self._keeping is None else self._keeping.stamp

    def prepare(self) -> None:
        """Make the filters; none is in use yet."""
        if self._keeping is not None:
            self._keeping.prepare()

    def enter(self) -> None:
        """Put the filters where they belong."""
        if self._keeping is not None:
            self._keeping.enter()

    def finish(self) -> None:
        """There is a point, and its job has ended."""
        settle(self._env, self._monitor, self._prefix[:-1], self._keeping, self._keep)

    def clear(self) -> None:
        """Take away whatever no snapshot needs. `Refused`, `Gone`."""
        _clear(self._monitor, self._prefix)


@contextlib.contextmanager
def snapshots(
    env: Env,
    virsh: Virsh,
    domain: Domain,
    disks: Sequence[DomainDisk],
    prefix: str,
    keep: Keep | None,
    room: Room | None,
    warn: Callable[[str], None],
) -> Iterator[Snapshots | None]:
    """Those of a domain that runs, whose monitor is ours until the end of this; None where there are none, and none is
    wanted. Whoever reads one goes on from the vault: libvirt needs QEMU's one NBD server for the backup."""
    wanted = keep.days if keep is not None and room is not None else 0
    marked = through.is_marked(domain.description)
    if wanted and not marked:
        try:
            through.mark(virsh, domain.uuid)
            marked = True
        except Refused as error:
            warn(f"no snapshot is kept: {error}")
    if not marked:
        if keep is not None:
            keep.there = []
        yield None
        return
    with through.Monitor(env, virsh, domain.uuid) as monitor:
        end_reading(monitor)
        _clear(monitor, prefix)
        keeping = None
        if wanted and room is not None:
            kept = _drives(monitor, domain, disks)
            keeping = Keeping(env, monitor, prefix, kept, room, warn, days=wanted)
        yield Snapshots(env, monitor, prefix, keep, keeping)


def _drives(monitor: Monitor, domain: Domain, disks: Sequence[DomainDisk]) -> list[Drive]:
    """These disks as QEMU has them, each by its target: libvirt calls its device by the alias."""
    root = parsed(domain.description, f"the description of {domain.name}")
    wanted, names = {disk.target for disk in disks}, {}
    for disk in root.iterfind("devices/disk"):
        target, alias = disk.find("target"), disk.find("alias")
        if target is not None and alias is not None and target.get("dev") in wanted:
            names[alias.get("name", "")] = target.get("dev", "")
    return [
        replace(drive, disk=msgspec.structs.replace(drive.disk, name=names[drive.disk.name]))
        for drive in drives(monitor)
        if drive.disk.name in names
    ]


def _clear(monitor: Monitor, prefix: str) -> None:
    """Bitmaps are those of checkpoints, and libvirt's."""
    sweep(monitor, prefix, None)
    collect(monitor, prefix[:-1])


def clear(env: Env, virsh: Virsh, uuid: str, prefix: str) -> None:
    """The same for a backup that was killed."""
    with contextlib.suppress(KeepstoneError), through.Way(virsh, uuid).open(env, TURN) as monitor:
        _clear(monitor, prefix)
