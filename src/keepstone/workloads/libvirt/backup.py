# SPDX-License-Identifier: Apache-2.0
"""From a domain of libvirt to a recovery point of it.

Invariants
* The guest is never left frozen (`machines.stillness`), and goes on where there is no room for us (`guard`).
* Nothing is left in libvirt but the checkpoint of the newest point, and snapshots where they are wanted (`keeping`):
  what we made is swept last, whatever happened (`sweep`). Where we are killed, a process of its own does it
  (`machines.janitor`), and the next backup begins with what is still there.
* The checkpoint of the point before goes only when the new point is durable. Where it is not known whether it is,
  because the commit itself failed, both stay until the next backup sees which point there is.
* What changed is read only where the checkpoint of that disk is the one that the parent point remembers, and libvirt
  vouches for it. In every other case the disk is read in full, and a warning says why.
* All disks are of one moment, for which every one of them is held until the last byte is read (`moment`, `images`).
* One backup at a time of an item: what another one has is never taken for what a dead one left.
* Disks that are half put back from a point are no state of the machine, and become none (`half`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from keepstone.disks.nbd import NbdSource
from keepstone.env import Env
from keepstone.errors import Conflict, KeepstoneError, SourceFailed
from keepstone.store import Writer
from keepstone.workloads.images import Report
from keepstone.workloads.kvm import Keep
from keepstone.workloads.libvirt.agent import Agent
from keepstone.workloads.libvirt.alone import alone
from keepstone.workloads.libvirt.chain import unread
from keepstone.workloads.libvirt.checkpoints import checkpoint_of, checkpoints, recorded, token_of, why_none
from keepstone.workloads.libvirt.definition import definition, state
from keepstone.workloads.libvirt.domains import OFF, RUNNING, Domain, DomainDisk, chosen, find
from keepstone.workloads.libvirt.guard import Guard
from keepstone.workloads.libvirt.half import refuse_half
from keepstone.workloads.libvirt.images import Image
from keepstone.workloads.libvirt.keeping import Snapshots
from keepstone.workloads.libvirt.keeping import snapshots as kept
from keepstone.workloads.libvirt.moment import CHANGES, Moment
from keepstone.workloads.libvirt.sweep import is_ours, job, sweep
from keepstone.workloads.libvirt.threads import check_threads
from keepstone.workloads.libvirt.virsh import Virsh
from keepstone.workloads.machines import Consistency, Disk, Level, Machine, Part, backup_machine
from keepstone.workloads.machines.checked import Checked
from keepstone.workloads.machines.guard import Room
from keepstone.workloads.machines.janitor import Janitor
from keepstone.workloads.machines.naming import prefix_of
from keepstone.workloads.machines.root import tokens
from keepstone.workloads.machines.stillness import AgentFailed, hold_still
from keepstone.workloads.progress import Progress

__all__ = ["backup_domain"]

_ANSWER = 5.0  # seconds until a guest without an agent counts as one
_FREEZE = 20.0  # an agent writes back what is dirty first


def backup_domain(
    env: Env,
    writer: Writer,
    virsh: Virsh,
    name: str,
    progress: Progress,
    *,
    owner: str,
    fleecing: Room,
    exclude: Collection[str] = (),
    full: bool = False,
    readable: Callable[[Path], object] = unread,
    keep: Keep | None = None,
    snapshots: Room | None = None,
) -> Report:
    """Make a recovery point of the domain of this name or UUID, and commit it.

    `owner` names the item and its store, the same each time: what we have in libvirt goes by it. `fleecing`: where what
    the guest overwrites meanwhile is kept. `exclude`: targets of disks, such as `vdb`. `full`: read everything,
    whatever the checkpoints say. `readable` is asked for each backing file of a domain that is off, and raises where it
    must not be read; by default none is. `keep`: a snapshot stays, with its files in `snapshots`; without, those that
    are there stay until their time is over. A domain that is off has none. `NotFound` where there is no such domain or
    disk, `SourceFailed` where libvirt refuses or ends, `StorageFull`, `Conflict`, and what the store raises; nothing is
    visible then, and the caller aborts the writer.
    """
    domain = find(virsh, name)
    prefix = prefix_of(owner)
    with alone(f"{prefix}{domain.uuid}", f"{domain.name} is being backed up to this item already"):
        refuse_half(virsh, domain)
        backup = _Backup(env, writer, virsh, domain, progress, prefix, fleecing, readable, keep, snapshots)
        return backup.run(exclude, full)


class _Backup:
    """One run."""

    def __init__(
        self,
        env: Env,
        writer: Writer,
        virsh: Virsh,
        domain: Domain,
        progress: Progress,
        prefix: str,
        room: Room,
        readable: Callable[[Path], object],
        keep: Keep | None,
        snapshots: Room | None,
    ) -> None:
        self._env, self._writer, self._virsh, self._domain = env, writer, virsh, domain
        self._progress, self._prefix, self._room, self._readable = progress, prefix, room, readable
        self._keep, self._kept_in = keep, snapshots
        self._known = tokens(writer.parent)
        self._before = {checkpoint_of(token) for token in self._known.values()}
        self._name = domain.address.encode("utf-8", "surrogateescape")
        self._warnings = 0
        self._guard: Guard | None = None
        self._excluded: list[str] = []

    def _warn(self, message: str) -> None:
        self._warnings += 1
        self._progress.warn(self._name, message)

    def run(self, exclude: Collection[str], full: bool) -> Report:
        found, excluded = chosen(self._domain, exclude)
        for disk in found:
            if disk.kind == "lun":
                self._warn(f"{disk.target} is left out: it is passed through to the guest, and libvirt cannot hold it")
        left = [disk for disk in found if disk.kind != "lun"]
        self._excluded = [*excluded, *(disk.target for disk in found if disk.kind == "lun")]
        if not self._domain.runs:
            return self._off(left)
        other = job(self._virsh, self._domain.uuid)
        if other is not None and not is_ours(other, self._prefix):
            raise Conflict(f"somebody else backs {self._domain.name} up by libvirt already; wait until that is over")
        check_threads(self._virsh, self._domain, left)
        self._sweep(self._before)
        self._room.enough()
        with kept(
            self._env, self._virsh, self._domain, left, self._prefix, self._keep, self._kept_in, self._warn
        ) as snapshots:
            return self._running(left, full, snapshots)

    def _made(
        self,
        parts: Sequence[Part],
        when: int,
        consistency: Consistency,
        described: dict[str, bytes],
        held: Callable[[], None],
        stamp: int = 0,
    ) -> Report:
        about = Machine(
            name=self._domain.name,
            moment=when,
            consistency=consistency,
            disks=[part.disk for part in parts],
            definition=described,
            excluded=self._excluded,
        )
        return backup_machine(
            self._writer,
            about,
            parts,
            self._progress,
            name=self._name,
            held=held,
            warnings=self._warnings,
            stamp=stamp,
        )

    def _running(self, disks: list[DomainDisk], full: bool, snapshots: Snapshots | None) -> Report:
        env, virsh, uuid, before = self._env, self._virsh, self._domain.uuid, self._before
        since = {} if full else self._since(disks)
        checkpoint = self._prefix + env.random(8).hex()
        moment = Moment(env, virsh, self._domain, disks, since, self._room.folder, checkpoint)
        janitor = Janitor(sweep.__module__, virsh.uri, uuid, str(self._room.folder), checkpoint)
        keep = before
        try:
            moment.prepare()
            if snapshots is not None:
                snapshots.prepare()
            described = definition(virsh, self._domain)
            beside: list[Part] = []

            def hold() -> None:
                if snapshots is not None:
                    snapshots.enter()
                moment.hold(janitor.pipe)
                beside.extend(state(env, virsh, self._domain, self._warn))

            consistency = self._hold(hold)
            with self._guarded(moment, disks, since, checkpoint) as (guard, parts):

                def held() -> None:
                    nonlocal keep
                    guard.check()
                    moment.lasted()
                    keep = before | {checkpoint}
                    janitor.keep()

                stamp = 0 if snapshots is None else snapshots.stamp
                report = self._made([*parts, *beside], moment.when, consistency, described, held, stamp)
            keep = {checkpoint}
            self._finish(snapshots, keep)
            return report
        finally:
            moment.close()
            self._let_go(keep, janitor, snapshots)
            if self._guard is not None:
                self._guard.settle()

    def _sweep(self, keep: set[str]) -> None:
        sweep(self._env, self._virsh, self._domain.uuid, self._prefix, self._room.folder, keep)

    def _finish(self, snapshots: Snapshots | None, keep: set[str]) -> None:
        """There is a point, and whatever becomes of snapshots does not change that."""
        if snapshots is None:
            return
        try:
            self._sweep(keep)
            snapshots.finish()
        except KeepstoneError as error:
            self._progress.warn(self._name, f"no snapshot of this point is kept: {error}")

    def _let_go(self, keep: set[str], janitor: Janitor, snapshots: Snapshots | None) -> None:
        """Where libvirt has ended there is nothing to be done; what it refuses now, the next backup takes away."""
        try:
            self._sweep(keep)
            if snapshots is not None:
                snapshots.clear()
        except KeepstoneError as error:
            self._progress.warn(self._name, f"something of this backup is still in libvirt until the next one: {error}")
            janitor.let_go()
        else:
            janitor.dismiss()

    def _since(self, disks: list[DomainDisk]) -> dict[str, str]:
        """By target, the checkpoint of the parent point, where it can be relied on."""
        since: dict[str, str] = {}
        uuid, there = self._domain.uuid, set(checkpoints(self._virsh, self._domain.uuid))
        good = {name: recorded(self._virsh, uuid, name) for name in self._before & there}
        for disk in disks:
            token = self._known.get(disk.target)
            why = ""
            if token is None:
                why = why_none(self._env, self._domain, disk) if self._writer.parent is not None else ""
            elif (checkpoint := checkpoint_of(token)) not in there:
                why = "libvirt has lost the checkpoint of the point before"
            elif token != token_of(self._env, checkpoint, disk):
                why = "it has another image than at the point before"
            elif disk.target not in good[checkpoint]:
                why = "its image has lost the record of what changed on it, or was replaced"
            else:
                since[disk.target] = checkpoint
            if why:
                self._warn(f"{disk.target} is read in full: {why}")
        return since

    def _hold(self, moment: Callable[[], None]) -> Consistency:
        if self._domain.state != RUNNING:
            moment()
            return Consistency(Level.CRASH, f"the machine does not run, it is in the state {self._domain.state}")
        if not self._domain.agent:
            moment()
            return Consistency(Level.CRASH, "the machine has no channel to a guest agent")
        agent = Agent(self._virsh, self._domain.uuid)
        try:
            agent.ask("guest-ping", timeout=_ANSWER)
        except AgentFailed as error:
            moment()
            return Consistency(Level.CRASH, str(error))
        return hold_still(self._env, agent, moment, self._warn, _ANSWER, _FREEZE)

    @contextlib.contextmanager
    def _guarded(
        self, moment: Moment, disks: list[DomainDisk], since: dict[str, str], checkpoint: str
    ) -> Iterator[tuple[Guard, list[Part]]]:
        uuid, ran = self._domain.uuid, self._domain.state == RUNNING
        with contextlib.ExitStack() as stack:
            guard = Guard(self._env, self._virsh, uuid, checkpoint, self._room, ran=ran)
            self._guard = stack.enter_context(guard)
            parts = []
            for disk in disks:
                before = self._known[disk.target] if disk.target in since else None
                records = disk.target in moment.recording
                source = NbdSource(
                    self._env,
                    moment.address,
                    disk.target,
                    bitmap=CHANGES if before else None,
                    since=before,
                    state=token_of(self._env, checkpoint, disk) if records else None,
                )
                stack.callback(source.close)
                if before and not source.tracked:
                    self._warn(f"{disk.target} is read in full: libvirt does not show the record of what changed on it")
                parts.append(Part(Disk(disk.target, source.size, bus=disk.bus), Checked(source, guard.check)))
            yield guard, parts

    def _off(self, disks: list[DomainDisk]) -> Report:
        env, virsh, domain = self._env, self._virsh, self._domain
        if self._keep is not None:
            self._keep.there = []  # they went with its QEMU
        there = set(checkpoints(virsh, domain.uuid))
        consistency = _at_rest(virsh.ask("domstate", domain.uuid, "--reason").strip())
        with contextlib.ExitStack() as stack:
            parts = []
            for disk in disks:
                token = self._known.get(disk.target, "")
                checkpoint = checkpoint_of(token)
                records = checkpoint in there and token == token_of(env, checkpoint, disk)
                image = Image(env, disk, token if records else None, self._readable)
                stack.callback(image.close)
                parts.append(Part(Disk(disk.target, image.size, bus=disk.bus), image))
            when = env.wall_time()
            beside = state(env, virsh, domain, self._warn)

            def held() -> None:
                if virsh.ask("domstate", domain.uuid).strip() != OFF:
                    raise SourceFailed(f"{domain.name} was started while it was read; back it up again")

            held()
            return self._made([*parts, *beside], when, consistency, definition(virsh, domain), held)


def _at_rest(state: str) -> Consistency:
    """What the images of a domain are worth that is off, by what libvirt says of how it came to be so."""
    how = state.removeprefix(OFF).strip(" ()")
    if how == "shutdown":
        return Consistency(Level.FILE_SYSTEM, "the guest has shut down")
    if how == "saved":
        return Consistency(Level.CRASH, "the machine sleeps, and its memory is not part of the point")
    return Consistency(
        Level.CRASH, f"the machine is off, and libvirt does not say that it shut down: {how or 'unknown'}"
    )
