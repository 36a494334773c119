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
* Saved memory of a domain is of the disks that are there now; it goes before the first of them is written to.
* Where nothing was written yet, a failure takes the mark away and starts the domain again.
* Nothing else is left, whatever happened: what has the images open ends with us.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from keepstone.disks import RawSink, RawSource
from keepstone.env import Env
from keepstone.errors import Conflict, KeepstoneError, NotFound, SourceFailed, Unsupported, UsageError
from keepstone.objects import Buffer
from keepstone.workloads.images import restore_image
from keepstone.workloads.libvirt.alone import alone
from keepstone.workloads.libvirt.definition import state_file
from keepstone.workloads.libvirt.domains import OFF, RUNNING, Domain, DomainDisk, find, lasting
from keepstone.workloads.libvirt.half import Before, Mark, clear, forget, mark, mark_of
from keepstone.workloads.libvirt.lifecycle import start
from keepstone.workloads.libvirt.sweep import job
from keepstone.workloads.libvirt.virsh import Refused, Virsh, document
from keepstone.workloads.libvirt.writable import Writable, check_image
from keepstone.workloads.machines import Disk, OneDisk, PointOfMachine, Role
from keepstone.workloads.machines.putting import Put, Replaced, check_names, half_done, put_disk
from keepstone.workloads.progress import Progress, Silent, Together

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
) -> None:
    """What `replace_domain` would refuse of these disks, before anybody begins; nothing is half done there now."""
    domain = find(virsh, name)
    _Replacement(env, virsh, domain, point, Silent(), allowed).pairs(names, _lasting(virsh, domain))


def replace_domain(
    env: Env,
    virsh: Virsh,
    name: str,
    point: PointOfMachine,
    progress: Progress,
    *,
    names: Collection[str] = (),
    allowed: Callable[[Path], object] = lambda path: None,
) -> Replaced:
    """Put these disks of a point back into the domain of this name or UUID, or all, and start it where it ran.
    `allowed` is asked for each file that would be written to, and raises where it must not be.

    A disk that has become larger than the point's is zeros behind its end. Where something is lost in the store the
    domain stays off, as after any failure in the middle: then the error says what is half done. `NotFound` where point
    or domain has no such disk, `UsageError` where a disk has become smaller or cannot be written, `Unsupported`,
    `Conflict` where the domain is busy with its disks or an image is in use: then nothing was done. `Refused`, `Gone`,
    `StorageError`, and what `restore_image` raises.
    """
    domain = find(virsh, name)
    with alone(f"keepstone-replacing-{domain.uuid}", f"the disks of {domain.name} are being put back already"):
        return _Replacement(env, virsh, domain, point, progress, allowed).run(names)


def _lasting(virsh: Virsh, domain: Domain) -> str:
    return virsh.ask("dumpxml", domain.uuid, "--inactive", "--security-info")


def _earlier(domain: Domain, description: str) -> Mark | None:
    """The mark of a replacement that is not finished; None where there is none. One that had only the start of the
    domain left is over if that runs."""
    found = mark_of(description)
    return None if found is None or (found.whole and domain.runs) else found


@dataclass(frozen=True, slots=True)
class _Pair:
    """A disk of the point, and that of the domain."""

    disk: Disk
    reader: OneDisk
    image: DomainDisk


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
    ) -> None:
        self._env, self._virsh, self._domain, self._point = env, virsh, domain, point
        self._progress, self._allowed = progress, allowed
        self._done: list[Put] = []
        self._touched = False

    def run(self, names: Collection[str]) -> Replaced:
        virsh, domain = self._virsh, self._domain
        description = _lasting(virsh, domain)
        earlier = _earlier(domain, description)
        self._touched = earlier is not None
        pairs, beside, left = self.pairs(names, description)
        files = {disk.name for disk, _ in beside}
        wanted = {pair.disk.name for pair in pairs} or files
        if earlier is not None and (other := sorted(earlier.disks - wanted - files)):
            raise UsageError(
                f"{', '.join(other)} of {domain.name} is half put back; name that, too, or no disk for all"
            )
        self._busy()
        before = _before(domain) if earlier is None else earlier.before
        try:
            mark(virsh, domain.uuid, before, wanted)
            self._end()
            self._put(pairs)
            self._put_beside(beside)
        except BaseException as error:
            self._give_up(error, pairs, before)
            raise
        whole = not any(put.lost for put in self._done)
        if whole:
            self._begin_anew(before)
        return Replaced(self._done, left, running=whole and before is Before.RAN)

    # ------------------------------------------------------------- before anything is done

    def pairs(
        self, names: Collection[str], description: str
    ) -> tuple[list[_Pair], list[tuple[Disk, OneDisk]], list[str]]:
        """What goes where, what of firmware and TPM is put beside, and what stays as it is; raises where it cannot
        be."""
        if not self._domain.persistent:
            raise Unsupported(
                f"{self._domain.name} is not persistent, it is gone when it is off; define it, or restore its disks by "
                "--target"
            )
        check_names(self._point, names)
        later = lasting(description)
        there = {disk.target: disk for disk in self._domain.disks}
        pairs: list[_Pair] = []
        beside: list[tuple[Disk, OneDisk]] = []
        for disk, reader in self._point.disks:
            if names and disk.name not in names:
                continue
            if disk.role is not Role.DISK:
                if (path := state_file(self._virsh, self._domain, disk)) is not None:
                    self._allowed(path)
                beside.append((disk, reader))
                continue
            image = there.pop(disk.name, None)
            if image is None:
                known = ", ".join(one.name for one, _ in self._point.disks)
                raise NotFound(
                    f"{self._domain.name} has no disk {disk.name}, which the point has; name those to put back, of "
                    f"{known}"
                )
            self._check(disk, image, later.get(disk.name))
            pairs.append(_Pair(disk, reader, image))
        return pairs, beside, list(there)

    def _check(self, disk: Disk, image: DomainDisk, later: DomainDisk | None) -> None:
        if later is None or _same(later) != _same(image):
            raise UsageError(
                f"{disk.name} of {self._domain.name} is {image.source} now and is another disk after its next start; "
                "make them the same (virsh edit), or start the machine anew"
            )
        check_image(self._env, image, self._allowed)
        if image.size is None:
            raise SourceFailed(f"libvirt cannot tell how large {disk.name} ({image.source}) is; look at that image")
        if image.size < disk.size:
            raise UsageError(
                f"{disk.name} has {image.size} bytes in the machine and {disk.size} in the point; make it as large "
                "(virsh blockresize, qemu-img resize), or restore the point elsewhere by --target"
            )

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

    # ------------------------------------------------------------------------ what is done

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

    def _put(self, pairs: list[_Pair]) -> None:
        self._progress.expect(sum(pair.disk.size for pair in pairs))
        told = Together(self._progress)
        with contextlib.ExitStack() as stack:
            images = [stack.enter_context(Writable(self._env, pair.image)) for pair in pairs]
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

    def _put_beside(self, beside: list[tuple[Disk, OneDisk]]) -> None:
        """What firmware and TPM keep, to the byte, into the files that there are: their owners stay."""
        for disk, reader in beside:
            path = state_file(self._virsh, self._domain, disk)
            size = None if path is None else _size(self._env, path)
            if path is None or size is None or (disk.role is Role.NVRAM and size != disk.size):
                why = "the machine has no file for it" if size is None else f"its file has {size} bytes now"
                self._progress.warn(disk.name.encode(), f"is not put back: {why}")
                continue
            with _Counting(self._env, path, disk.size) as sink, RawSource(self._env, path) as existing:
                try:
                    lost = restore_image(self._env, reader, sink, Together(self._progress), existing=existing)
                finally:
                    self._touched = self._touched or sink.changed > 0
                self._done.append(Put(disk, sink.changed, lost))

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

    def _give_up(self, error: BaseException, pairs: list[_Pair], before: Before) -> None:
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


class _Counting(RawSink):
    """A file that is there. `changed`: how many bytes were to be written or made zeros."""

    def __init__(self, env: Env, path: Path, size: int) -> None:
        self.changed = 0
        super().__init__(env, path, size, overwrite=True)

    def __enter__(self) -> _Counting:
        return self

    def write(self, offset: int, data: Buffer) -> None:
        self.changed += memoryview(data).nbytes
        super().write(offset, data)

    def zero(self, offset: int, length: int) -> None:
        self.changed += length
        super().zero(offset, length)


def _same(disk: DomainDisk) -> tuple[str, str, str, bool]:
    """What has to be the same now and at the next start."""
    return disk.kind, disk.source, disk.format, disk.read_only


def _before(domain: Domain) -> Before:
    if domain.state in _AWAKE:
        return Before.RAN
    return Before.PAUSED if domain.state == "paused" else Before.OFF


def _size(env: Env, path: Path) -> int | None:
    try:
        return env.fs.stat(path).st_size
    except OSError:
        return None
