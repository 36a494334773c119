# SPDX-License-Identifier: Apache-2.0
"""A backup leaves the moment of its point in QEMU; `kept.py` says what that looks like.

The job of the backup holds the moment as long as it reads, and no longer: QEMU lets a disk have one such job, whose
failure is the guest's. So filters of our own are put between the devices and their disks right before the transaction
that is the moment, one after the other, and replace those of the snapshot before. What the guest writes between the two
is recorded, read while the job holds the moment, and put into the file of what was overwritten while the backup read.

Invariants
* A snapshot is complete, or there is none: `w` comes last. A disk that cannot be kept is left out, and a warning says
  why; the backup is none the worse for it.
* While the guest is frozen nothing is done but one command for each disk, which takes about a millisecond.
* What a filter may write is bounded: half of what is free, for all disks together, and never into the reserve.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keepstone.disks.nbd import NbdSink, NbdSource
from keepstone.env import Env
from keepstone.workloads.kvm.drives import Drive
from keepstone.workloads.kvm.kept import DAY, Name, forget, mark_of, named, standing
from keepstone.workloads.kvm.nameless import Nameless
from keepstone.workloads.kvm.qmp import Monitor, Refused
from keepstone.workloads.kvm.serving import Serving
from keepstone.workloads.kvm.sweep import end_exports, remove_nodes
from keepstone.workloads.kvm.threads import has_thread
from keepstone.workloads.machines import Role
from keepstone.workloads.machines.guard import Room

__all__ = ["MOST", "Keeping"]

MOST = 8
"""Snapshots of an item that stay at most: each of them takes two open files a disk, and reading the oldest goes through
all of them."""
_SMALLEST = 16 << 20  # bytes that a filter has to have room for
_LATE = 64 << 20  # bytes of a disk that may be written between its filter and the moment
_PATIENCE = 10  # seconds that a copy may take before the snapshot is given up


@dataclass(slots=True)
class _Disk:
    """One that is kept. `late`: what it held at the moment where that was written since its filter came."""

    number: int
    drive: Drive
    name: Name
    late: list[tuple[int, bytes]] = field(default_factory=list)


class Keeping:
    """`stamp`: when it begins, later than all that are there; `days`: for how long it stays.

    `prepare`, `enter` in the moment, `read` while that is held, and `finish` when there is a point. Whatever comes,
    `collect` afterwards.
    """

    def __init__(
        self,
        env: Env,
        monitor: Monitor,
        prefix: str,
        drives: Sequence[Drive],
        room: Room,
        warn: Callable[[str], None],
        *,
        stamp: int,
        days: int,
    ) -> None:
        self._env, self._monitor, self._prefix, self._room, self._warn = env, monitor, prefix, room, warn
        self._owner = prefix[:-1]
        self._stamp, self._days = stamp, days
        self._files = Nameless(env, monitor, prefix, room.folder)
        self._disks = {one.number: one for one in self._chosen(drives)}

    def _chosen(self, drives: Sequence[Drive]) -> list[_Disk]:
        others = [drive for drive in drives if drive.top != drive.node and not self._is_ours(drive.top)]
        if others:
            self._warn("no snapshot is kept: another item or store keeps some of this machine already")
            return []
        chosen: list[_Disk] = []
        for number, drive in enumerate(drives):
            if drive.disk.role is not Role.DISK or not drive.writable:
                continue
            name = Name(self._owner, mark_of(drive.disk.name), self._stamp, self._days, "k")
            if has_thread(self._monitor, drive.device) or name.mark in {one.name.mark for one in chosen}:
                self._warn(f"no snapshot of {drive.disk.name} is kept: it has an iothread, or a name like another's")
                continue
            chosen.append(_Disk(number, drive, name))
        return chosen

    def _is_ours(self, node: str) -> bool:
        name = named(node)
        return name is not None and name.owner == self._owner

    def file(self, number: int) -> str | None:
        """What the file of this disk is called into which the backup fleeces; None where it is not kept."""
        return self._disks[number].name.of("u") if number in self._disks else None

    def bitmap(self, number: int) -> str | None:
        """That of what was written between the filter of this disk and the moment; None where it is not kept."""
        return f"{self._prefix}d{number}" if number in self._disks else None

    def prepare(self) -> None:
        """Make the filters; none is in use yet."""
        most = self._room.spare() // 2 // max(1, len(self._disks))
        for one in list(self._disks.values()):
            if most < _SMALLEST:
                self._leave_out(one, f"{self._room.folder} has no room for it")
                continue
            with self._tried(one):
                self._filter(one, most)

    def _filter(self, one: _Disk, most: int) -> None:
        size, node = one.drive.disk.size, one.drive.node
        whole = size + size // 16 + _SMALLEST  # an image that has all of the disk
        self._files.add(one.name.of("v"), one.number, size, most=min(most, whole) // 512 * 512)
        self._monitor.execute("blockdev-add", driver="qcow2", node_name=one.name.of("t"), file=one.name.of("v"))
        self._monitor.execute(
            "blockdev-add",
            driver="copy-before-write",
            node_name=one.name.of("k"),
            file=node,
            target=one.name.of("t"),
            on_cbw_error="break-snapshot",
            cbw_timeout=_PATIENCE,
            discard="unmap",  # else what the guest lets go of would stay in the disk
        )
        self._monitor.execute("block-dirty-bitmap-add", node=node, name=self.bitmap(one.number))

    def enter(self) -> list[dict[str, Any]]:
        """Put the filters where they belong; what goes into the transaction of the moment."""
        actions = []
        for one in list(self._disks.values()):
            with self._tried(one):
                self._monitor.execute("qom-set", path=one.drive.device, property="drive", value=one.name.of("k"))
                bitmap = {"node": one.drive.node, "name": self.bitmap(one.number)}
                actions.append({"type": "block-dirty-bitmap-disable", "data": bitmap})
        return actions

    def read(self, address: Path, exports: Sequence[str]) -> None:
        """Read what was written before the moment and after the filter came, as it was at the moment."""
        for one in list(self._disks.values()):
            bitmap = self.bitmap(one.number)
            with NbdSource(self._env, address, exports[one.number], bitmap=bitmap) as source:
                extents = list(source.extents(bitmap)) if source.tracked else []
                if not source.tracked or sum(extent.length for extent in extents) > _LATE:
                    self._leave_out(one, "the guest wrote too much while it began")
                    continue
                for extent in extents:
                    room = bytearray(extent.length)
                    source.pread_into(memoryview(room), extent.offset)
                    one.late.append((extent.offset, bytes(room)))

    def finish(self) -> list[int]:
        """There is a point, and its jobs have ended: now there is a snapshot of it, and those whose time is over go.
        When those began that stay. `Refused`, `Gone`, `StorageError`."""
        self._put([one for one in self._disks.values() if one.late])
        for one in self._disks.values():
            self._monitor.execute(
                "blockdev-add", driver="raw", node_name=one.name.of("w"), file=one.name.of("u"), read_only=True
            )
        stamps = sorted({name.stamp for name in standing(self._monitor, self._owner) if name.kind == "w"})
        oldest = max(self._stamp - self._days * DAY, *stamps[-MOST:][:1], 0)
        return forget(self._monitor, self._owner, lambda name: name.stamp < oldest or name.until <= self._stamp)

    def _put(self, disks: list[_Disk]) -> None:
        """Into the files of what was overwritten meanwhile, which QEMU itself writes."""
        if not disks:
            return
        nodes = {one.number: f"{self._prefix}p{one.number}" for one in disks}
        serving = Serving(self._env, self._monitor, self._prefix)
        serving.start()
        try:
            for one in disks:
                node = nodes[one.number]
                self._monitor.execute("blockdev-add", driver="qcow2", node_name=node, file=one.name.of("u"))
                self._monitor.execute("block-export-add", type="nbd", id=node, node_name=node, name=node, writable=True)
                with NbdSink(self._env, serving.address, node) as sink:
                    for offset, data in one.late:
                        sink.write(offset, data)
                    sink.finish()
        finally:
            serving.close()
        end_exports(self._monitor, self._prefix)
        remove_nodes(self._monitor, list(nodes.values()))

    @contextlib.contextmanager
    def _tried(self, one: _Disk) -> Any:
        try:
            yield
        except Refused as error:
            self._leave_out(one, str(error))

    def _leave_out(self, one: _Disk, why: str) -> None:
        self._disks.pop(one.number, None)
        self._warn(f"no snapshot of {one.drive.disk.name} is kept: {why}")
