# SPDX-License-Identifier: Apache-2.0
"""From a machine that runs in QEMU to a recovery point of it.

Invariants
* The guest is never left frozen (`freeze`), and goes on where there is no room for us (`guard`).
* Nothing is left in QEMU but the bitmaps of the newest point, and snapshots where they are wanted (`kept`): what we
  made is swept last, whatever happened (`sweep`). Where we are killed, a process of its own does it (`janitor`), and
  the next backup begins with what is still there.
* The bitmaps of the point before go only when the new point is durable. Where it is not known whether it is, because
  the commit itself failed, those of both stay until the next backup sees which point there is.
* What changed is read only where the bitmap of that disk has the name that the parent point remembers for it, and QEMU
  vouches for it. In every other case the disk is read in full, and a warning says why.
* A QEMU that would end because its disks are served is left alone (`threads`).
* All disks are of one moment, for which every one of them is held until the last byte is read (`moment`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from keepstone.disks.nbd import NbdSource
from keepstone.env import Env
from keepstone.errors import KeepstoneError
from keepstone.store import Writer
from keepstone.workloads.images import Report
from keepstone.workloads.kvm import nearby
from keepstone.workloads.kvm.definition import definition, name_of
from keepstone.workloads.kvm.drives import Drive, bitmaps, chosen, drives
from keepstone.workloads.kvm.freeze import frozen
from keepstone.workloads.kvm.guard import Guard
from keepstone.workloads.kvm.keeping import Keep, settle
from keepstone.workloads.kvm.kept import collect, end_reading, take_away
from keepstone.workloads.kvm.late import Late
from keepstone.workloads.kvm.moment import Moment
from keepstone.workloads.kvm.qmp import Gone, Monitor
from keepstone.workloads.kvm.sweep import sweep
from keepstone.workloads.kvm.threads import check_threads
from keepstone.workloads.machines import Consistency, Level, Machine, Part, backup_machine
from keepstone.workloads.machines.checked import Checked
from keepstone.workloads.machines.guard import RESERVE, Room
from keepstone.workloads.machines.janitor import Janitor
from keepstone.workloads.machines.naming import prefix_of
from keepstone.workloads.machines.root import tokens
from keepstone.workloads.progress import Progress

__all__ = ["Fleecing", "Qemu", "backup_qemu"]


@dataclass(frozen=True, slots=True)
class Qemu:
    """A machine: the socket of its monitor (QMP), and that of its guest agent where it has one. It is a `Way`."""

    monitor: Path
    agent: Path | None = None

    @property
    def address(self) -> str:
        """Names it for people and for the record of a point."""
        return f"qemu:{self.monitor}"

    def open(self, env: Env, timeout: float) -> Monitor:
        return Monitor(env, self.monitor, timeout=timeout)

    def janitor(self, prefix: str) -> Janitor:
        return Janitor(nearby.__name__, str(self.monitor), prefix)


@dataclass(frozen=True, slots=True)
class Fleecing:
    """Where what the guest overwrites meanwhile is kept, and how many bytes must stay free there."""

    folder: Path
    reserve: int = RESERVE


def backup_qemu(
    env: Env,
    writer: Writer,
    machine: Qemu,
    progress: Progress,
    *,
    owner: str,
    fleecing: Fleecing,
    exclude: Collection[str] = (),
    full: bool = False,
    keep: Keep | None = None,
) -> Report:
    """Make a recovery point of the machine and commit it.

    `owner` names the item and its store, the same each time: what we have in QEMU goes by it. `exclude`: names of
    disks, or of their nodes. `full`: read everything, whatever the bitmaps say. `keep`: a snapshot stays, with its
    files in the folder of `fleecing`; without, those that are there stay until their time is over. `NotFound` where
    there is no such disk or machine, `SourceFailed` where QEMU refuses or ends, `StorageFull`, `Conflict`, and what the
    store raises; nothing is visible then, and the caller aborts the writer.
    """
    with Monitor(env, machine.monitor) as monitor:
        return _Backup(env, writer, machine, monitor, progress, prefix_of(owner), fleecing, keep).run(exclude, full)


class _Backup:
    """One run."""

    def __init__(
        self,
        env: Env,
        writer: Writer,
        machine: Qemu,
        monitor: Monitor,
        progress: Progress,
        prefix: str,
        fleecing: Fleecing,
        keep: Keep | None,
    ) -> None:
        self._env, self._writer, self._machine, self._monitor = env, writer, machine, monitor
        self._progress, self._prefix, self._fleecing = progress, prefix, fleecing
        self._room = Room(env, fleecing.folder, fleecing.reserve)
        self._known = tokens(writer.parent)
        self._name = machine.address.encode("utf-8", "surrogateescape")
        self._keep, self._owner = keep, prefix[:-1]
        self._warnings = 0
        self._ran = False
        self._guard: Guard | None = None

    def _warn(self, message: str) -> None:
        self._warnings += 1
        self._progress.warn(self._name, message)

    def run(self, exclude: Collection[str], full: bool) -> Report:
        monitor, before = self._monitor, set(self._known.values())
        end_reading(monitor)  # whoever reads a snapshot goes on from the vault
        sweep(monitor, self._prefix, before)
        collect(monitor, self._owner)
        found, excluded = chosen(drives(monitor), exclude)
        check_threads(monitor, found)
        self._room.enough()
        since = {} if full else self._since(found)
        keeping = self._kept(found)
        janitor = Janitor(take_away.__module__, str(self._machine.monitor), self._prefix)
        moment = Moment(self._env, monitor, self._prefix, found, since, self._fleecing.folder, keeping=keeping)
        keep = before
        try:
            moment.prepare()
            consistency = self._hold(moment)
            about = Machine(
                name=name_of(monitor),
                moment=moment.when,
                consistency=consistency,
                disks=[drive.disk for drive in found],
                definition=definition(self._env, monitor),
                excluded=excluded,
            )
            moment.show()
            with self._guarded(moment) as (guard, parts):
                if keeping is not None:
                    keeping.read(moment.address, [disk.export for disk in moment.disks])

                def held() -> None:
                    nonlocal keep
                    guard.check()
                    moment.lasted()
                    keep = before.union(disk.token for disk in moment.disks)

                report = backup_machine(
                    self._writer,
                    about,
                    parts,
                    self._progress,
                    name=self._name,
                    held=held,
                    warnings=self._warnings,
                    stamp=0 if keeping is None else keeping.stamp,
                )
            keep = {disk.token for disk in moment.disks}
            self._finish(keeping, keep)
            return report
        finally:
            moment.close()
            self._let_go(keep, janitor)
            if self._guard is not None:
                self._guard.settle()

    def _kept(self, found: list[Drive]) -> Late | None:
        if self._keep is None or not self._keep.days:
            return None
        return Late(self._env, self._monitor, self._prefix, found, self._room, self._warn, days=self._keep.days)

    def _finish(self, keeping: Late | None, keep: set[str]) -> None:
        """There is a point, and whatever becomes of snapshots does not change that."""
        try:
            sweep(self._monitor, self._prefix, keep)
            settle(self._env, self._monitor, self._owner, keeping, self._keep)
        except KeepstoneError as error:
            self._progress.warn(self._name, f"no snapshot of this point is kept: {error}")

    def _let_go(self, keep: set[str], janitor: Janitor) -> None:
        """Where QEMU has ended there is nothing to take away; what it refuses now, the next backup takes away."""
        try:
            sweep(self._monitor, self._prefix, keep)
            collect(self._monitor, self._owner)
        except Gone:
            janitor.let_go()  # which tries it once more, over a connection of its own
        except KeepstoneError as error:
            self._progress.warn(self._name, f"something of this backup is still in QEMU until the next one: {error}")
            janitor.let_go()
        else:
            janitor.dismiss()

    def _since(self, found: list[Drive]) -> dict[str, str]:
        """By disk, the bitmap of what changed since the parent point, where it can be relied on."""
        since = {}
        there = bitmaps(self._monitor)
        for drive in found:
            token = self._known.get(drive.disk.name)
            if token is None:
                continue
            bitmap = there.get(drive.node, {}).get(token)
            why = ""
            if bitmap is None:
                why = "QEMU has lost the record of what changed on it, or its image was replaced"
            elif bitmap.inconsistent:
                why = "QEMU ended without saving the record of what changed on it"
            elif not bitmap.recording or bitmap.busy:
                why = "somebody else stopped or uses the record of what changed on it"
            if why:
                self._warn(f"{drive.disk.name} is read in full: {why}")
            else:
                since[drive.disk.name] = token
        return since

    def _hold(self, moment: Moment) -> Consistency:
        status = str(self._monitor.execute("query-status")["status"])
        self._ran = status == "running"
        if self._ran:
            return frozen(self._env, self._machine.agent, moment.hold, self._warn)
        moment.hold()
        if status == "shutdown":
            return Consistency(Level.FILE_SYSTEM, "the guest has shut down")
        return Consistency(Level.CRASH, f"the machine does not run, it is in the state {status}")

    @contextlib.contextmanager
    def _guarded(self, moment: Moment) -> Iterator[tuple[Guard, list[Part]]]:
        with contextlib.ExitStack() as stack:
            guard = self._guard = stack.enter_context(Guard(self._monitor, moment.jobs, self._room, ran=self._ran))
            parts = []
            for held in moment.disks:
                name, changes = held.drive.disk.name, held.changes
                since = None if changes is None else self._known[name]
                source = NbdSource(
                    self._env, moment.address, held.export, bitmap=changes, since=since, state=held.token
                )
                stack.callback(source.close)
                if changes is not None and not source.tracked:
                    self._warn(f"{name} is read in full: QEMU does not show the record of what changed on it")
                parts.append(Part(held.drive.disk, Checked(source, guard.check)))
            yield guard, parts
