# SPDX-License-Identifier: Apache-2.0
"""The disks of a point back into a machine that is there, through the QEMU that has them open.

The machine is stopped, its disks are set `aside`, what differs is written to them by NBD, they go back to their
devices, and the machine begins anew with a reset.

Invariants
* Snapshots that QEMU keeps of the machine go first (`kept`), whoever's they are: they hold the disks.
* Nothing is stopped or written before it is sure that every disk is there, is large enough, and can be written.
* QEMU itself writes. So its records of changes stay true: the next backup reads what this changed, and no more. The
  lock of an image stays with it.
* A machine whose disks are half of the point stays stopped, and nodes of ours remember that, whether it ran, and which
  disks these are: none of them can be left out then. Whoever runs this again goes on where it ended, and in the end the
  machine does what it did.
* Nothing else is left in QEMU, whatever happened: `sweep`, and where we are killed, `janitor`.
* QEMU goes on being what it was, but for `-no-reboot`, which counts no more: it would end QEMU instead of a reset.
* NVRAM is not written. QEMU has it in memory from its start to its end, and looks at the file no more: what the guest
  sets later would be mixed into what we put there.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from keepstone.disks import BlockSource
from keepstone.disks.nbd import NbdSink, NbdSource
from keepstone.env import Env
from keepstone.errors import Conflict, KeepstoneError, NotFound, UsageError
from keepstone.workloads.images import PointDisk
from keepstone.workloads.kvm.aside import set_aside
from keepstone.workloads.kvm.backup import Qemu
from keepstone.workloads.kvm.drives import ASIDE, Drive, drives
from keepstone.workloads.kvm.kept import forget, standing
from keepstone.workloads.kvm.qmp import Gone, Monitor
from keepstone.workloads.kvm.serving import Serving
from keepstone.workloads.kvm.sweep import sweep
from keepstone.workloads.machines import Disk, OneDisk, PointOfMachine, Role
from keepstone.workloads.machines.janitor import Janitor
from keepstone.workloads.machines.putting import Put, Replaced, check_names, half_done, put_disk
from keepstone.workloads.progress import Progress, Silent, Together

__all__ = ["check_disks", "replace_disks", "unfinished"]

_MARKS = {"keepstone-replacing-ran": True, "keepstone-replacing-stood": False}
_HALF = "keepstone-half-"  # and which disk: a node each
_MOVING = {"inmigrate", "postmigrate", "finish-migrate", "save-vm", "restore-vm", "colo"}


def unfinished(env: Env, machine: Qemu) -> bool:
    """Whether a replacement of its disks was begun and has not come to its end. `SourceMissing`, `Gone`."""
    with Monitor(env, machine.monitor) as monitor:
        return _marked(monitor) is not None


def check_disks(env: Env, machine: Qemu, point: PointOfMachine, *, names: Collection[str] = ()) -> None:
    """What `replace_disks` would refuse of these disks, before anybody begins; nothing is half done there now."""
    with Monitor(env, machine.monitor) as monitor:
        _Replacement(env, monitor, point, Silent()).pairs(names)


def replace_disks(
    env: Env, machine: Qemu, point: PointOfMachine, progress: Progress, *, names: Collection[str] = ()
) -> Replaced:
    """Put these disks of a point back into the machine, or all, and let it begin anew where it ran.

    A disk that has become larger than the point's is zeros behind its end. Where something is lost in the store the
    machine stays stopped, as after any failure in the middle: then the error says what is half done. `NotFound` where
    point or machine has no such disk, `UsageError` where a disk has become smaller or is read-only, `Conflict` where
    QEMU is busy with its disks: then nothing was done. `Refused`, `Gone`, `StorageError`, and what `restore_image`
    raises.
    """
    with Monitor(env, machine.monitor) as monitor:
        return _Replacement(env, monitor, point, progress).run(names)


@dataclass(frozen=True, slots=True)
class _Pair:
    """A disk of the point, and that of the machine."""

    disk: Disk
    reader: OneDisk
    drive: Drive


class _Replacement:
    """One run."""

    def __init__(self, env: Env, monitor: Monitor, point: PointOfMachine, progress: Progress) -> None:
        self._env, self._monitor, self._point, self._progress = env, monitor, point, progress
        self._serving = Serving(env, monitor, ASIDE)
        self._done: list[Put] = []
        self._touched = False

    def run(self, names: Collection[str]) -> Replaced:
        monitor = self._monitor
        earlier = _marked(monitor)
        self._touched = earlier is not None
        sweep(monitor, ASIDE, None)
        pairs, left = self.pairs(names)
        status = str(monitor.execute("query-status")["status"])
        if status in _MOVING or monitor.execute("query-block-jobs"):
            raise Conflict(f"QEMU at {monitor.path} is busy with its disks or moves; wait until that is over")
        self._let_snapshots_go()
        ran = earlier or status == "running"
        janitor = Janitor(sweep.__module__, str(monitor.path), ASIDE)
        try:
            monitor.execute("stop")
            if earlier is None:
                self._mark(next(name for name, running in _MARKS.items() if running == ran))
            there = _halves(monitor)
            for name in [_half(pair.drive) for pair in pairs if pair.disk.role is Role.DISK]:
                if name not in there:
                    self._mark(name)
            self._put(pairs)
            sweep(monitor, ASIDE, None)
        except BaseException as error:
            self._give_up(error, pairs, ran)
            raise
        finally:
            self._serving.close()
            self._let_go(janitor)
        whole = not any(put.lost for put in self._done)
        if whole:
            self._begin_anew(ran)
        return Replaced(self._done, left, running=whole and ran)

    def _let_snapshots_go(self) -> None:
        there = {(name.owner, name.stamp) for name in standing(self._monitor) if name.kind == "w"}
        forget(self._monitor, "", lambda _: True)
        if there:
            self._progress.warn(
                b"", f"{len(there)} snapshots that QEMU kept of the machine went; their points are in the vault"
            )

    def _mark(self, name: str) -> None:
        self._monitor.execute("blockdev-add", driver="null-co", node_name=name, size=512, read_zeroes=True)

    def pairs(self, names: Collection[str]) -> tuple[list[_Pair], list[str]]:
        """What goes where, and what stays as it is. Nothing is done yet; raises where it could not be."""
        check_names(self._point, names)
        known = ", ".join(disk.name for disk, _ in self._point.disks)
        there = {drive.disk.name: drive for drive in drives(self._monitor)}
        pairs = []
        for disk, reader in self._point.disks:
            if (names and disk.name not in names) or (disk.role is not Role.DISK and disk.name not in there):
                continue
            drive = there.pop(disk.name, None)
            if drive is None:
                raise NotFound(
                    f"the machine has no disk {disk.name}, which the point has; name those to put back, of {known}"
                )
            if drive.disk.size < disk.size:
                raise UsageError(
                    f"{disk.name} has {drive.disk.size} bytes in the machine and {disk.size} in the point; make it as "
                    "large (block_resize), or restore the point elsewhere by --target"
                )
            if not drive.writable:
                raise UsageError(f"{disk.name} is read-only in the machine; restore it elsewhere by --target")
            pairs.append(_Pair(disk, reader, drive))
        half = _halves(self._monitor)
        if other := [drive.disk.name for drive in there.values() if _half(drive) in half]:
            raise UsageError(f"{', '.join(other)} is half put back; name that, too, or no disk for all")
        return pairs, list(there)

    def _put(self, pairs: list[_Pair]) -> None:
        disks = [pair for pair in pairs if pair.disk.role is Role.DISK]
        for pair in disks:
            set_aside(self._monitor, pair.drive)
        self._serving.start()
        self._progress.expect(sum(pair.disk.size for pair in disks))
        told = Together(self._progress)
        for number, pair in enumerate(pairs):
            if pair.disk.role is not Role.DISK:
                self._compare(number, pair)
                continue
            with self._exported(number, pair) as (sink, existing):
                try:
                    lost = put_disk(self._env, pair.reader, pair.disk.size, sink, existing, told)
                finally:
                    self._touched = self._touched or sink.changed > 0
                self._done.append(Put(pair.disk, sink.changed, lost))

    @contextlib.contextmanager
    def _exported(self, number: int, pair: _Pair) -> Iterator[tuple[NbdSink, NbdSource]]:
        name = self._export(number, pair, writable=True)
        with (
            NbdSink(self._env, self._serving.address, name) as sink,
            NbdSource(self._env, self._serving.address, name) as existing,
        ):
            yield sink, existing

    def _export(self, number: int, pair: _Pair, *, writable: bool) -> str:
        name = f"{ASIDE}e{number}"
        self._monitor.execute(
            "block-export-add", type="nbd", id=name, node_name=pair.drive.node, name=name, writable=writable
        )
        return name

    def _compare(self, number: int, pair: _Pair) -> None:
        """Say so where what is not written differs."""
        name = self._export(number, pair, writable=False)
        with NbdSource(self._env, self._serving.address, name) as there, PointDisk(self._env, pair.reader) as point:
            if point.size > there.size or _content(there)[: point.size] != _content(point):
                self._progress.warn(
                    pair.disk.name.encode(),
                    "is not put back: QEMU has it in memory until it ends; end it, restore this by --target, start it",
                )

    def _begin_anew(self, ran: bool) -> None:
        """Reset the machine, and let it go on where it ran."""
        monitor = self._monitor
        # Else -no-reboot would end QEMU, now or soon: after a reset of a machine that stood, SeaBIOS makes another.
        monitor.execute("set-action", reboot="reset")
        monitor.execute("system_reset")
        # Not before that has come about: what runs until then is the old guest on the new disks.
        monitor.wait(lambda: monitor.execute("query-status")["status"] == "prelaunch", "the reset")
        self._unmark()
        if ran:
            monitor.execute("cont")

    def _unmark(self) -> None:
        for node in self._monitor.execute("query-named-block-nodes", flat=True):
            if node["node-name"] in _MARKS or node["node-name"].startswith(_HALF):
                self._monitor.execute("blockdev-del", node_name=node["node-name"])

    def _give_up(self, error: BaseException, pairs: list[_Pair], ran: bool) -> None:
        """Undo all where nothing was written; else say how things are."""
        if not self._touched:
            with contextlib.suppress(KeepstoneError):
                sweep(self._monitor, ASIDE, None)
                self._unmark()
                if ran:
                    self._monitor.execute("cont")
                return
        whole = {put.disk.name for put in self._done}
        half = [pair.disk.name for pair in pairs if pair.disk.role is Role.DISK and pair.disk.name not in whole]
        note = half_done(half, whole, "the machine is stopped")
        if isinstance(error, Gone):
            note += ". Where QEMU has ended, start it with -S before that, so that the guest does not run"
        if isinstance(error, KeepstoneError):
            error.args = (f"{error}. {note[0].upper()}{note[1:]}",)
        else:
            self._progress.warn(b"", note)

    def _let_go(self, janitor: Janitor) -> None:
        try:
            sweep(self._monitor, ASIDE, None)
        except KeepstoneError:
            janitor.let_go()  # which tries it once more, over a connection of its own
        else:
            janitor.dismiss()


def _marked(monitor: Monitor) -> bool | None:
    """Whether the machine ran before a replacement that is not finished; None where there is none."""
    for node in monitor.execute("query-named-block-nodes", flat=True):
        if node["node-name"] in _MARKS:
            return _MARKS[node["node-name"]]
    return None


def _halves(monitor: Monitor) -> set[str]:
    """The nodes that say of a disk that it is half put back."""
    nodes = monitor.execute("query-named-block-nodes", flat=True)
    return {node["node-name"] for node in nodes if node["node-name"].startswith(_HALF)}


def _half(drive: Drive) -> str:
    return _HALF + hashlib.sha256(drive.disk.name.encode()).hexdigest()[:12]


def _content(disk: BlockSource) -> bytes:
    buffer = bytearray(disk.size)
    disk.pread_into(memoryview(buffer), 0)
    return bytes(buffer)
