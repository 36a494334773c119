# SPDX-License-Identifier: Apache-2.0
"""The disks of a point back into a domain that is there.

The domain is ended, as by a power failure, if it runs: what it had in memory is of other disks. Then QEMU's own program
opens the images, what differs is written to them, the files of firmware and TPM are put back beside them, and the
domain is started if it ran before. Its definition stays as it is.

Invariants
* Nothing is ended or written before it is sure that every disk is there, is large enough, and can be written, and that
  the domain will have that same image at its next start.
* A domain whose disks are half of the point does not start, whoever tries: its description has a mark (`half`), which
  also remembers what it did. It is made before the domain is ended, and taken away when all is written and the images
  are closed. Whoever runs this again goes on where it ended, and in the end the domain does what it did.
* While it is written to, each image is locked as QEMU locks images, and QEMU itself writes. So the records of changes
  in it, which checkpoints stand for, stay true: the next backup reads what this changed. Where QEMU is killed meanwhile
  it vouches for no record, and the next backup reads that disk in full, with a warning (`writable`, `checkpoints`).
* What lies beneath an image is read, and stays as it is: other machines may be above it, too (`chain`, `writable`).
* Saved memory of a domain is of the disks that are there now; it goes before the first of them is written to.
* Where nothing was written yet, a failure takes the mark away and starts the domain again.
* Nothing else is left, whatever happened: what has the images open ends with us.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from pathlib import Path

from keepstone.env import Env
from keepstone.errors import Conflict, KeepstoneError, UsageError
from keepstone.workloads.libvirt.alone import alone
from keepstone.workloads.libvirt.beside import put_beside
from keepstone.workloads.libvirt.chain import unread
from keepstone.workloads.libvirt.definition import state_file
from keepstone.workloads.libvirt.domains import OFF, RUNNING, Domain, find
from keepstone.workloads.libvirt.half import Before, Mark, clear, forget, mark, mark_of
from keepstone.workloads.libvirt.lifecycle import start
from keepstone.workloads.libvirt.pairing import Pair, paired
from keepstone.workloads.libvirt.sweep import job
from keepstone.workloads.libvirt.virsh import Refused, Virsh, document
from keepstone.workloads.libvirt.writable import Writable
from keepstone.workloads.machines import Disk, OneDisk, PointOfMachine
from keepstone.workloads.machines.putting import Put, Replaced, half_done, put_disk
from keepstone.workloads.progress import Progress, Together

__all__ = ["check_domain", "replace_domain", "unfinished_domain"]

_ENDS = 180.0  # seconds that QEMU may take to write back what it has
_AWAKE = (RUNNING, "idle", "pmsuspended")


def unfinished_domain(virsh: Virsh, name: str) -> bool:
    """Whether a replacement of its disks was begun and has not come to its end. `NotFound`, `Refused`, `Gone`."""
    domain = find(virsh, name)
    return domain.persistent and _earlier(domain, _lasting(virsh, domain)) is not None


def check_domain(
    env: Env,
    virsh: Virsh,
    name: str,
    point: PointOfMachine,
    *,
    names: Collection[str] = (),
    allowed: Callable[[Path], object] = lambda path: None,
    readable: Callable[[Path], object] = unread,
) -> None:
    """What `replace_domain` would refuse of these disks, before anybody begins; nothing is half done there now."""
    domain = find(virsh, name)
    paired(env, virsh, domain, point, names, _lasting(virsh, domain), allowed, readable)


def replace_domain(
    env: Env,
    virsh: Virsh,
    name: str,
    point: PointOfMachine,
    progress: Progress,
    *,
    names: Collection[str] = (),
    allowed: Callable[[Path], object] = lambda path: None,
    readable: Callable[[Path], object] = unread,
) -> Replaced:
    """Put these disks of a point back into the domain of this name or UUID, or all, and start it where it ran.
    `allowed` is asked for each file that would be written to, `readable` for each backing file, of which none is
    written to and by default none is read; they raise where that must not be.

    A disk that has become larger than the point's is zeros behind its end. Where something is lost in the store the
    domain stays off, as after any failure in the middle: then the error says what is half done. `NotFound` where point
    or domain has no such disk, `UsageError` where a disk has become smaller or cannot be written, `Unsupported`,
    `Conflict` where the domain is busy with its disks or an image is in use: then nothing was done. `Refused`, `Gone`,
    `StorageError`, and what `restore_image` raises.
    """
    domain = find(virsh, name)
    with alone(f"keepstone-replacing-{domain.uuid}", f"the disks of {domain.name} are being put back already"):
        return _Replacement(env, virsh, domain, point, progress, allowed, readable).run(names)


def _lasting(virsh: Virsh, domain: Domain) -> str:
    return virsh.ask("dumpxml", domain.uuid, "--inactive", "--security-info")


def _earlier(domain: Domain, description: str) -> Mark | None:
    """The mark of a replacement that is not finished; None where there is none. One that had only the start of the
    domain left is over if that runs."""
    found = mark_of(description)
    return None if found is None or (found.whole and domain.runs) else found


class _Replacement:
    """One run."""

    def __init__(
        self,
        env: Env,
        virsh: Virsh,
        domain: Domain,
        point: PointOfMachine,
        progress: Progress,
        allowed: Callable[[Path], object],
        readable: Callable[[Path], object],
    ) -> None:
        self._env, self._virsh, self._domain, self._point = env, virsh, domain, point
        self._progress, self._allowed, self._readable = progress, allowed, readable
        self._done: list[Put] = []
        self._touched = False

    def run(self, names: Collection[str]) -> Replaced:
        virsh, domain = self._virsh, self._domain
        description = _lasting(virsh, domain)
        earlier = _earlier(domain, description)
        self._touched = earlier is not None
        asked = self._allowed, self._readable
        pairing = paired(self._env, virsh, domain, self._point, names, description, *asked)
        files = {disk.name for disk, _ in pairing.beside}
        wanted = {pair.disk.name for pair in pairing.disks} or files
        if earlier is not None and (other := sorted(earlier.disks - wanted - files)):
            raise UsageError(
                f"{', '.join(other)} of {domain.name} is half put back; name that, too, or no disk for all"
            )
        self._busy()
        before = _before(domain) if earlier is None else earlier.before
        try:
            mark(virsh, domain.uuid, before, wanted)
            self._end()
            self._put(pairing.disks)
            self._put_beside(pairing.beside)
        except BaseException as error:
            self._give_up(error, pairing.disks, before)
            raise
        whole = not any(put.lost for put in self._done)
        if whole:
            self._begin_anew(before)
        return Replaced(self._done, pairing.left, running=whole and before is Before.RAN)

    def _busy(self) -> None:
        """`Conflict` where something else is going on."""
        virsh, domain = self._virsh, self._domain
        if not domain.runs:
            return
        told = virsh.ask("domjobinfo", domain.uuid)
        if job(virsh, domain.uuid) is not None or "None" not in told.partition("\n")[0]:
            raise Conflict(
                f"{domain.name} is being backed up, saved or moved; wait until that is over (virsh domjobinfo)"
            )
        for disk in domain.disks:
            said = ""
            with contextlib.suppress(Refused):  # one that cannot have a job
                said = virsh.ask("blockjob", domain.uuid, disk.target, "--raw").strip()
            if said:
                raise Conflict(f"{disk.target} of {domain.name} has a job of its own; wait for it (virsh blockjob)")

    def _end(self) -> None:
        if not self._domain.runs:
            return
        try:
            with document("") as held:  # whoever is interrupted waits for it, and knows how things are
                self._virsh.ask("destroy", self._domain.uuid, holding=[held], timeout=_ENDS)
        except Refused:  # where the guest has just shut down by itself
            if self._state() != OFF:
                raise

    def _state(self) -> str:
        return self._virsh.ask("domstate", self._domain.uuid).strip()

    def _put(self, pairs: list[Pair]) -> None:
        self._progress.expect(sum(pair.disk.size for pair in pairs))
        told = Together(self._progress)
        with contextlib.ExitStack() as stack:
            images = [stack.enter_context(Writable(self._env, pair.image, self._readable)) for pair in pairs]
            for pair, image in zip(pairs, images, strict=True):
                if image.sink.size < pair.disk.size:
                    raise UsageError(f"{pair.disk.name} has {image.sink.size} bytes, {pair.disk.size} are needed")
            self._forget_memory()
            for pair, image in zip(pairs, images, strict=True):
                try:
                    lost = put_disk(self._env, pair.reader, pair.disk.size, image.sink, image.existing, told)
                finally:
                    self._touched = self._touched or image.sink.changed > 0
                self._done.append(Put(pair.disk, image.sink.changed, lost))

    def _forget_memory(self) -> None:
        uuid = self._domain.uuid
        if uuid in self._virsh.ask("list", "--all", "--with-managed-save", "--uuid").split():
            self._virsh.ask("managedsave-remove", uuid)
            self._progress.warn(b"", f"{self._domain.name} slept; its memory was of other disks, and is removed")

    def _touch(self) -> None:
        self._touched = True

    def _put_beside(self, beside: list[tuple[Disk, OneDisk]]) -> None:
        for disk, reader in beside:
            path = state_file(self._virsh, self._domain, disk)
            put = put_beside(self._env, path, disk, reader, self._progress, self._touch)
            if put is not None:
                self._done.append(put)

    def _begin_anew(self, before: Before) -> None:
        clear(self._virsh, self._domain.uuid, before)
        if before is Before.OFF:
            return
        try:
            start(self._virsh, self._domain.uuid, paused=before is Before.PAUSED)
        except KeepstoneError as error:
            error.args = (f"{error}. Its disks are put back, all of them; start {self._domain.name} by hand",)
            raise
        forget(self._virsh, self._domain.uuid)

    def _give_up(self, error: BaseException, pairs: list[Pair], before: Before) -> None:
        """Undo all where nothing was written; else say how things are."""
        if self._touched:
            whole = {put.disk.name for put in self._done}
            half = [pair.disk.name for pair in pairs if pair.disk.name not in whole]
            note = half_done(half, whole, f"the machine {self._domain.name} is off, and does not start")
        else:
            note = self._undone(before)
        if isinstance(error, KeepstoneError):
            error.args = (f"{error}. {note[0].upper()}{note[1:]}",)
        else:
            self._progress.warn(b"", note)

    def _undone(self, before: Before) -> str:
        try:
            was = self._state()
            clear(self._virsh, self._domain.uuid, before)
            if before is not Before.OFF:
                if was == OFF:
                    start(self._virsh, self._domain.uuid, paused=before is Before.PAUSED)
                forget(self._virsh, self._domain.uuid)
        except KeepstoneError as error:
            return f"nothing was written, but {self._domain.name} is not what it was: {error}"
        return "nothing was written" + (", and the machine was started again" if before is not Before.OFF else "")


def _before(domain: Domain) -> Before:
    if domain.state in _AWAKE:
        return Before.RAN
    return Before.PAUSED if domain.state == "paused" else Before.OFF
