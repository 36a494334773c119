# SPDX-License-Identifier: Apache-2.0
"""Images for QEMU in files without a name: nobody else can open them, and they go when QEMU lets go of them or ends."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from keepstone.env import Env
from keepstone.objects import failure
from keepstone.workloads.kvm.monitor import Monitor, Refused

__all__ = ["Nameless"]

_FIRST = 1 << 20  # libvirt counts its sets of descriptors from 0 on, and would add to one of ours


class Nameless:
    """Makes them in a folder. `prefix`: how what is needed meanwhile is called, see `sweep.py`."""

    def __init__(self, env: Env, monitor: Monitor, prefix: str, folder: Path) -> None:
        self._env, self._monitor, self._prefix, self._folder = env, monitor, prefix, folder

    def add(self, node: str, number: int, size: int, *, most: int | None = None) -> None:
        """An empty qcow2 of this size in a new file, which QEMU has as this node. `number`: of its disk. `most`: bytes
        that the file may take; what does not go in fails. `Refused`, `Gone`, and what files raise."""
        monitor, job = self._monitor, f"{self._prefix}m{number}"
        fd = self._file(most or 0)
        try:
            taken = [told["fdset-id"] for told in monitor.execute("query-fdsets")]
            fdset = max([_FIRST, *taken]) + 1
            monitor.execute("add-fd", fd=fd, fdset_id=fdset, opaque=f"{self._prefix}f{number}")
        finally:
            self._env.fs.close(fd)
        path = f"/dev/fdset/{fdset}"
        if most is None:
            monitor.execute("blockdev-add", driver="file", node_name=node, filename=path)
        else:
            file = {"driver": "file", "filename": path}
            monitor.execute("blockdev-add", driver="raw", node_name=node, size=most, file=file)
        monitor.execute("blockdev-create", job_id=job, options={"driver": "qcow2", "file": node, "size": size})
        monitor.wait(lambda: self._state(job)["status"] == "concluded", "an empty image")
        error = self._state(job).get("error")
        monitor.execute("job-dismiss", id=job)
        if error:
            raise Refused(f"QEMU cannot make an image in {self._folder}: {error}")

    def _state(self, job: str) -> dict[str, Any]:
        found = [told for told in self._monitor.execute("query-jobs") if told["id"] == job]
        return found[0] if found else {"status": "gone"}

    def _file(self, size: int) -> int:
        fs, flags = self._env.fs, os.O_RDWR | os.O_CLOEXEC
        try:
            try:
                fd = fs.open(self._folder, flags | os.O_TMPFILE, 0o600)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                    raise
                path = self._folder / f".keepstone-{self._env.random(8).hex()}"
                fd = fs.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
                fs.unlink(path)
            if size:
                fs.ftruncate(fd, size)
            return fd
        except OSError as error:
            raise failure(error, f"the folder for fleecing {self._folder}") from error
