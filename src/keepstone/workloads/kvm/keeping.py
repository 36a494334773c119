# SPDX-License-Identifier: Apache-2.0
"""A backup leaves the moment of its point in QEMU; `kept.py` says what that looks like.

The job of the backup holds the moment as long as it reads, and no longer: QEMU lets a disk have one such job, whose
failure is the guest's. So filters of our own are put between the devices and their disks right before the moment, one
after the other, and replace those of the snapshot before. What the guest writes between the two the snapshot has as it
was before that, unless somebody records it (`late.py`); whoever reads it finds that it is not what the vault has.

Invariants
* A snapshot is complete, or there is none: `w` comes last. A disk that cannot be kept is left out, and a warning says
  why; the backup is none the worse for it.
* While the guest is frozen nothing is done but one command for each disk. That takes about a millisecond, and 30 to 70
  through libvirt.
* What a filter may write is bounded: half of what is free, for all disks together, and never into the reserve.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from keepstone.env import Env
from keepstone.workloads.kvm.drives import Drive
from keepstone.workloads.kvm.kept import DAY, Name, forget, mark_of, named, standing
from keepstone.workloads.kvm.monitor import Monitor, Refused
from keepstone.workloads.kvm.nameless import Nameless
from keepstone.workloads.kvm.threads import has_thread
from keepstone.workloads.machines import Role
from keepstone.workloads.machines.guard import Room

__all__ = ["MOST", "Keep", "Keeping", "Kept", "settle"]

MOST = 8
"""Snapshots of an item that stay at most: each of them takes two open files a disk, and reading the oldest goes through
all of them."""
_SMALLEST = 16 << 20  # bytes that a filter has to have room for
_PATIENCE = 10  # seconds that a copy may take before the snapshot is given up


@dataclass(slots=True)
class Keep:
    """That a snapshot of the point stays in QEMU for so many days, 1 to 30; 0 for none, and those before go. `there`:
    told when the point is made; when those of the item began that are there now, seconds since 1970 (`stamp_of`)."""

    days: int
    there: list[int] | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """A disk that is kept. `number`: its place among the drives."""

    number: int
    drive: Drive
    name: Name


class Keeping:
    """`prefix`: how names begin of what is needed meanwhile; `room`: where the files are; `days`: how long it stays.

    `prepare`, `enter` right before the moment, and `finish` when there is a point; whatever comes, `collect` then.
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
        days: int,
    ) -> None:
        self._env, self._monitor, self._prefix, self._room, self._warn = env, monitor, prefix, room, warn
        self._owner = prefix[:-1]
        self._days = days
        self.stamp = max([env.wall_time() // 10**9, *(name.stamp + 1 for name in standing(monitor, self._owner))])
        """When it begins, later than all that are there, seconds since 1970."""
        self._files = Nameless(env, monitor, prefix, room.folder)
        self.disks = {one.number: one for one in self._chosen(drives)}
        """Those that are kept, by number."""

    def _chosen(self, drives: Sequence[Drive]) -> list[Kept]:
        others = [drive for drive in drives if drive.top != drive.node and not self._is_ours(drive.top)]
        if others:
            self._warn("no snapshot is kept: another item or store keeps some of this machine already")
            return []
        chosen: list[Kept] = []
        for number, drive in enumerate(drives):
            if drive.disk.role is not Role.DISK or not drive.writable:
                continue
            name = Name(self._owner, mark_of(drive.disk.name), self.stamp, self._days, "k")
            if has_thread(self._monitor, drive.device) or name.mark in {one.name.mark for one in chosen}:
                self._warn(f"no snapshot of {drive.disk.name} is kept: it has an iothread, or a name like another's")
                continue
            chosen.append(Kept(number, drive, name))
        return chosen

    def _is_ours(self, node: str) -> bool:
        name = named(node)
        return name is not None and name.owner == self._owner

    def prepare(self) -> None:
        """Make the filters; none is in use yet."""
        most = self._room.spare() // 2 // max(1, len(self.disks))
        for one in list(self.disks.values()):
            if most < _SMALLEST:
                self.leave_out(one, f"{self._room.folder} has no room for it")
                continue
            with self.tried(one):
                self._filter(one, most)
        if self._monitor.execute("query-block-jobs"):  # from now on QEMU begins none that would take a disk away
            for one in list(self.disks.values()):
                self.leave_out(one, "a job of somebody else is at work on the disks of this machine")

    def _filter(self, one: Kept, most: int) -> None:
        size, node = one.drive.disk.size, one.drive.node
        whole = size + size // 16 + _SMALLEST  # an image that has all of the disk
        self._files.add(one.name.of("v"), one.number, size, most=min(most, whole) // 512 * 512)
        self._monitor.execute("blockdev-add", driver="qcow2", node_name=one.name.of("t"), file=one.name.of("v"))
        self._monitor.execute("blockdev-add", driver="raw", node_name=one.name.of("b"), file=node)
        self._monitor.execute(
            "blockdev-add",
            driver="copy-before-write",
            node_name=one.name.of("k"),
            file=one.name.of("b"),
            target=one.name.of("t"),
            on_cbw_error="break-snapshot",
            cbw_timeout=_PATIENCE,
            discard="unmap",  # else what the guest lets go of would stay in the disk
        )

    def enter(self) -> None:
        """Put the filters where they belong."""
        for one in list(self.disks.values()):
            with self.tried(one):
                self._monitor.execute("qom-set", path=one.drive.device, property="drive", value=one.name.of("k"))

    def finish(self) -> list[int]:
        """There is a point, and its jobs have ended: now there is a snapshot of it, and those whose time is over go.
        When those began that stay. `Refused`, `Gone`, `StorageError`."""
        there = {str(name) for name in standing(self._monitor, self._owner)}
        for one in self.disks.values():
            what: dict[str, Any] = {"driver": "null-co", "size": 0}
            if (file := one.name.of("u")) in there:
                what = {"driver": "raw", "file": file}
            self._monitor.execute("blockdev-add", node_name=one.name.of("w"), read_only=True, **what)
        stamps = sorted({name.stamp for name in standing(self._monitor, self._owner) if name.kind == "w"})
        oldest = max(self.stamp - self._days * DAY, *stamps[-MOST:][:1], 0)
        return forget(self._monitor, self._owner, lambda name: name.stamp < oldest or name.until <= self.stamp)

    @contextlib.contextmanager
    def tried(self, one: Kept) -> Iterator[None]:
        """Leave this disk out where QEMU refuses something."""
        try:
            yield
        except Refused as error:
            self.leave_out(one, str(error))

    def leave_out(self, one: Kept, why: str) -> None:
        """This one is not kept, and a warning says why."""
        self.disks.pop(one.number, None)
        self._warn(f"no snapshot of {one.drive.disk.name} is kept: {why}")


def settle(env: Env, monitor: Monitor, owner: str, keeping: Keeping | None, keep: Keep | None) -> None:
    """There is a point, whose snapshot stays where it is kept; those before go as `keep` says, or when their time is
    over. What `Keeping.finish` raises."""
    if keep is None:
        now = env.wall_time() // 10**9
        forget(monitor, owner, lambda name: name.until <= now)
    else:
        keep.there = forget(monitor, owner, lambda _: True) if keeping is None else keeping.finish()
