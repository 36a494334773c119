# SPDX-License-Identifier: Apache-2.0
"""All disks of a domain at one moment, readable while the guest goes on writing: a backup job of libvirt that is pulled
(libvirt, formatbackup.html).

Invariants
* One request begins the job and the new checkpoint: libvirt does it as one transaction of QEMU, so all disks are of one
  moment, and the checkpoint records from it on.
* Everything is written down before the guest is frozen, but for that request.
* Who reads asks afterwards whether the moment `lasted`: a job that is gone held nothing from then on.
* Files and the socket have names that nobody can guess; libvirt makes them, for its QEMU and for us.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from keepstone.env import Env
from keepstone.errors import SourceFailed, UsageError
from keepstone.workloads.libvirt.checkpoints import why_none
from keepstone.workloads.libvirt.domains import Domain, DomainDisk
from keepstone.workloads.libvirt.markup import child, made, written
from keepstone.workloads.libvirt.sweep import is_ours, job
from keepstone.workloads.libvirt.virsh import Virsh, document, path_of

__all__ = ["CHANGES", "Moment"]

CHANGES = "changes"
"""The name of the bitmap that an export has of what changed since the checkpoint before."""
_LONGEST_SOCKET = 107  # unix(7)


class Moment:
    """`checkpoint`: the name of the new one, and how all else of this job begins; `since`: by target, the checkpoint
    that tells what changed; `folder`: where the files are that the job needs.

    `prepare`, then `hold` while the guest is frozen; whatever comes, `close`, and then `sweep`.
    """

    def __init__(
        self,
        env: Env,
        virsh: Virsh,
        domain: Domain,
        disks: Sequence[DomainDisk],
        since: Mapping[str, str],
        folder: Path,
        checkpoint: str,
    ) -> None:
        self._env, self._virsh, self._domain = env, virsh, domain
        self._disks, self._since, self._checkpoint = disks, since, checkpoint
        self._files = contextlib.ExitStack()
        self._begin: list[int] = []
        self._folder = folder
        self.when = 0
        """Wall clock of the moment, ns."""
        self.address = folder / f"{checkpoint}.nbd"
        """The socket at which the disks are, each by its target."""
        if len(str(self.address).encode("utf-8", "surrogateescape")) > _LONGEST_SOCKET:
            raise UsageError(f"the path of {folder} is too long for a socket in it; name another folder by --fleece")
        self.recording = {disk.target for disk in disks if not why_none(env, domain, disk)}
        """The targets whose changes the new checkpoint records."""

    def prepare(self) -> None:
        """Write down what is asked for."""
        self._begin = [self._files.enter_context(document(self._backup()))]
        if self.recording:
            self._begin.append(self._files.enter_context(document(self._new())))

    def _backup(self) -> str:
        root = made("domainbackup", mode="pull")
        child(root, "server", transport="unix", socket=str(self.address))
        disks = child(root, "disks")
        for disk in self._domain.disks:
            if disk not in self._disks:
                child(disks, "disk", name=disk.target, backup="no")
                continue
            how = {"backupmode": "full"}
            if disk.target in self._since:
                since = self._since[disk.target]
                how = {"backupmode": "incremental", "incremental": since, "exportbitmap": CHANGES}
            asked = child(disks, "disk", name=disk.target, backup="yes", type="file", exportname=disk.target, **how)
            child(asked, "scratch", file=str(self._folder / f"{self._checkpoint}.{disk.target}"))
        return written(root)

    def _new(self) -> str:
        root = made("domaincheckpoint")
        child(root, "name", self._checkpoint)
        child(root, "description", "Keepstone: what changed since its last recovery point")
        disks = child(root, "disks")
        for disk in self._domain.disks:
            child(disks, "disk", name=disk.target, checkpoint="bitmap" if disk.target in self.recording else "no")
        return written(root)

    def hold(self, janitor: int) -> None:
        """The moment. `janitor`: the pipe of what takes it away where we are killed, which waits for this request."""
        self.when = self._env.wall_time()
        documents = [path_of(fd) for fd in self._begin]
        self._virsh.ask("backup-begin", self._domain.uuid, *documents, holding=[janitor, *self._begin])

    def lasted(self) -> None:
        """`SourceFailed` where the disks were not held until now: what was read may be of another moment."""
        found = job(self._virsh, self._domain.uuid)
        if found is None or not is_ours(found, self._checkpoint):
            raise SourceFailed(
                f"the moment of {self._domain.name} was lost while it was read: its backup job is gone; "
                "back it up again"
            )

    def close(self) -> None:
        """Let go of what is outside of libvirt."""
        self._files.close()
